"""The agent loop: what the model gets to read, what happens when that is too much, and the tools it asks for."""

import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from tenure_runtime.context import Conversation, reserve
from tenure_runtime.errors import BadRequestError, ModelError
from tenure_runtime.model import DONE, Model
from tenure_runtime.rounds import Completion, Json, Round
from tenure_runtime.tools import Tools, results

_log = logging.getLogger(__name__)

_Piece = TypeVar("_Piece")
_Ask = Callable[[Json, int], AsyncGenerator[_Piece, None]]


class AgentLoop:
    """Answers a conversation with one chat completion.

    Without tools that is one model call. With tools the model is asked again with their results for as long as it asks
    for more; what comes out is the text of all its answers. A call that the model refuses as too long is made again
    without the oldest turns, and they stay out for the rest of the turn.
    """

    def __init__(self, model: Model, tools: Tools, window: int | None) -> None:
        self._model = model
        self._tools = tools
        self._window = window

    def answer(self, request: Json) -> AsyncGenerator[bytes, None]:
        """The answer to the body of a chat completion; see `Model.ask`. Raises `FaultError`."""
        asking = _Asking(request, self._fits(request))
        return self._rounds(request, asking) if request.get("tools") else asking.pieces(self._model.ask)

    async def _rounds(self, request: Json, asking: "_Asking") -> AsyncGenerator[bytes, None]:
        """Model calls and tool calls in turn, until the model asks for no more tools."""
        completion = Completion()
        streams = bool(request.get("stream"))
        number = 0
        while True:
            round_ = Round(number)
            async with aclosing(asking.pieces(self._model.chunks)) as chunks:
                async for chunk in chunks:
                    taken = round_.take(chunk)
                    passed = completion.add(taken) if taken is not None else None
                    if passed is not None and streams:
                        yield _event(passed)
            if round_.finish_reason is None:
                raise ModelError.broken("the answer of the model broke off")
            completion.count(round_.usage)
            calls = round_.calls()
            if not calls:
                break
            parallel = request.get("parallel_tool_calls") is not False
            asking.go_on([round_.message(), *await results(self._tools, calls, parallel)])
            number += 1
        if streams:
            last = completion.last_chunks(round_.finish_reason, _usage_wanted(request))
            yield b"".join(map(_event, last)) + DONE
        else:
            yield json.dumps(completion.whole(round_.finish_reason)).encode()

    def _fits(self, request: Json) -> int | None:
        """How many tokens the messages may have; None if that is not known.

        Tools are not counted. Their descriptions may be others when the turn is run again, and its model calls must
        then be the same.
        """
        if self._window is None:
            return None
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        return self._window - reserve(self._window, limit if isinstance(limit, int) else None)


class _Asking:
    """The model calls of one turn: the conversation grows at its end, and is cut at its beginning."""

    def __init__(self, request: Json, fits: int | None) -> None:
        """`fits` is how many tokens the messages may have, if that is known. Raises `BadRequestError`."""
        self._request = request
        self._messages = _messages(request)
        self._fits = fits
        self._cut = 0

    def go_on(self, messages: list[Json]) -> None:
        """Adds messages to the current turn."""
        self._messages = [*self._messages, *messages]

    async def pieces(self, ask: _Ask[_Piece]) -> AsyncGenerator[_Piece, None]:
        """The answer of the model, in pieces as they come. Raises `ModelError`."""
        conversation = Conversation(self._messages)
        if self._fits is not None:
            self._cut = max(self._cut, conversation.cut_to_fit(self._fits))
        while True:
            body = {**self._request, "messages": conversation.without(self._cut)}
            async with aclosing(ask(body, self._cut)) as pieces:
                try:
                    first = await anext(pieces, None)
                except ModelError as error:
                    more = conversation.cut_more(self._cut) if error.too_long else None
                    if more is None:
                        raise
                    _log.info("refused as too long; leaving out %d of %d turns", more, conversation.turns)
                    self._cut = more
                    continue
                if first is None:
                    raise ModelError.broken("the answer of the model is empty")
                yield first
                async for piece in pieces:
                    yield piece
                return


def _messages(request: Json) -> list[Json]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("messages must be a list of at least one message", param="messages")
    return messages


def _usage_wanted(request: Json) -> bool:
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _event(chunk: Json) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
