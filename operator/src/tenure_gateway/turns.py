"""Follows a turn to its end through what happens to the session's pod, whatever the API above looks like.

A turn has an id, made before it is first sent, and the sidecar runs an id once: so a turn may be sent again and again.
Its events are the same every time, see `wire.TurnEvent`: when a pod breaks, they come again from the beginning, and
whoever writes the answer leaves out what was sent before.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

from tenure_api.wire import Decisions, ItemPage, Turn, TurnRequest
from tenure_gateway.access import Caller
from tenure_gateway.events import Event
from tenure_gateway.faults import Fault, TurnTimeout
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.pods import Pods
from tenure_gateway.sidecar import Ask, BrokenError, Line, Sidecars, Target, UnreachableError


class Step(NamedTuple):
    """A step of a turn."""

    events: Sequence[Event]
    again: bool = False
    """The events come from the beginning again."""
    turn: Turn | None = None
    """The turn, when there is no more to come: it has ended, or waits for approvals."""


def start(request: TurnRequest) -> Ask:
    """Starts a turn, or joins it."""
    return Ask("POST", "/v1/turns", request.model_dump_json(by_alias=True, exclude_none=True).encode())


def join(turn: str) -> Ask:
    """Joins a turn that was taken before."""
    return Ask("GET", f"/v1/turns/{turn}/events")


class Turns:
    """Turns of all sessions. `seconds` is how long a request may follow one."""

    def __init__(self, pods: Pods, sidecars: Sidecars, seconds: float, metrics: Metrics) -> None:
        self._pods = pods
        self._sidecars = sidecars
        self._seconds = seconds
        self._metrics = metrics

    async def follow(self, session: Key, caller: Caller, ask: Ask) -> AsyncGenerator[Step, None]:
        """Follows a turn; the first step comes when it is recorded.

        Raises a `Fault`; `NotReady` and `TurnTimeout` may come after the turn was recorded.
        """
        began, outcome = time.monotonic(), "abandoned"
        try:
            async with aclosing(self._follow(session, caller, ask)) as steps:
                async for step in steps:
                    if step.turn is not None:
                        outcome = step.turn.status.value
                    yield step
        except Fault:
            outcome = "refused"
            raise
        finally:
            self._metrics.turn_seconds.labels(outcome).observe(time.monotonic() - began)

    async def _follow(self, session: Key, caller: Caller, ask: Ask) -> AsyncGenerator[Step, None]:
        clock = asyncio.get_running_loop().time
        patience = self._pods.patience()
        end = clock() + self._seconds
        perhaps = again = False
        furthest = 0
        while True:
            if clock() >= end:
                raise TurnTimeout
            target = await self._pods.target(session, caller, patience, perhaps)
            began, come, waiting = clock(), 0, None
            try:
                async with self._stream(session, target, ask, end - began) as stream:
                    async for events in stream:
                        last = events[-1]
                        come += sum(1 + len(event.text) for event in events)
                        yield Step(events, again, last.turn if last.kind == "ended" else None)
                        again = False
                        waiting = last.turn if last.kind == "suspended" else None
                        if last.kind == "ended":
                            return
                if waiting is None:
                    raise BrokenError("the stream ended before the turn did")
                yield Step((), turn=waiting)
                return
            except BrokenError as error:
                again = again or come > 0
                if come > furthest:
                    # Further than any pod before: however often they break, the turn gets to its end.
                    furthest = come
                    if perhaps:
                        patience.renew()
                if not isinstance(error, UnreachableError):
                    # Sent and broken off, it may be on disk, or not. While a pod had it, nobody waited for one.
                    perhaps = True
                    patience.extend(clock() - began)
                await self._pods.wait(session, patience, perhaps, error)

    @asynccontextmanager
    async def _stream(
        self, session: Key, target: Target, ask: Ask, seconds: float
    ) -> AsyncIterator[AsyncGenerator[list[Event], None]]:
        """One attempt at a turn."""
        line = Line()
        with self._pods.cut_if_moved(session, target, line.cut):
            async with aclosing(self._sidecars.turn(target, ask, seconds, line)) as stream:
                yield stream

    async def recorded(self, session: Key, caller: Caller, turn: str) -> Turn | None:
        """A turn as recorded; None if there is none. Raises a `Fault`."""
        return await self._pods.read(session, caller, lambda target: self._sidecars.recorded_turn(target, turn))

    async def cancel(self, session: Key, caller: Caller, turn: str) -> Turn | None:
        """A turn after it was cancelled, if it had not ended; None if there is none. Raises a `Fault`."""
        return await self._pods.read(session, caller, lambda target: self._sidecars.cancel(target, turn))

    async def decide(self, session: Key, caller: Caller, turn: str, decisions: Decisions) -> Turn:
        """A turn after a person has decided on its calls. Raises a `Fault`."""
        return await self._pods.read(session, caller, lambda target: self._sidecars.decide(target, turn, decisions))

    async def items(self, session: Key, caller: Caller, query: dict[str, str]) -> ItemPage:
        """A page of the transcript. Raises a `Fault`."""
        return await self._pods.read(session, caller, lambda target: self._sidecars.items(target, query))
