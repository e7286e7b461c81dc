"""The agent loop: what the model gets to read, and what happens when that is too much."""

import logging
from collections.abc import AsyncIterator
from typing import Any

from tenure_runtime.context import Conversation, reserve
from tenure_runtime.errors import BadRequestError, ModelError
from tenure_runtime.model import Model

_log = logging.getLogger(__name__)


class AgentLoop:
    """Answers a conversation with one model call, or several if the model refuses it as too long."""

    def __init__(self, model: Model, window: int | None) -> None:
        self._model = model
        self._window = window

    async def answer(self, request: dict[str, Any]) -> AsyncIterator[bytes]:
        """The answer to the body of a chat completion; see `Model.ask`. Raises `FaultError`."""
        conversation = Conversation(_messages(request))
        cut = self._first_cut(conversation, request)
        while True:
            pieces = self._model.ask({**request, "messages": conversation.without(cut)}, cut)
            try:
                first = await anext(pieces, None)
                break
            except ModelError as error:
                more = conversation.cut_more(cut) if error.too_long else None
                if more is None:
                    raise
                _log.info("refused as too long; leaving out %d of %d turns", more, conversation.turns)
                cut = more
        if first is None:
            raise ModelError.broken("the answer of the model is empty")
        yield first
        async for piece in pieces:
            yield piece

    def _first_cut(self, conversation: Conversation, request: dict[str, Any]) -> int:
        if self._window is None:
            return 0
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        free = reserve(self._window, limit if isinstance(limit, int) else None)
        return conversation.cut_to_fit(self._window - free)


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("messages must be a list of at least one message", param="messages")
    return messages
