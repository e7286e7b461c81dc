"""One turn, from its record to its end, through every crash and every wait.

The agent is run from the start of the turn until a run brings an answer. A run that asks for something that takes a
person or a time is ended, and the agent is run again when that has come; a run that crashed is followed by another.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tenure_api.report import UnknownOutcome
from tenure_api.wire import Failure, TurnStatus, Usage
from tenure_sidecar.clock import Clock
from tenure_sidecar.codec import decode
from tenure_sidecar.errors import BrokenError, ConnectError, HttpError
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.records import (
    LogEntry,
    TurnEnd,
    TurnResumed,
    TurnRun,
    TurnSuspended,
)
from tenure_sidecar.turn.calls import Calls
from tenure_sidecar.turn.live import DivergedError, Live
from tenure_sidecar.turn.open import Open
from tenure_sidecar.turn.outline import unknown_in
from tenure_sidecar.turn.runtime_client import Answered, RuntimeFailedError
from tenure_sidecar.turn.steps import Steps

MOST_RERUNS = 8
"""How often a turn is run again without a step having been settled in between: one that kills the agent each time must
end some time."""
RUNTIME_START_SECONDS = 60
"""How long the agent container may be out of reach."""
RECOVERY_SECONDS = 600
"""The same for a turn that was left open: after a restart of the pod the agent's image may have to be pulled first."""
_MOST_LOOKS = 10
_LOOK_SECONDS = 60
"""How often the clock is looked at while a turn waits for a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Waiting times in seconds, so that tests need not wait."""

    first: float = 0.05
    longest: float = 1.0
    runtime_start: float = RUNTIME_START_SECONDS
    recovery: float = RECOVERY_SECONDS
    diverged: float = 3.0
    """For how long a step that is not recorded is held while recorded ones have not been asked for again: agents ask
    for parallel steps at once."""
    quiet: float = 0.15
    """How long nothing else may be under way before a turn is suspended: its other calls may be about to come."""


class Underway(NamedTuple):
    """A turn whose agent is running."""

    steps: Steps
    calls: Calls
    pen: Pen


@dataclass(frozen=True)
class Means:
    """What brings a turn forward. `run` has the agent answer, `reach` says whether it can be asked at all.

    See `RuntimeClient` for both. `reran` is told of every run after a crash, `asked` of every suspension for people.
    """

    pen: Pen
    clock: Clock
    run: Callable[[Callable[[str], None]], Awaitable[Answered]]
    reach: Callable[[], Awaitable[None]]
    pace: Pace
    reran: Callable[[], None]
    asked: Callable[[], None]


