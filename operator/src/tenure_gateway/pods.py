"""Reaches the pods of sessions through what happens to them.

Everything that is asked of a sidecar may be asked again, so a pod that is not there or breaks is only a wait, up to
the hold time, for the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tenure_gateway.directory import Directory
from tenure_gateway.faults import NotReady
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.sidecar import BrokenError, Target

T = TypeVar("T")

_FIRST_PAUSE = 0.02
"""Seconds before the first repetition: most often a kept-alive connection was closed just then."""
_LONGEST_PAUSE = 1.0
"""A change of the session's status ends a pause at once; without one this is how often the old address is tried."""


class Patience:
    """How long one request still waits for a pod, and the pauses between its attempts. Times are the event loop's."""

    def __init__(self, hold: float, clock: Callable[[], float]) -> None:
        self._hold = hold
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Begins anew: a pod has brought the request forward."""
        self._pause = _FIRST_PAUSE
        self.deadline = self._clock() + self._hold

    def extend(self, seconds: float) -> None:
        """Gives back the time in which a pod had the turn: a model may think for long before its first word."""
        self.deadline += seconds

    def pause(self) -> float:
        """Seconds until the next attempt; 0 when patience is at its end."""
        pause = min(self._pause, self.deadline - self._clock())
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        return max(0.0, pause)


class Pods:
    """The pods of all sessions. `hold` is how long a request waits for one, in seconds."""

    def __init__(self, directory: Directory, hold: float, metrics: Metrics) -> None:
        self._directory = directory
        self._hold = hold
        self._metrics = metrics

    def patience(self) -> Patience:
        """For a new request."""
        return Patience(self._hold, asyncio.get_running_loop().time)

    async def read(self, session: Key, subject: str, read: Callable[[Target], Awaitable[T]]) -> T:
        """The answer to a call that may be repeated. Raises a `Fault`."""
        patience = self.patience()
        while True:
            target = await self.target(session, subject, patience.deadline, recorded=False)
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
        """Cuts a call as soon as the session has another address: a pod that is gone may not even break connections."""

        def heard() -> None:
            known = self._directory.sessions.get(session)
            if known is not None and known.address is not None and known.address != target.address:
                cut()

        with self._directory.sessions.watching(session, heard):
            yield

    async def target(self, session: Key, subject: str, deadline: float, recorded: bool) -> Target:
        """The session's sidecar, as soon as the session is Ready. Raises a `Fault`."""
        with self._metrics.held.track_inprogress():
            try:
                known, address = await self._directory.ready_session(session, deadline)
            except NotReady as error:
                raise NotReady(error.message, recorded) from None
        return Target(known.identity or "", address, subject)

    async def wait(self, session: Key, patience: Patience, recorded: bool, error: BrokenError) -> None:
        """Waits until the session changes, or for a moment. Raises `NotReady` when patience is at its end."""
        pause = patience.pause()
        if pause == 0:
            raise NotReady(f"its pod does not answer ({error})", recorded)
        self._metrics.retries.inc()
        with self._metrics.held.track_inprogress():
            await self._directory.sessions.changed(session, pause)
