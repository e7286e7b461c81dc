"""Things that are done once, however many want them at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Work that is going on: who wants what is being done already waits for that."""

    def __init__(self) -> None:
        self._going: dict[Hashable, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        """How much is going on."""
        return len(self._going)

    async def do(self, what: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What the work comes to."""
        task = self._going.get(what)
        if task is None:
            task = asyncio.ensure_future(self._run(what, work))
            task.add_done_callback(_heed)
            self._going[what] = task
        # Shielded: when one of those who wait goes away, the others still want it.
        return await asyncio.shield(task)

    async def _run(self, what: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        finally:
            del self._going[what]


def _heed(task: asyncio.Task[T]) -> None:
    """Takes note of a failure that nobody is left to hear of."""
    if not task.cancelled():
        task.exception()
