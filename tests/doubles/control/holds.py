"""Holds: places at which calls wait until a test lets them go.

A hold is known by its name. Calls pass it unless a test has set it. So a test sets a hold, waits until a call has come
to it, kills whom it wants to kill, and then releases the hold, or drops the calls that wait there: they end without an
answer, and without the effect that was still to come.
"""

import asyncio
from collections import defaultdict
from typing import Any


class DroppedError(Exception):
    """The call is not to go on."""


class Holds:
    """All holds of a stand-in."""

    def __init__(self) -> None:
        self._set: dict[str, list[asyncio.Future[None]]] = {}
        self._arrived: dict[str, int] = defaultdict(int)

    def reset(self) -> None:
        """Releases all holds and forgets what has come to them."""
        for name in list(self._set):
            self.release(name)
        self._arrived.clear()

    def set(self, name: str) -> None:
        """Lets calls wait at a hold from now on."""
        self._set.setdefault(name, [])

    def release(self, name: str, drop: bool = False) -> None:
        """Lets the calls at a hold go, or drops them. Those that come later pass."""
        for waiting in self._set.pop(name, ()):
            if waiting.done():
                continue
            if drop:
                waiting.set_exception(DroppedError)
            else:
                waiting.set_result(None)

    async def wait(self, name: str) -> None:
        """Waits as long as the hold is set. Raises `DroppedError`."""
        self._arrived[name] += 1
        if name not in self._set:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._set[name].append(waiting)
        await waiting

    def report(self, name: str) -> dict[str, Any]:
        """How many calls have come to a hold, how many wait there now, and whether it is set."""
        waiting = sum(not one.done() for one in self._set.get(name, ()))
        return {"arrived": self._arrived.get(name, 0), "waiting": waiting, "set": name in self._set}
