"""Reaches the pods of sessions through what happens to them.

Everything that is asked of a sidecar may be asked again, so a pod that is not there or breaks is only a wait, up to
the hold time, for the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tenure_gateway.access import Caller
from tenure_gateway.directory import Directory
from tenure_gateway.faults import NotReady
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.patience import Patience
from tenure_gateway.sidecar import BrokenError, Target
from tenure_gateway.wakes import Wakes

T = TypeVar("T")


class Pods:
    """The pods of all sessions. `hold` is how long a request waits for one, in seconds."""

    def __init__(self, directory: Directory, wakes: Wakes, hold: float, metrics: Metrics) -> None:
        self._directory = directory
        self._wakes = wakes
        self._hold = hold
        self._metrics = metrics

    def patience(self) -> Patience:
        """For a new request."""
        return Patience(self._hold, asyncio.get_running_loop().time)

    async def read(self, session: Key, caller: Caller, read: Callable[[Target], Awaitable[T]]) -> T:
        """The answer to a call that may be repeated. Raises a `Fault`."""
        patience = self.patience()
        while True:
            target = await self.target(session, caller, patience, recorded=False)
            try:
                async with asyncio.timeout(None) as limit:
                    with self.cut_if_moved(session, target, lambda: limit.reschedule(0)):
                        return await read(target)
            except TimeoutError:
                continue
            except BrokenError as error:
                await self.wait(session, patience, recorded=False, error=error)

    @contextmanager
    def cut_if_moved(self, session: Key, target: Target, cut: Callable[[], None]) -> Iterator[None]:
        """Cuts a call when the session has another pod or sleeps: one that is gone may not even break connections.

        A pod with another address or of another generation of the lease is another one. Cuts once, however much more
        happens before the call has ended.
        """
        is_cut = False

        def heard() -> None:
            nonlocal is_cut
            known = self._directory.sessions.get(session)
            if known is None or is_cut:
                return
            elsewhere = known.address not in (None, target.address) or known.generation != target.generation
            if elsewhere or known.asleep:
                is_cut = True
                cut()

        with self._directory.sessions.watching(session, heard):
            yield

    async def target(self, session: Key, caller: Caller, patience: Patience, recorded: bool) -> Target:
        """The session's sidecar, as soon as the session is Ready; one that sleeps is woken. Raises a `Fault`."""
        with self._metrics.held.track_inprogress():
            try:
                return await self._wakes.ready(session, caller, patience)
            except NotReady as error:
                raise NotReady(error.message, recorded) from None

    async def wait(self, session: Key, patience: Patience, recorded: bool, error: BrokenError) -> None:
        """Waits until the session changes, or for a moment. Raises `NotReady` when patience is at its end."""
        pause = patience.pause()
        if pause == 0:
            raise NotReady(f"its pod does not answer ({error})", recorded)
        self._metrics.retries.inc()
        with self._metrics.held.track_inprogress():
            await self._directory.sessions.changed(session, pause)
