"""The turn engine: takes one turn at a time, has the agent answer it, and does not let go of it until it has ended.

A turn begins when its `turn.start` is on disk and has ended when its `turn.end` is. In between nothing stops it: not
that all clients leave, not that the agent container dies, not that this process does. It is run again until it ends.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenure_api.configuration import SessionConfig
from tenure_api.wire import Failure, TurnRequest, TurnStatus
from tenure_sidecar.clock import Clock
from tenure_sidecar.codec import decode
from tenure_sidecar.errors import BrokenError, ConnectError, HttpError, JournalError, RefusedError
from tenure_sidecar.journal.records import Entry, ModelResult, TurnEnd, TurnRun, TurnStart
from tenure_sidecar.journal.store import Journal, Record
from tenure_sidecar.live import Live, ended
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.runtime_client import Answered, RuntimeClient, RuntimeFailedError, request_body
from tenure_sidecar.steps import Steps
from tenure_sidecar.transcript import RecordedTurn, Transcript, digest_of

MOST_WAITING = 8
"""Turns that wait for the running one; more are refused with 409 `session_busy`."""
MOST_RERUNS = 8
"""How often a turn is run again after a crash. A turn that kills the agent each time must end some time."""
RUNTIME_START_SECONDS = 60
"""How long the agent container may be out of reach."""
RECOVERY_SECONDS = 600
"""The same for a turn that was left open: after a restart of the pod the agent's image may have to be pulled first."""
TURN_SECONDS = 3_600
"""How long one run of a turn may take."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Waiting times in seconds, so that tests need not wait."""

    first: float = 0.05
    longest: float = 1.0
    runtime_start: float = RUNTIME_START_SECONDS
    recovery: float = RECOVERY_SECONDS
    turn: float = TURN_SECONDS


@dataclass
class Open:
    """What the journal holds of a turn that has not ended."""

    turn: RecordedTurn
    results: dict[int, ModelResult] = field(default_factory=dict)
    reruns: int = 0

    def apply(self, record: Record) -> None:
        """Bring it forward by a record of the turn."""
        if record.kind == ModelResult.kind:
            self.results[record.step] = ModelResult.model_validate_json(record.payload)
        elif record.kind == TurnRun.kind:
            self.reruns = record.step


