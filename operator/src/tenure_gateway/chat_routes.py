"""`/v1/chat/completions`: turns for clients that know only that."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_gateway import turns
from tenure_gateway.answers import Answers
from tenure_gateway.front import json_response
from tenure_gateway.openai import body as read
from tenure_gateway.openai import chat
from tenure_gateway.openai.completions import Chunks, Frame
from tenure_gateway.places import Places, idempotency_key
from tenure_gateway.visitors import Visitors


class ChatRoutes:
    """The routes of completions."""

    def __init__(self, visitors: Visitors, places: Places, answers: Answers) -> None:
        self._visitors = visitors
        self._places = places
        self._answers = answers

    def table(self) -> list[Route]:
        """The routes."""
        return [Route("/v1/chat/completions", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: a turn in a chosen session or in a throwaway one."""
        visitor = await self._visitors.visitor(request)
        wanted = chat.parse(read.parse(await request.body()), request.headers.get(chat.SESSION_HEADER))
        place = await self._places.of_completion(visitor, wanted, idempotency_key(request))
        frame = Frame(place.session.key, place.turn, str(place.session.agent), int(time.time()))
        ask = turns.start(wanted.turn(place.turn))
        if wanted.stream:
            return await self._answers.stream(place, ask, Chunks(frame, wanted.include_usage))
        turn = await self._answers.whole(place, ask)
        trouble = frame.trouble(turn)
        if trouble is not None:
            raise trouble
        return json_response(frame.completion(turn))
