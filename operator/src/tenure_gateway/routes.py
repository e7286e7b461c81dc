"""The routes of the API: each finds who is calling and what they mean, has it done, and answers."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_api.wire import Turn, TurnRequest, TurnStatus
from tenure_gateway import ids
from tenure_gateway.access import Access, Caller
from tenure_gateway.directory import SessionView
from tenure_gateway.faults import ClusterRefused, ClusterUnavailable, Fault
from tenure_gateway.front import EventStream, error_response, json_response
from tenure_gateway.openai import body as read
from tenure_gateway.openai import chat, conversations, models, responses
from tenure_gateway.openai.errors import (
    ApiError,
    from_fault,
    invalid,
    model_not_found,
    not_found,
    turn_failed,
    unauthorized,
    unsupported,
)
from tenure_gateway.sessions import Sessions
from tenure_gateway.turns import Progress, Turns

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


class Writer(Protocol):
    """Writes the events of one streamed turn."""

    def opening(self) -> bytes:
        """The turn is recorded."""

    def text(self, text: str) -> bytes:
        """More text."""

    def closing(self, turn: Turn) -> bytes:
        """The turn has ended."""

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on."""


@dataclass(frozen=True)
class Place:
    """Where a turn is to run. `fresh`: made for this turn; `kept`: it outlives it."""

    session: SessionView
    fresh: bool
    kept: bool
    previous_turn: str | None = None


@dataclass(frozen=True)
class Lifetimes:
    """In seconds: of a session made by a lone response, and of a throwaway one that could not be deleted."""

    response: int
    throwaway: int


