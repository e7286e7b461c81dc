"""`/v1/responses`: turns, and what becomes of them."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_api.wire import Decisions, Turn
from tenure_gateway import ids, turns
from tenure_gateway.answers import Answers
from tenure_gateway.faults import TurnRefused
from tenure_gateway.front import json_response
from tenure_gateway.openai import body as read
from tenure_gateway.openai import responses
from tenure_gateway.openai.errors import invalid, not_found
from tenure_gateway.openai.rendering import Rendering
from tenure_gateway.openai.response_object import Frame, response
from tenure_gateway.places import Place, Places, idempotency_key, of_agent
from tenure_gateway.turns import Turns
from tenure_gateway.visitors import Found, Visitor, Visitors


class ResponsesRoutes:
    """The routes of responses."""

    def __init__(self, visitors: Visitors, places: Places, answers: Answers, turns: Turns) -> None:
        self._visitors = visitors
        self._places = places
        self._answers = answers
        self._turns = turns

    def table(self) -> list[Route]:
        """The routes."""
        return [
            Route("/v1/responses", self.create, methods=["POST"]),
            Route("/v1/responses/{response}", self.retrieve, methods=["GET"]),
            Route("/v1/responses/{response}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/responses`: a turn, or decisions by which one goes on."""
        visitor = await self._visitors.visitor(request)
        wanted = responses.parse(read.parse(await request.body()))
        if wanted.decisions:
            return await self._decide(visitor, wanted)
        place = await self._places.of_response(visitor, wanted, idempotency_key(request))
        ask = turns.start(wanted.turn(place.turn, place.previous_turn))
        frame = Frame(place.session.key, str(place.session.agent), place.kept)
        if wanted.stream:
            return await self._answers.stream(place, ask, Rendering(frame))
        answer = self._answers.begun if wanted.background else self._answers.whole
        return json_response(response(frame, await answer(place, ask)))

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`: a turn as it is by now, or its events after a number."""
        visitor = await self._visitors.visitor(request)
        wanted = responses.retrieval(request.query_params)
        identifier = request.path_params["response"]
        found = await self._visitors.response(visitor, identifier)
        frame = _frame(found)
        if not wanted.stream:
            recorded = await self._turns.recorded(found.session.key, found.asker, found.turn)
            return json_response(response(frame, _there(recorded, identifier)))
        place = Place(found.session, found.asker, found.turn)
        try:
            return await self._answers.stream(place, turns.join(found.turn), Rendering(frame, wanted.after))
        except TurnRefused as refused:
            if refused.code == "turn_not_found":
                raise not_found("Response", identifier) from None
            raise

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`: the turn ends; one that has ended stays as it is."""
        visitor = await self._visitors.visitor(request)
        identifier = request.path_params["response"]
        found = await self._visitors.response(visitor, identifier)
        cancelled = await self._turns.cancel(found.session.key, found.asker, found.turn)
        return json_response(response(_frame(found), _there(cancelled, identifier)))

    async def _decide(self, visitor: Visitor, wanted: responses.ResponseRequest) -> Response:
        """Takes decisions on calls, and answers with the response that waited for them."""
        found = await self._waiting(visitor, wanted)
        session = of_agent(found.session, wanted.model)
        recorded = await self._turns.recorded(session.key, found.asker, found.turn)
        if recorded is None:
            raise not_found("Approval request", wanted.decisions[0].approval, "input")
        wanted.refuse_other_options(recorded.options)
        decided = Decisions(decisions=wanted.decisions)
        try:
            turn = await self._turns.decide(session.key, found.asker, found.turn, decided)
        except TurnRefused as refused:
            if refused.status == 404:
                raise not_found("Approval request", wanted.decisions[0].approval, "input") from None
            raise
        frame, place, ask = _frame(found), Place(session, found.asker, found.turn), turns.join(found.turn)
        if wanted.stream:
            return await self._answers.stream(place, ask, Rendering(frame, resumption=turn.resumptions))
        return json_response(response(frame, turn if wanted.background else await self._answers.whole(place, ask)))

    async def _waiting(self, visitor: Visitor, wanted: responses.ResponseRequest) -> Found:
        """The response that the decisions are about."""
        about = {ids.turn_of_approval(decision.approval) for decision in wanted.decisions}
        turn = next(iter(about))
        if turn is None or len(about) > 1:
            message = "The ids must be those of 'mcp_approval_request' items of one response."
            raise invalid(message, "input[0].approval_request_id")
        if wanted.previous is None:
            session = await self._visitors.conversation(visitor.caller, wanted.conversation or "", "conversation")
        else:
            session, previous = await self._visitors.previous(visitor, wanted.previous)
            if previous != turn:
                raise invalid("These calls are not that response's.", "previous_response_id")
        return Found(session, turn, visitor.caller)


def _frame(found: Found) -> Frame:
    return Frame(found.session.key, str(found.session.agent))


def _there(turn: Turn | None, identifier: str) -> Turn:
    if turn is None:
        raise not_found("Response", identifier)
    return turn
