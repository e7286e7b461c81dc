"""`/v1/models` and `/v1/conversations`: agents and sessions."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_gateway import ids
from tenure_gateway.access import Caller
from tenure_gateway.directory import SessionView
from tenure_gateway.front import json_response
from tenure_gateway.openai import body as read
from tenure_gateway.openai import conversations, models
from tenure_gateway.openai.errors import model_not_found
from tenure_gateway.sessions import Sessions, Wish
from tenure_gateway.turns import Turns
from tenure_gateway.visitors import Visitors


class ConversationsRoutes:
    """The routes of agents and sessions."""

    def __init__(self, visitors: Visitors, sessions: Sessions, turns: Turns) -> None:
        self._visitors = visitors
        self._sessions = sessions
        self._turns = turns

    def table(self) -> list[Route]:
        """The routes. A conversation may be named by its id or, in two segments, by its session."""
        return [
            Route("/v1/models", self.list_models, methods=["GET"]),
            Route("/v1/models/{namespace}/{name}", self.get_model, methods=["GET"]),
            Route("/v1/conversations", self.create, methods=["POST"]),
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
        return json_response(models.listing(await self._sessions.agents(await self._visitors.caller(request))))

    async def get_model(self, request: Request) -> Response:
        """`GET /v1/models/{namespace}/{agent}`."""
        model = f"{request.path_params['namespace']}/{request.path_params['name']}"
        agent = await self._sessions.agent(await self._visitors.caller(request), ids.parse_key(model))
        if agent is None:
            raise model_not_found(model)
        return json_response(models.model(agent))

    async def create(self, request: Request) -> Response:
        """`POST /v1/conversations`: a new session, which lives until it is deleted."""
        caller = await self._visitors.caller(request)
        wanted = conversations.parse(read.parse(await request.body()))
        agent = await self._sessions.agent(caller, ids.parse_key(wanted.agent))
        if agent is None:
            raise model_not_found(wanted.agent)
        session = await self._sessions.create(Wish(agent, caller.name, metadata=wanted.metadata))
        return json_response(conversations.conversation(session))

    async def conversation(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/conversations/{id}`."""
        session = await self._named(request, await self._visitors.caller(request))
        if request.method != "DELETE":
            return json_response(conversations.conversation(session))
        await self._sessions.delete(session)
        return json_response(conversations.deleted(session))

    async def list_items(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items`."""
        caller = await self._visitors.caller(request)
        query = conversations.page_query(request.query_params)
        session = await self._named(request, caller)
        return json_response(conversations.items(await self._turns.items(session.key, caller, query)))

    async def _named(self, request: Request, caller: Caller) -> SessionView:
        """The session that the path names."""
        named = request.path_params
        identifier = named["conversation"] if "conversation" in named else f"{named['namespace']}/{named['name']}"
        return await self._visitors.conversation(caller, identifier)