class Turns:
    """The turns of one session."""

    def __init__(
        self,
        journal: Journal,
        transcript: Transcript,
        runtime: RuntimeClient,
        config: Callable[[], SessionConfig | None],
        clock: Clock,
        metrics: Metrics,
        unended: Open | None = None,
        pace: Pace = Pace(),
    ) -> None:
        """`unended` is the turn that the process before left open; `run` brings it to its end first."""
        self._journal = journal
        self._transcript = transcript
        self._runtime = runtime
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._live: dict[str, Live] = {}
        self._waiting: asyncio.Queue[Live] = asyncio.Queue()
        self._active: str | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.steps: Steps | None = None
        """The model calls of the run that is going on."""
        self._unended = unended
        if unended is not None:
            self._active = unended.turn.turn
            live = self._live[unended.turn.turn] = Live(unended.turn.start.request, unended.turn.digest)
            live.begin(unended.turn.wire())

    @property
    def active(self) -> str | None:
        """The turn that is running."""
        return self._active

    def submit(self, request: TurnRequest) -> Live:
        """Take a turn, or find it if it was taken before. Raises `RefusedError`."""
        digest = digest_of(request)
        known = self._known(request, digest)
        if known is not None:
            if known.digest != digest:
                raise RefusedError(409, "turn_conflict", f"turn {request.turn} was taken with other content")
            return known
        if self._closing:
            raise RefusedError(503, "shutting_down", "the session is being moved; send the turn again")
        self._check_previous(request, self._newest())
        if self._waiting.qsize() >= MOST_WAITING:
            raise RefusedError(409, "session_busy", f"{MOST_WAITING} turns already wait in this session; try later")
        live = self._live[request.turn] = Live(request, digest)
        self._waiting.put_nowait(live)
        return live

    async def run(self) -> None:
        """Complete the turn that was left open, then take what comes; until cancelled."""
        unended, self._unended = self._unended, None
        if unended is not None:
            log.info("turn %s was under way when the process before ended; it goes on", unended.turn.turn)
            await self._complete(unended, self._live[unended.turn.turn], again=True)
        while True:
            live = await self._waiting.get()
            await self._take(live)

    async def close(self, seconds: float) -> None:
        """Take nothing more, and give the running turn this long to end."""
        self._closing = True
        while not self._waiting.empty():
            live = self._waiting.get_nowait()
            live.refuse(RefusedError(503, "shutting_down", "the session is being moved; send the turn again"))
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.info("turn %s is still under way; it goes on after the next start", self._active)

    def _known(self, request: TurnRequest, digest: bytes) -> Live | None:
        live = self._live.get(request.turn)
        recorded = self._transcript.get(request.turn)
        if live is None and recorded is not None:
            return ended(recorded.start.request, recorded.digest, recorded.wire())
        return live

    def _newest(self) -> str | None:
        """The turn that a new one will follow, if those before it complete."""
        return next(reversed(self._live), None) or self._transcript.last_completed()

    def _check_previous(self, request: TurnRequest, last: str | None) -> None:
        if request.previous_turn is not None and request.previous_turn != last:
            raise RefusedError(
                409,
                "previous_turn_not_last",
                f"turn {request.previous_turn} is not the last turn of this session that completed",
            )

    async def _take(self, live: Live) -> None:
        request = live.request
        try:
            if live.unheard:
                raise RefusedError(409, "abandoned", "nobody waits for this turn any more")
            self._check_previous(request, self._transcript.last_completed())
            config = self._config()
            if config is None:
                raise RefusedError(503, "not_configured", "the session has no configuration yet")
            start = TurnStart(request=request, agent=config.agent, instructions=config.instructions)
            record = await self._journal.append(request.turn, 0, TurnStart.kind, start.payload())
        except RefusedError as error:
            self._live.pop(request.turn)
            live.refuse(error)
            return
        except JournalError as error:
            self._live.pop(request.turn)
            live.refuse(RefusedError(503, "journal_unavailable", str(error)))
            return
        recorded = self._transcript.begin(record, start, live.digest)
        live.begin(recorded.wire())
        await self._complete(Open(recorded), live, again=False)

    async def _complete(self, unended: Open, live: Live, again: bool) -> None:
        """Run a turn that is recorded until it ends, and record that."""
        turn = unended.turn
        self._active = turn.turn
        self._idle.clear()
        try:
            end = await self._answer(unended, live, again)
            self._transcript.finish(await self._record(turn.turn, 0, end), end)
        finally:
            self._active = None
            self._idle.set()
            self._live.pop(turn.turn, None)
        self._metrics.turn_ended(end.status, self._clock.now() - turn.started_at)
        live.end(turn.wire())

    async def _record(self, turn: str, step: int, entry: Entry) -> Record:
        """Record what must be recorded before anything else can happen: a full volume can be mended."""
        while True:
            try:
                return await self._journal.append(turn, step, entry.kind, entry.payload())
            except JournalError:
                if self._journal.broken:
                    raise
                log.warning("%s of turn %s cannot be written yet", entry.kind, turn)
                await asyncio.sleep(self._pace.longest)

    async def _answer(self, unended: Open, live: Live, again: bool) -> TurnEnd:
        """Run the agent until it gives an answer or there is no hope of one."""
        patience = self._pace.recovery if again else self._pace.runtime_start
        delay, waited, crash = self._pace.first, 0.0, ""
        while True:
            try:
                if again:
                    await self._runtime.reach()
                    if unended.reruns >= MOST_RERUNS:
                        return _failed(
                            "turn_crashed", f"the agent crashed {MOST_RERUNS + 1} times on it. {crash}".strip()
                        )
                    await self._note_rerun(unended)
                    live.restart()
                    again = False
                return await self._run_once(unended, live)
            except ConnectError as error:
                if waited >= patience:
                    return _failed("runtime_unreachable", f"the agent container cannot be reached: {error}")
                self._give_up_draining()
                await asyncio.sleep(delay)
                waited, delay = waited + delay, min(2 * delay, self._pace.longest)
            except BrokenError as error:
                log.warning("the agent container died on turn %s: %s", unended.turn.turn, error)
                self._give_up_draining()
                again, crash, delay, waited = True, str(error), self._pace.first, 0.0
                await asyncio.sleep(delay)

    def _give_up_draining(self) -> None:
        """At the end of a pod its agent container ends first: then there is nothing to wait for."""
        if self._closing:
            self._idle.set()

    async def _note_rerun(self, unended: Open) -> None:
        unended.reruns += 1
        self._metrics.turn_rerun()
        await self._record(unended.turn.turn, unended.reruns, TurnRun())

    async def _run_once(self, unended: Open, live: Live) -> TurnEnd:
        """One run of the agent. Raises `ConnectError` and `BrokenError`."""
        start, history = unended.turn.start, self._transcript.history()
        oldest = history[0].sequence if history else 0
        body = request_body(start.agent, start.instructions, [turn.context for turn in history], start.request)
        steps = self.steps = Steps(self._journal, unended.turn.turn, oldest, unended.results)
        try:
            async with asyncio.timeout(self._pace.turn):
                answered = await self._runtime.run(body, live.text)
        except TimeoutError:
            return _failed("runtime_timeout", f"the agent gave no answer within {self._pace.turn:.0f} s", steps)
        except (ConnectError, BrokenError):
            raise
        except RuntimeFailedError as failure:
            return _failed(failure.code, failure.message, steps)
        except HttpError as error:
            return _failed("runtime_invalid_response", f"the agent container: {error}", steps)
        finally:
            self.steps = None
            steps.abandon()
        return _completed(answered, steps)


def _completed(answered: Answered, steps: Steps) -> TurnEnd:
    if steps.diverged is not None:
        return _failed("determinism_error", steps.diverged, steps)
    return TurnEnd(
        status=TurnStatus.COMPLETED,
        text=answered.text,
        finish_reason="length" if answered.finish_reason == "length" else "stop",
        usage=steps.usage,
        cut_turns=steps.cut_turns,
    )


def _failed(code: str, message: str, steps: Steps | None = None) -> TurnEnd:
    """A failed turn. What the model proxy knows of the cause goes before what the agent makes of it."""
    if steps is None:
        return TurnEnd(status=TurnStatus.FAILED, error=Failure(code=code, message=message))
    if steps.diverged is not None:
        code, message = "determinism_error", steps.diverged
    elif steps.last is not None and steps.last.status != 200:
        error: dict[str, Any] = decode(steps.last.body.encode())["error"]
        code, message = error["code"], error["message"]
    return TurnEnd(
        status=TurnStatus.FAILED,
        usage=steps.usage,
        cut_turns=steps.cut_turns,
        error=Failure(code=code, message=message),
    )