class Workflow:
    """Brings one turn to its end."""

    def __init__(self, unended: Open, live: Live, calls: Calls, means: Means) -> None:
        self._open = unended
        self._live = live
        self._calls = calls
        self._means = means
        self._pen, self._clock, self._pace = means.pen, means.clock, means.pace
        self._steps = unended.steps
        self._cancelled = asyncio.Event()
        self.running = False
        """Whether the agent is running."""
        self.interruptible = asyncio.Event()
        """Set while it waits: for a person, a time, or an agent container that is gone."""
        self._inherited = False
        """Whether an earlier process ran the agent, and what it told listeners is not known."""

    @property
    def turn(self) -> str:
        """The turn's id."""
        return self._open.turn.turn

    @property
    def steps(self) -> Steps:
        """The steps of the turn."""
        return self._steps

    @property
    def calls(self) -> Calls:
        """The tool calls of the turn."""
        return self._calls

    @property
    def rests(self) -> bool:
        """Whether the turn waits for a person or a time, and not just for an agent container that is gone."""
        return self._open.waits and self.interruptible.is_set()

    def unknown(self) -> UnknownOutcome | None:
        """The latest call of the turn of which nobody knows whether it took effect."""
        return unknown_in(self.turn, self._live.log)

    def cancel(self) -> None:
        """The turn is to end, without an answer."""
        self._cancelled.set()

    async def complete(self, again: bool) -> TurnEnd:
        """Run the agent until it gives an answer or there is no hope of one. `again`: an earlier process ran it."""
        self._inherited = again
        end = await self._answer(again)
        await self._calls.give_up()
        return end.model_copy(update={"log": self._live.log, "rounds": self._steps.rounds()})

    async def _answer(self, again: bool) -> TurnEnd:
        patience = self._pace.recovery if again else self._pace.runtime_start
        delay, waited, crash = self._pace.first, 0.0, ""
        while not self._cancelled.is_set():
            try:
                if self._open.waits:
                    await self._rest()
                    again = False
                    continue
                if again:
                    await self._means.reach()
                    if self._open.fruitless >= MOST_RERUNS:
                        return self._failed(
                            "turn_crashed", f"the agent crashed {MOST_RERUNS + 1} times on it. {crash}".strip()
                        )
                    await self._note_rerun()
                    again = False
                end = await self._run_once()
                if end is not None:
                    return end
                delay, waited = self._pace.first, 0.0
            except ConnectError as error:
                if waited >= patience:
                    return self._failed("runtime_unreachable", f"the agent container cannot be reached: {error}")
                await self._pause(delay)
                waited, delay = waited + delay, min(2 * delay, self._pace.longest)
            except BrokenError as error:
                log.warning("the agent container died on turn %s: %s", self.turn, error)
                again, crash, delay, waited = True, str(error), self._pace.first, 0.0
                await self._pause(delay)
        return self._end(TurnStatus.CANCELLED)

    async def _pause(self, seconds: float) -> None:
        self.interruptible.set()
        await _first(seconds, self._cancelled.wait())

    async def _note_rerun(self) -> None:
        """Record that the agent is run again, and from where on what it said is void."""
        number, valid = self._open.runs + 1, self._steps.length
        spoken = self._live.length > valid or self._inherited
        void_from = valid if self._steps.unanswered and spoken else None
        self._inherited = False
        self._means.reran()
        run = TurnRun(void_from=void_from)
        record = await self._pen.write(self.turn, number, run)
        self._tell(self._open.ran(TurnRun.model_validate_json(record.payload), number, record.at / 1e6))

    # --- one run -------------------------------------------------------------------------------------------------

    async def _run_once(self) -> TurnEnd | None:
        """One run of the agent; None if it has come to where the turn waits. Raises `ConnectError`, `BrokenError`."""
        left = self._open.seconds_left(self._steps.limits(), self._clock.now())
        if left <= 0:
            return self._out_of_time()
        self._live.rerun()
        self._calls.begin_run()
        self.interruptible.clear()
        self.running = True
        running = asyncio.ensure_future(self._means.run(self._live.text))
        try:
            await _first(left, asyncio.wait((running,)), self._comes_to_rest(), self._cancelled.wait())
            if running.done():
                return self._outcome(running)
            if self._cancelled.is_set():
                return self._end(TurnStatus.CANCELLED)
            if self._calls.parked:
                await self._suspend()
                return None
            return self._out_of_time()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._steps.abandon()
            self.running = False

    def _outcome(self, running: "asyncio.Future[Answered]") -> TurnEnd:
        """What a run has brought. Raises `ConnectError` and `BrokenError`."""
        try:
            answered = running.result()
        except (ConnectError, BrokenError):
            if self._steps.failure is not None:
                return self._failed(*self._steps.failure)
            raise
        except DivergedError as error:
            return self._failed("determinism_error", str(error))
        except RuntimeFailedError as failure:
            return self._failed(failure.code, failure.message)
        except HttpError as error:
            return self._failed("runtime_invalid_response", f"the agent container: {error}")
        if self._steps.failure is not None:
            return self._failed(*self._steps.failure)
        reason = "length" if answered.finish_reason == "length" else "stop"
        return self._end(TurnStatus.COMPLETED, finish_reason=reason)

    async def _comes_to_rest(self) -> None:
        """Returns when some call waits, and nothing else is under way or has changed for a while."""
        while True:
            self._calls.changed.clear()
            if not self._calls.parked:
                await self._calls.changed.wait()
                continue
            await asyncio.sleep(self._pace.quiet)
            if not (self._calls.changed.is_set() or self._calls.running or self._steps.models_running):
                break
        for _ in range(_MOST_LOOKS):  # what the model said before its calls may still be on its way through the agent
            if self._live.length >= self._steps.length:
                break
            await asyncio.sleep(self._pace.quiet)

    # --- between runs --------------------------------------------------------------------------------------------

    async def _suspend(self) -> None:
        number = self._open.suspensions + 1
        people = any(step.undecided for step in self._calls.pending())
        entry = TurnSuspended(text=self._live.answer, usage=self._steps.usage, approvals=people)
        record = await self._pen.write(self.turn, number, entry)
        self._tell(self._open.suspended(entry, number, record.at / 1e6))
        if people:
            self._means.asked()

    async def _rest(self) -> None:
        """Wait until the turn can go on, and record that it does; or until it is cancelled."""
        self.interruptible.set()
        while not self._cancelled.is_set() and (seconds := self._rests_for()) > 0:
            self._calls.changed.clear()
            await _first(min(seconds, _LOOK_SECONDS), self._calls.changed.wait(), self._cancelled.wait())
        self.interruptible.clear()
        self._inherited = False
        number, self._open.last_at = self._open.suspensions, 0.0
        record = await self._pen.write(self.turn, number, TurnResumed())
        self._tell(self._open.resumed(number, record.at / 1e6))

    def _rests_for(self) -> float:
        """Seconds for which the turn must wait, as far as is known now; 0 if it can go on.

        It goes on when no decision is missing and either one was made or a time has come.
        """
        pending = self._calls.pending()
        if any(step.undecided for step in pending):
            return _LOOK_SECONDS
        waits = [step.until for step in pending if step.until is not None]
        unused = any(step.decision is not None and step.result is None for step in self._steps.tools.values())
        if unused or not waits:
            return 0.0
        return max(0.0, min(waits) - self._clock.now())

    # --- its end -------------------------------------------------------------------------------------------------

    def _tell(self, entry: LogEntry | None) -> None:
        if entry is not None:
            self._live.enter(entry)

    def _out_of_time(self) -> TurnEnd:
        seconds = self._steps.limits().max_duration_seconds
        return self._failed("max_duration_reached", f"the turn has run for {seconds} seconds, its limit")

    def _end(self, status: TurnStatus, **more: Any) -> TurnEnd:
        usage: Usage = self._steps.usage
        return TurnEnd(status=status, text=self._live.answer, usage=usage, cut_turns=self._steps.cut_turns, **more)

    def _failed(self, code: str, message: str) -> TurnEnd:
        """A failed turn. What the model proxy knows of the cause goes before what the agent makes of it."""
        last = self._steps.last
        if self._steps.failure is not None:
            code, message = self._steps.failure
        elif last is not None and last.status != 200 and code not in ("determinism_error", "max_duration_reached"):
            error: dict[str, Any] = decode(last.body.encode())["error"]
            code, message = error["code"], error["message"]
        return self._end(TurnStatus.FAILED, error=Failure(code=code, message=message))


async def _first(seconds: float, *works: Awaitable[Any]) -> None:
    """Wait for the first of these to be done, but no longer than this, and end the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.wait(tasks)