class Routes:
    """All routes."""

    def __init__(self, access: Access, sessions: Sessions, turns: Turns, lifetimes: Lifetimes) -> None:
        self._access = access
        self._sessions = sessions
        self._turns = turns
        self._lifetimes = lifetimes

    def table(self) -> list[Route]:
        """The routes. A conversation may be named by its id or, in two segments, by its session."""
        return [
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/v1/models/{namespace}/{name}", self.get_model, methods=["GET"]),
            Route("/v1/responses", self.create_response, methods=["POST"]),
            Route("/v1/responses/{response}", self.get_response, methods=["GET"]),
            Route("/v1/chat/completions", self.create_completion, methods=["POST"]),
            Route("/v1/conversations", self.create_conversation, methods=["POST"]),
            *(
                route
                for where in ("{conversation}", "{namespace}/{name}")
                for route in (
                    Route(f"/v1/conversations/{where}/items", self.list_items, methods=["GET"]),
                    Route(f"/v1/conversations/{where}", self.conversation, methods=["GET", "DELETE"]),
                )
            ),
        ]

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`: the agents that the caller may use."""
        return json_response(models.listing(await self._sessions.agents(await self._caller(request))))

    async def get_model(self, request: Request) -> Response:
        """`GET /v1/models/{namespace}/{agent}`."""
        model = f"{request.path_params['namespace']}/{request.path_params['name']}"
        agent = await self._sessions.agent(await self._caller(request), ids.parse_key(model))
        if agent is None:
            raise model_not_found(model)
        return json_response(models.model(agent))

    async def create_conversation(self, request: Request) -> Response:
        """`POST /v1/conversations`: a new session, which lives until it is deleted."""
        caller = await self._caller(request)
        wanted = conversations.parse(read.parse(await request.body()))
        agent = await self._sessions.agent(caller, ids.parse_key(wanted.agent))
        if agent is None:
            raise model_not_found(wanted.agent)
        session = await self._sessions.create(caller, agent, None, wanted.metadata)
        return json_response(conversations.conversation(session))

    async def conversation(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/conversations/{id}`."""
        session = await self._named_session(request, await self._caller(request))
        if request.method != "DELETE":
            return json_response(conversations.conversation(session))
        await self._sessions.delete(session)
        return json_response(conversations.deleted(session))

    async def list_items(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items`."""
        caller = await self._caller(request)
        query = conversations.page_query(request.query_params)
        session = await self._named_session(request, caller)
        return json_response(conversations.items(await self._turns.items(session.key, caller.name, query)))

    async def create_response(self, request: Request) -> Response:
        """`POST /v1/responses`: a turn."""
        caller = await self._caller(request)
        wanted = responses.parse(read.parse(await request.body()))
        place = await self._place_of_response(caller, wanted)
        turn = ids.new_turn()
        frame = responses.Frame(place.session.key, turn, str(place.session.agent), time.time(), place.kept, wanted)
        turn_request = wanted.turn(turn, place.previous_turn)
        if wanted.stream:
            events = responses.Events(frame, f"msg_{turn}_{len(wanted.input)}")
            return await self._stream(place, caller, turn_request, events)
        return json_response(responses.response(frame, await self._answer(place, caller, turn_request)))

    async def get_response(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`: a turn as recorded."""
        caller = await self._caller(request)
        for name, value in request.query_params.items():
            if value != "false":
                raise unsupported(name, "Leave it out.")
        identifier = request.path_params["response"]
        session, turn = await self._response(caller, identifier, None)
        recorded = await self._turns.recorded(session.key, caller.name, turn)
        if recorded is None:
            raise not_found("Response", identifier)
        frame = responses.Frame(session.key, turn, str(session.agent), 0, kept=True)
        return json_response(responses.response(frame, recorded))

    async def create_completion(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: a turn in a chosen session or in a throwaway one."""
        caller = await self._caller(request)
        wanted = chat.parse(read.parse(await request.body()), request.headers.get(chat.SESSION_HEADER))
        place = await self._place_of_completion(caller, wanted)
        turn = ids.new_turn()
        frame = chat.Frame(turn, str(place.session.agent), int(time.time()))
        if wanted.stream:
            return await self._stream(place, caller, wanted.turn(turn), chat.Chunks(frame, wanted.include_usage))
        return json_response(frame.completion(await self._answer(place, caller, wanted.turn(turn))))

    # --- who and where ---------------------------------------------------------------------------------------

    async def _caller(self, request: Request) -> Caller:
        caller = await self._access.caller(request.headers.get("authorization"))
        if caller is None:
            raise unauthorized()
        return caller

    async def _named_session(self, request: Request, caller: Caller) -> SessionView:
        """The session that the path names."""
        named = request.path_params
        identifier = named["conversation"] if "conversation" in named else f"{named['namespace']}/{named['name']}"
        return await self._session(caller, identifier, None)

    async def _session(self, caller: Caller, conversation: str, param: str | None) -> SessionView:
        session = await self._sessions.find(caller, ids.parse_conversation(conversation))
        if session is None:
            raise not_found("Conversation", conversation, param)
        return session

    async def _response(self, caller: Caller, identifier: str, param: str | None) -> tuple[SessionView, str]:
        """Session and turn of a response."""
        parsed = ids.parse_response(identifier)
        session = None if parsed is None else await self._sessions.find(caller, parsed[0])
        if parsed is None or session is None:
            raise not_found("Response" if param is None else "Previous response", identifier, param)
        return session, parsed[1]

    async def _place_of_response(self, caller: Caller, wanted: responses.ResponseRequest) -> Place:
        if wanted.conversation is not None:
            session = await self._session(caller, wanted.conversation, "conversation")
            return Place(_of_agent(session, wanted.model), fresh=False, kept=True)
        if wanted.previous is not None:
            session, turn = await self._response(caller, wanted.previous, "previous_response_id")
            return Place(_of_agent(session, wanted.model), fresh=False, kept=True, previous_turn=turn)
        seconds = self._lifetimes.response if wanted.store else self._lifetimes.throwaway
        return Place(await self._fresh(caller, wanted.model or "", seconds), fresh=True, kept=wanted.store)

    async def _place_of_completion(self, caller: Caller, wanted: chat.ChatRequest) -> Place:
        if wanted.conversation is None:
            session = await self._fresh(caller, wanted.model, self._lifetimes.throwaway)
            return Place(session, fresh=True, kept=False)
        session = await self._session(caller, wanted.conversation, f"metadata.{chat.SESSION_KEY}")
        return Place(_of_agent(session, wanted.model), fresh=False, kept=True)

    async def _fresh(self, caller: Caller, model: str, seconds: int) -> SessionView:
        agent = await self._sessions.agent(caller, ids.parse_key(model))
        if agent is None:
            raise model_not_found(model)
        return await self._sessions.create_for_turn(caller, agent, seconds)

    # --- the turn --------------------------------------------------------------------------------------------

    async def _answer(self, place: Place, caller: Caller, request: TurnRequest) -> Turn:
        """The turn, at its end. A session made for it whose id the client will not learn is deleted."""
        known = False
        try:
            async with aclosing(self._turns.follow(place.session.key, caller.name, request, pass_on=False)) as steps:
                turn = [step.turn async for step in steps if step.turn is not None][-1]
            if turn.status is TurnStatus.FAILED:
                raise turn_failed(turn)
            known = place.kept
            return turn
        finally:
            if place.fresh and not known:
                self._sessions.discard(place.session)

    async def _stream(self, place: Place, caller: Caller, request: TurnRequest, writer: Writer) -> Response:
        """The turn as a stream, once it is recorded: what is refused before that is an answer of its own."""
        steps = self._turns.follow(place.session.key, caller.name, request, pass_on=True)
        try:
            await anext(steps)
        except BaseException:
            if place.fresh:
                self._sessions.discard(place.session)
            raise

        def closed() -> None:
            if place.fresh and not place.kept:
                self._sessions.discard(place.session)

        return EventStream(_events(steps, writer), closed)


async def _events(steps: AsyncGenerator[Progress, None], writer: Writer) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        yield writer.opening()
        try:
            async for step in steps:
                written = writer.text(step.text) if step.text else b""
                yield written if step.turn is None else written + writer.closing(step.turn)
        except Fault as fault:
            yield writer.error(from_fault(fault))


def _of_agent(session: SessionView, model: str | None) -> SessionView:
    """The session, if it is one with this agent."""
    if model is not None and model != str(session.agent):
        raise invalid(f"This conversation is with '{session.agent}': send that as the model.", "model")
    return session


async def _answer_error(request: Request, error: Exception) -> Response:
    match error:
        case ApiError():
            return error_response(error)
        case Fault():
            if isinstance(error, ClusterUnavailable | ClusterRefused):
                log.warning("%s %s: %s", request.method, request.scope["route"].path, error)
            return error_response(from_fault(error))
        case HTTPException(status_code=405):
            message = f"{request.method} is not for {request.url.path}."
            return error_response(ApiError(405, "method_not_allowed", message, headers=error.headers or {}))
    message = f"There is no {request.url.path} here. The API begins at /v1/models."
    return error_response(ApiError(404, "unknown_url", message))


async def _answer_bug(_: Request, __: Exception) -> Response:
    message = "This is a bug of the gateway. Its log knows more by the x-request-id of this answer."
    return error_response(ApiError(500, "server_error", message))


def application(routes: list[Route]) -> Starlette:
    """The routes, with everything that they raise turned into answers."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _answer_error,
            Fault: _answer_error,
            HTTPException: _answer_error,
            Exception: _answer_bug,
        },
    )
    # A path with a slash too many is unknown: a redirected POST loses its body with some clients.
    app.router.redirect_slashes = False
    return app


def templates(routes: list[Route]) -> dict[Endpoint, str]:
    """The path of each endpoint, for the metrics."""
    return {route.endpoint: route.path for route in reversed(routes)}
