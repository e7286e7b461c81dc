"""How many sessions may be open at once: first come, first served."""

import asyncio
from collections.abc import Callable

from tenure_sidecar.errors import RefusedError


class Seats:
    """One for each session that is open. Who finds none waits for one."""

    def __init__(self, most: int, patience: float) -> None:
        """`patience` is how many seconds somebody waits."""
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._patience = patience
        self.wanted = 0
        """How many wait."""
        self.on_wanted: Callable[[], None] = lambda: None
        """Called when somebody begins to wait."""

    async def take(self) -> None:
        """Raises `RefusedError` if there is none for too long."""
        if self._free.locked():
            self.wanted += 1
            self.on_wanted()
            try:
                async with asyncio.timeout(self._patience):
                    await self._free.acquire()
            except TimeoutError:
                said = f"{self._most} sessions of this pod are busy, which is as many as can be at once; try later"
                raise RefusedError(503, "host_busy", said) from None
            finally:
                self.wanted -= 1
        else:
            await self._free.acquire()

    def give_back(self) -> None:
        """A session was closed."""
        self._free.release()
