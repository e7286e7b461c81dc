"""Finds who is calling, and what of theirs the ids in a request name."""

from dataclasses import dataclass

from starlette.requests import Request

from tenure_gateway import ids
from tenure_gateway.access import Access, Caller, on_behalf_of
from tenure_gateway.delegation import Delegation
from tenure_gateway.directory import SessionView
from tenure_gateway.openai.errors import ApiError, not_found, unauthorized
from tenure_gateway.sessions import Sessions


@dataclass(frozen=True)
class Visitor:
    """A caller. `session`: the session whose pod is calling, if it is one."""

    caller: Caller
    session: SessionView | None

    @property
    def asker(self) -> Caller:
        """In whose name sessions are asked: a session's pod acts for the session's subject."""
        return self.caller if self.session is None else on_behalf_of(self.session.subject)


@dataclass(frozen=True)
class Found:
    """A response: its session and its turn, and in whose name they are asked for."""

    session: SessionView
    turn: str
    asker: Caller


class Visitors:
    """All who call."""

    def __init__(self, access: Access, sessions: Sessions, delegation: Delegation) -> None:
        self._access = access
        self._sessions = sessions
        self._delegation = delegation

    async def visitor(self, request: Request) -> Visitor:
        """Who is calling. Raises `ApiError` if nobody whom Kubernetes knows."""
        caller = await self._access.caller(request.headers.get("authorization"))
        if caller is None:
            raise unauthorized()
        return Visitor(caller, await self._calling(caller))

    async def _calling(self, caller: Caller) -> SessionView | None:
        """The session whose pod is calling; None if it is somebody else."""
        pod = self._delegation.pod_of(caller)
        if pod is None:
            return None
        session = self._sessions.of_pod(pod)
        if session is None or not self._delegation.proven(caller, session):
            # A pod can be faster than the watch that shows it.
            session = await self._sessions.of_new_pod(pod)
        return session if session is not None and self._delegation.proven(caller, session) else None

    async def caller(self, request: Request) -> Caller:
        """As `visitor`, for what a session's pod has no part in."""
        return (await self.visitor(request)).caller

    async def conversation(self, caller: Caller, identifier: str, param: str | None = None) -> SessionView:
        """The session of a conversation. Raises `ApiError`; `param` is the field that names it."""
        session = await self._sessions.find(caller, ids.parse_conversation(identifier))
        if session is None:
            raise not_found("Conversation", identifier, param)
        return session

    async def container(self, caller: Caller, identifier: str) -> SessionView:
        """The session of a container. Raises `ApiError`."""
        session = await self._sessions.find(caller, ids.parse_container(identifier))
        if session is None:
            raise not_found("Container", identifier)
        return session

    async def response(self, visitor: Visitor, identifier: str) -> Found:
        """A response of the caller's, or one that the calling session asked another agent for. Raises `ApiError`."""
        parsed = ids.parse_response(identifier)
        if parsed is not None:
            if visitor.session is not None:
                child = await self._sessions.look_up(parsed[0])
                if child is not None and self._delegation.made(visitor.session, child):
                    return Found(child, parsed[1], visitor.asker)
            session = await self._sessions.find(visitor.caller, parsed[0])
            if session is not None:
                return Found(session, parsed[1], visitor.caller)
        raise not_found("Response", identifier)

    async def previous(self, visitor: Visitor, identifier: str) -> tuple[SessionView, str]:
        """Session and turn of a response that is to be continued. Raises `ApiError`."""
        try:
            found = await self.response(visitor, identifier)
        except ApiError:
            raise not_found("Previous response", identifier, "previous_response_id") from None
        if visitor.session is not None and self._delegation.made(visitor.session, found.session):
            raise not_found("Previous response", identifier, "previous_response_id")
        return found.session, found.turn
