"""Which messages of a conversation the model gets to read.

A turn is a user message and what follows it, calls of tools and their results too. User messages in a row are one turn,
since together they are what was asked. The last turn is the current one: its input, and its rounds so far. Turns before
it can be left out, whole and oldest first; system and developer messages never are, wherever they stand. As only whole
turns go, a result is never parted from the message that asked for it.
"""

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
"""A message as in the body of `POST /v1/chat/completions`."""

BYTES_PER_TOKEN = 3
"""UTF-8 bytes for one token. English text has about four with the vocabularies in use, code and other languages less:
an estimate that is too high costs an old turn, one that is too low costs a refused call."""
TOKENS_PER_MESSAGE = 4
"""What the marks around a message cost in the usual chat templates."""

_KEPT_ROLES = ("system", "developer")


def estimated_tokens(message: Message) -> int:
    """About how many tokens a message has; rather too many than too few."""
    content = message.get("content")
    text = content if isinstance(content, str) and len(message) == 2 else json.dumps(message, ensure_ascii=False)
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE


def reserve(window: int, max_output_tokens: int | None) -> int:
    """Tokens of the window to keep free for the answer.

    What the request allows the answer to have; a quarter of the window if it does not say. Never more than half: a
    generous limit on the answer must not cost the conversation.
    """
    return min(window // 4 if max_output_tokens is None else max_output_tokens, window // 2)


class Conversation:
    """The messages of one request, and the turns that can be left out of it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._turn_of = _turns(messages)
        self.turns = max((turn for turn in self._turn_of if turn is not None), default=0)
        """Turns that can be left out: all but the current one."""

    def without(self, cut: int) -> list[Message]:
        """The messages without the `cut` oldest turns."""
        return [m for m, turn in zip(self._messages, self._turn_of, strict=True) if turn is None or turn >= cut]

    def cut_to_fit(self, tokens: int) -> int:
        """How many of the oldest turns must be left out for the estimate to be within `tokens`.

        All of them if even that is too much: then the model itself says whether the rest fits.
        """
        sizes = [0] * (self.turns + 1)
        total = 0
        for message, turn in zip(self._messages, self._turn_of, strict=True):
            size = estimated_tokens(message)
            total += size
            if turn is not None:
                sizes[turn] += size
        cut = 0
        while total > tokens and cut < self.turns:
            total -= sizes[cut]
            cut += 1
        return cut

    def cut_more(self, cut: int) -> int | None:
        """How many turns to leave out when the model refused the call without `cut` turns as too long.

        The older half of those that are left; None if none is left.
        """
        left = self.turns - cut
        return cut + -(-left // 2) if left > 0 else None


def _turns(messages: Sequence[Message]) -> list[int | None]:
    """The number of the turn of each message, from 0; None for those that belong to none.

    What comes before the first user message, such as a greeting of the assistant, is a turn of its own.
    """
    numbers: list[int | None] = []
    turn = 0
    before: object = None
    for message in messages:
        role = message.get("role")
        if role in _KEPT_ROLES:
            numbers.append(None)
            continue
        if role == "user" and before not in (None, "user"):
            turn += 1
        before = role
        numbers.append(turn)
    return numbers
