"""Finds or makes the session that a turn is to run in, and the turn's id."""

from dataclasses import dataclass

from starlette.requests import Request

from tenure_gateway import ids
from tenure_gateway.access import Caller, on_behalf_of
from tenure_gateway.delegation import Delegation
from tenure_gateway.directory import SessionView
from tenure_gateway.openai import chat
from tenure_gateway.openai.chat import ChatRequest
from tenure_gateway.openai.errors import invalid, model_not_found
from tenure_gateway.openai.responses import ResponseRequest
from tenure_gateway.sessions import Sessions, Wish
from tenure_gateway.visitors import Visitor, Visitors

KEY_HEADER = "idempotency-key"
_LONGEST_KEY = 255


@dataclass(frozen=True)
class Place:
    """Where a turn runs, and in whose name. `fresh`: made for this turn; `kept`: it outlives it."""

    session: SessionView
    asker: Caller
    turn: str
    previous_turn: str | None = None
    fresh: bool = False
    kept: bool = True


@dataclass(frozen=True)
class Lifetimes:
    """In seconds: of a session made by a lone response, and of a throwaway one that could not be deleted."""

    response: int
    throwaway: int


def idempotency_key(request: Request) -> str | None:
    """The key by which a repetition of the request is known, if there is one. Raises `ApiError`."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise invalid(f"Idempotency-Key must have from 1 to {_LONGEST_KEY} printable ASCII characters.", None)
    return key


class Places:
    """Places of turns."""

    def __init__(self, sessions: Sessions, visitors: Visitors, delegation: Delegation, lifetimes: Lifetimes) -> None:
        self._sessions = sessions
        self._visitors = visitors
        self._delegation = delegation
        self._lifetimes = lifetimes

    async def of_response(self, visitor: Visitor, wanted: ResponseRequest, key: str | None) -> Place:
        """Of a response. Raises `ApiError` or a `Fault`."""
        turn = ids.new_turn() if key is None else ids.repeatable(visitor.caller.name, key).turn
        if wanted.conversation is not None:
            session = await self._visitors.conversation(visitor.caller, wanted.conversation, "conversation")
            return Place(of_agent(session, wanted.model), visitor.caller, turn)
        if wanted.previous is not None:
            session, previous = await self._visitors.previous(visitor, wanted.previous)
            return Place(of_agent(session, wanted.model), visitor.caller, turn, previous)
        if visitor.session is not None:
            agent = ids.parse_key(wanted.model or "")
            if agent is not None and self._delegation.may_call(visitor.session, agent):
                return await self._called(visitor.session, agent, wanted, key)
        return await self._fresh(visitor, wanted.model or "", wanted.store, key)

    async def of_completion(self, visitor: Visitor, wanted: ChatRequest, key: str | None) -> Place:
        """Of a completion. Raises `ApiError` or a `Fault`."""
        if wanted.conversation is None:
            return await self._fresh(visitor, wanted.model, kept=False, key=key)
        turn = ids.new_turn() if key is None else ids.repeatable(visitor.caller.name, key).turn
        param = f"metadata.{chat.SESSION_KEY}"
        session = await self._visitors.conversation(visitor.caller, wanted.conversation, param)
        return Place(of_agent(session, wanted.model), visitor.caller, turn)

    async def _fresh(self, visitor: Visitor, model: str, kept: bool, key: str | None) -> Place:
        agent = await self._sessions.agent(visitor.caller, ids.parse_key(model))
        if agent is None:
            raise model_not_found(model)
        seconds = self._lifetimes.response if kept else self._lifetimes.throwaway
        subject = visitor.caller.name
        if key is None:
            session = await self._sessions.create_for_turn(Wish(agent, subject, seconds))
            return Place(session, visitor.caller, ids.new_turn(), fresh=True, kept=kept)
        # Not deleted after the answer: a repetition of the request is to find it.
        names = ids.repeatable(subject, key)
        session = await self._sessions.create_for_turn(Wish(agent, subject, seconds, name=names.session))
        return Place(session, visitor.caller, names.turn, kept=kept)

    async def _called(self, parent: SessionView, agent: ids.Key, wanted: ResponseRequest, key: str | None) -> Place:
        """For a call of an agent by another one's session, in the name of that session's subject."""
        if key is None:
            raise invalid("A session that calls an agent must send an Idempotency-Key.", None)
        call = self._delegation.call(parent, wanted.metadata)
        view = self._delegation.agent(agent)
        if view is None:
            raise model_not_found(str(agent))
        names = ids.repeatable(parent.uid, key)
        wish = Wish(view, parent.subject, call.seconds, name=names.session, parentage=call.parentage)
        return Place(await self._sessions.create_for_turn(wish), on_behalf_of(parent.subject), names.turn)


def of_agent(session: SessionView, model: str | None) -> SessionView:
    """The session, if it is one with this agent. Raises `ApiError`."""
    if model is not None and model != str(session.agent):
        raise invalid(f"This conversation is with '{session.agent}': send that as the model.", "model")
    return session
