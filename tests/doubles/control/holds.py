"""Holds: places at which calls wait until a test lets them go.

A hold is known by a name that the test chooses, and is released for good: calls that come to it later pass. So a test
waits until a call has come to a hold, kills whom it wants to kill, and then releases it.
"""

import asyncio
from collections import defaultdict
from typing import Any


class Holds:
    """All holds of a stand-in."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all holds; calls that wait pass."""
        for event in getattr(self, "_events", {}).values():
            event.set()
        self._events: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._waiting: dict[str, int] = defaultdict(int)
        self._arrived: dict[str, int] = defaultdict(int)

    async def wait(self, name: str | None) -> None:
        """Waits until the hold is released; at once if there is no name."""
        if not name:
            return
        self._arrived[name] += 1
        self._waiting[name] += 1
        waiting = self._waiting
        try:
            await self._events[name].wait()
        finally:
            waiting[name] -= 1

    def release(self, name: str) -> None:
        """Lets go all calls that are at a hold, and all that will come to it."""
        self._events[name].set()

    def report(self) -> dict[str, Any]:
        """By name: how many calls have come to it, how many wait there now, and whether it is released."""
        return {
            name: {"arrived": self._arrived[name], "waiting": self._waiting[name], "released": event.is_set()}
            for name, event in list(self._events.items())
        }
