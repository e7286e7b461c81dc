"""Effects of calls, counted; with holds right before and right after each effect."""

from collections import defaultdict
from typing import Any

from .holds import Holds


class _Count:
    """What calls with one tag have done."""

    def __init__(self) -> None:
        self.calls = self.effects = 0
        self.calls_by_key: dict[str, int] = defaultdict(int)
        self.effects_by_key: dict[str, int] = defaultdict(int)


class Effects:
    """All effects of a stand-in, by the tags that its callers choose.

    Every call passes two holds: `TAG/before` its effect, and `TAG/after` it, before the answer.
    """

    def __init__(self) -> None:
        self.holds = Holds()
        self._counts: dict[str, _Count] = defaultdict(_Count)

    def reset(self) -> None:
        """Forgets everything, and lets go all calls that wait."""
        self._counts.clear()
        self.holds.reset()

    async def take(self, tag: str, key: str | None = None, *, once: bool = False) -> None:
        """One call with its effect; with `once`, only the first call with a key has one. Raises `DroppedError`."""
        count = self._counts[tag]
        count.calls += 1
        if key:
            count.calls_by_key[key] += 1
        await self.holds.wait(f"{tag}/before")
        if not (once and key and count.effects_by_key[key]):
            count.effects += 1
            if key:
                count.effects_by_key[key] += 1
        await self.holds.wait(f"{tag}/after")

    def report(self, tag: str) -> dict[str, Any]:
        """Calls and effects with a tag, also by idempotency key."""
        count = self._counts.get(tag) or _Count()
        return {
            "calls": count.calls,
            "effects": count.effects,
            "callsByKey": dict(count.calls_by_key),
            "effectsByKey": {key: n for key, n in count.effects_by_key.items() if n},
        }
