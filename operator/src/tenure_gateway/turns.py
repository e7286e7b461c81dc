"""Follows a turn to its end through what happens to the session's pod, whatever the API above looks like.

A turn has an id, made before it is first sent, and the sidecar runs an id once: so a turn may be sent again and again.
As long as nothing of the answer has been passed on, a broken pod is only a wait, up to the hold time, for the next one.
After that, text that was passed on cannot be taken back: the stream ends, and the turn completes without it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tenure_api.wire import ItemPage, Turn, TurnRequest
from tenure_gateway.directory import Directory
from tenure_gateway.faults import Fault, NotReady, TurnInterrupted, TurnTimeout
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.sidecar import Batch, BrokenError, Line, Sidecars, Target, UnreachableError

T = TypeVar("T")

_FIRST_PAUSE = 0.02
"""Seconds before the first repetition: most often a kept-alive connection was closed just then."""
_LONGEST_PAUSE = 1.0
"""A change of the session's status ends a pause at once; without one this is how often the old address is tried."""


class Progress(NamedTuple):
    """A step of a turn: text to pass on, and the turn when it has ended. The first one has neither: it is recorded."""

    text: str
    turn: Turn | None


@dataclass(frozen=True)
class Limits:
    """In seconds: how long a request is held for a session's pod, and how long it may follow a turn."""

    hold: float
    turn: float


class _Patience:
    """How long one request still waits for a pod, and the pauses between its attempts."""

    def __init__(self, hold: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause = _FIRST_PAUSE
        self.deadline = clock() + hold

    def extend(self, seconds: float) -> None:
        """Gives back the time in which a pod had the turn: a model may think for long before its first word."""
        self.deadline += seconds

    def pause(self) -> float:
        """Seconds until the next attempt; 0 when patience is at its end."""
        pause = min(self._pause, self.deadline - self._clock())
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        return max(0.0, pause)


class Turns:
    """Turns of all sessions."""

    def __init__(self, directory: Directory, sidecars: Sidecars, limits: Limits, metrics: Metrics) -> None:
        self._directory = directory
        self._sidecars = sidecars
        self._limits = limits
        self._metrics = metrics

    async def follow(
        self, session: Key, subject: str, request: TurnRequest, pass_on: bool
    ) -> AsyncGenerator[Progress, None]:
        """Starts a turn and follows it. `pass_on`: text is passed on as it comes; else only the turn at the end.

        Raises a `Fault`; `NotReady` and `TurnTimeout` may come after the turn was recorded.
        """
        began, outcome = time.monotonic(), "abandoned"
        try:
            async with aclosing(self._follow(session, subject, request, pass_on)) as steps:
                async for step in steps:
                    if step.turn is not None:
                        outcome = step.turn.status.value
                    yield step
        except Fault as fault:
            outcome = "interrupted" if isinstance(fault, TurnInterrupted) else "refused"
            raise
        finally:
            self._metrics.turn_seconds.labels(outcome).observe(time.monotonic() - began)

    async def _follow(
        self, session: Key, subject: str, request: TurnRequest, pass_on: bool
    ) -> AsyncGenerator[Progress, None]:
        clock = asyncio.get_running_loop().time
        body = request.model_dump_json(by_alias=True, exclude_none=True).encode()
        patience = _Patience(self._limits.hold, clock)
        end = clock() + self._limits.turn
        started = passed = perhaps = False
        while True:
            if clock() >= end:
                raise TurnTimeout
            target = await self._target(session, subject, patience.deadline, perhaps)
            began = clock()
            try:
                async with self._batches(session, target, body, end - began) as batches:
                    async for batch in batches:
                        if batch.restarted and passed:
                            raise TurnInterrupted
                        if not started:
                            started = True
                            yield Progress("", None)
                        if pass_on and batch.texts:
                            passed = True
                            yield Progress("".join(batch.texts), batch.turn)
                        elif batch.turn is not None:
                            yield Progress("", batch.turn)
                        if batch.turn is not None:
                            return
            except BrokenError as error:
                if passed:
                    raise TurnInterrupted from None
                if not isinstance(error, UnreachableError):
                    # Sent and broken off, it may be on disk, or not. While a pod had it, nobody waited for one.
                    perhaps = True
                    patience.extend(clock() - began)
                await self._wait(session, patience, perhaps, error)

    @asynccontextmanager
    async def _batches(
        self, session: Key, target: Target, body: bytes, seconds: float
    ) -> AsyncIterator[AsyncGenerator[Batch, None]]:
        """One attempt at a turn."""
        line = Line()
        with self._cut_if_moved(session, target, line.cut):
            async with aclosing(self._sidecars.turn(target, body, seconds, line)) as batches:
                yield batches

    async def recorded(self, session: Key, subject: str, turn: str) -> Turn | None:
        """A turn as recorded; None if there is none. Raises a `Fault`."""
        return await self._read(session, subject, lambda target: self._sidecars.recorded_turn(target, turn))

    async def items(self, session: Key, subject: str, query: dict[str, str]) -> ItemPage:
        """A page of the transcript. Raises a `Fault`."""
        return await self._read(session, subject, lambda target: self._sidecars.items(target, query))

    async def _read(self, session: Key, subject: str, read: Callable[[Target], Awaitable[T]]) -> T:
        patience = _Patience(self._limits.hold, asyncio.get_running_loop().time)
        while True:
            target = await self._target(session, subject, patience.deadline, recorded=False)
            try:
                async with asyncio.timeout(None) as limit:
                    with self._cut_if_moved(session, target, lambda: limit.reschedule(0)):
                        return await read(target)
            except TimeoutError:
                continue
            except BrokenError as error:
                await self._wait(session, patience, recorded=False, error=error)

    @contextmanager
    def _cut_if_moved(self, session: Key, target: Target, cut: Callable[[], None]) -> Iterator[None]:
        """Cuts a call as soon as the session has another address: a pod that is gone may not even break connections."""

        def heard() -> None:
            known = self._directory.sessions.get(session)
            if known is not None and known.address is not None and known.address != target.address:
                cut()

        with self._directory.sessions.watching(session, heard):
            yield

    async def _target(self, session: Key, subject: str, deadline: float, recorded: bool) -> Target:
        """The session's sidecar, as soon as the session is Ready."""
        with self._metrics.held.track_inprogress():
            try:
                known, address = await self._directory.ready_session(session, deadline)
            except NotReady as error:
                raise NotReady(error.message, recorded) from None
        return Target(known.uid, address, subject)

    async def _wait(self, session: Key, patience: _Patience, recorded: bool, error: BrokenError) -> None:
        """Waits until the session changes, or for a moment. Raises `NotReady` when patience is at its end."""
        pause = patience.pause()
        if pause == 0:
            raise NotReady(f"its pod does not answer ({error})", recorded)
        self._metrics.retries.inc()
        with self._metrics.held.track_inprogress():
            await self._directory.sessions.changed(session, pause)
