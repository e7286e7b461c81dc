"""What the stand-in has been asked."""

import hashlib
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from .conversation import Call

_KEPT = 1000
"""Calls remembered for each tag, and for all together; counts go on."""
_KEPT_PROBLEMS = 20
_PARAMETERS = ("temperature", "top_p", "max_completion_tokens", "max_tokens", "max_output_tokens", "store")

Record = dict[str, Any]


class Calls:
    """Counts and remembers calls, by tag and in total. Never a credential: only its SHA-256."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._counts: dict[str | None, int] = defaultdict(int)
        self._last: dict[str | None, deque[Record]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._failures: dict[str, int] = defaultdict(int)
        self._problems: dict[str | None, int] = defaultdict(int)
        self._last_problems: dict[str | None, deque[Record]] = defaultdict(lambda: deque(maxlen=_KEPT_PROBLEMS))

    def add(self, api: str, call: Call, tags: list[str], body: Mapping[str, Any], authorization: str | None) -> Record:
        """Notes a call that begins. The caller sets `ended` when it does: `complete`, `failed` or `aborted`."""
        record: Record = {
            "api": api,
            "model": call.model,
            "messages": len(call.messages),
            "stream": call.stream,
            "authorization": authorization is not None,
            "authorization_sha256": _digest(authorization),
            "parameters": {name: body[name] for name in _PARAMETERS if name in body},
            "ended": None,
        }
        for tag in (None, *tags):
            self._counts[tag] += 1
            self._last[tag].append(record)
        return record

    def fails_again(self, key: str, times: int) -> bool:
        """Whether a call that fails the first `times` times for `key` is to fail once more."""
        self._failures[key] += 1
        return self._failures[key] <= times

    def refuse(self, problem: str, tags: list[str], asked: object) -> None:
        """Notes a conversation that no endpoint would take."""
        for tag in (None, *tags):
            self._problems[tag] += 1
            self._last_problems[tag].append({"problem": problem, "asked": asked})

    def refused(self, tag: str | None) -> dict[str, Any]:
        """How many conversations with a tag were refused, all if it is None; and the last of them."""
        return {"count": self._problems.get(tag, 0), "last": list(self._last_problems.get(tag, ()))}

    def report(self, tag: str | None) -> dict[str, Any]:
        """The calls with a tag; all if it is None."""
        return {"count": self._counts.get(tag, 0), "calls": list(self._last.get(tag, ()))}


def _digest(authorization: str | None) -> str | None:
    """Of the token alone, so that a test can compare it with the digest of the credential that it has made."""
    if authorization is None:
        return None
    return hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
