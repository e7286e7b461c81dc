"""The turn engine: takes one turn at a time, has the agent answer it, and does not let go of it until it has ended.

A turn begins when its `turn.start` is on disk and has ended when its `turn.end` is. In between nothing stops it: not
that all clients leave, not that the agent container dies, not that this process does. It is run again until it ends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenure_api.configuration import Limits, SessionConfig
from tenure_api.report import Suspension, UnknownOutcome
from tenure_api.wire import Approval, CallOutcome, Decision, Turn, TurnRequest
from tenure_sidecar.clock import Clock, moment
from tenure_sidecar.errors import JournalError, RefusedError, unavailable
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.records import TurnStart
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.turn.calls import Calls, Fit, no_approval
from tenure_sidecar.turn.live import Live, ended
from tenure_sidecar.turn.open import Open
from tenure_sidecar.turn.outline import approval_id
from tenure_sidecar.turn.runtime_client import Answered, Runtime, request_body
from tenure_sidecar.turn.steps import Steps
from tenure_sidecar.turn.transcript import RecordedTurn, Transcript, digest_of, without_bytes
from tenure_sidecar.turn.workflow import Means, Pace, Underway, Workflow

MOST_WAITING = 8
"""Turns that wait for the running one; more are refused with 409 `session_busy`."""

log = logging.getLogger(__name__)

Receive = Callable[[TurnRequest], Awaitable[None]]
"""Puts the files of a request into the workspace. Raises `RefusedError`."""


@dataclass(frozen=True)
class Surroundings:
    """What the turns of a session work with. `identity` is the session's."""

    identity: str
    runtime: Runtime
    config: Callable[[], SessionConfig | None]
    toolbox: Toolbox
    fit: Fit
    receive: Receive
    clock: Clock
    metrics: Metrics
    pace: Pace
    admit: Callable[[], None] = lambda: None
    """Asked before anything begins. Raises `RefusedError` if it may not."""


class Turns:
    """The turns of one session."""

    def __init__(self, pen: Pen, transcript: Transcript, around: Surroundings, unended: Open | None = None) -> None:
        """`unended` is the turn that the process before left open; `run` brings it to its end first."""
        self._pen = pen
        self._transcript = transcript
        self._around = around
        self._live: dict[str, Live] = {}
        self._waiting: asyncio.Queue[Live] = asyncio.Queue()
        self._workflow: Workflow | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._unended = unended
        if unended is not None:
            self._workflow = self._begin(unended, Live(unended.turn.start.request, unended.turn.digest))

    # --- what others ask of it -----------------------------------------------------------------------------------

    @property
    def active(self) -> str | None:
        """The turn that is running; one that waits for a person or a time is not."""
        workflow = self._workflow
        return workflow.turn if workflow is not None and not workflow.interruptible.is_set() else None

    @property
    def resting(self) -> bool:
        """Whether there is no turn but one that waits for a person or a time."""
        return len(self._live) <= (self._workflow is not None and self._workflow.rests)

    @property
    def running(self) -> Underway | None:
        """What the agent that is running may ask for."""
        workflow = self._workflow
        return (
            Underway(workflow.steps, workflow.calls, self._pen) if workflow is not None and workflow.running else None
        )

    def suspension(self) -> Suspension | None:
        """What the present turn waits for."""
        workflow = self._workflow
        pending = workflow.calls.pending() if workflow is not None else []
        if workflow is None or not pending:
            return None
        asked = [step for step in pending if step.undecided]
        times = [step.until for step in pending if step.until is not None]
        return Suspension(
            turn=workflow.turn,
            approvals=[
                Approval(id=approval_id(workflow.turn, s.number), tool=s.call.tool, function=s.call.function)
                for s in asked
            ],
            until=moment(min(times)) if times and not asked else None,
        )

    def unknown(self) -> UnknownOutcome | None:
        """The latest call of which nobody knows whether it took effect."""
        recent = self._workflow.unknown() if self._workflow is not None else None
        return recent or self._transcript.unknown()

    def submit(self, request: TurnRequest) -> Live:
        """Take a turn, or find it if it was taken before. Raises `RefusedError`."""
        digest = digest_of(request)
        known = self.find(request.turn)
        if known is not None:
            if known.digest != digest:
                raise RefusedError(409, "turn_conflict", f"turn {request.turn} was taken with other content")
            return known
        if self._closing:
            raise RefusedError(503, "shutting_down", "the session is being moved; send the turn again")
        self._around.admit()
        self._check_approvals()
        self._check_previous(request, self._newest())
        if self._waiting.qsize() >= MOST_WAITING:
            raise RefusedError(409, "session_busy", f"{MOST_WAITING} turns already wait in this session; try later")
        live = self._live[request.turn] = Live(request, digest)
        self._waiting.put_nowait(live)
        return live

    def find(self, turn: str) -> Live | None:
        """A turn that was taken, whether it waits, runs or has ended."""
        live = self._live.get(turn)
        recorded = self._transcript.get(turn)
        if live is None and recorded is not None and recorded.end is not None:
            end = recorded.end
            request = recorded.start.request
            return ended(request, recorded.digest, recorded.begun(), recorded.wire(), (end.text, end.log))
        return live

    async def decide(self, turn: str, decisions: list[Decision], by: str) -> Turn:
        """Take what a person decided on calls of a turn; done when it is on disk. Raises `RefusedError`."""
        workflow = self._workflow
        if workflow is None or workflow.turn != turn:
            return self._decided_before(turn, decisions)
        self._around.admit()
        found = [(workflow.calls.find(decision.approval), decision) for decision in decisions]
        for step, decision in found:
            await workflow.calls.decide(step, decision, by)
        live = self._live[turn]
        if not any(step.undecided for step in workflow.calls.pending()):
            await live.moving()
        return live.state()

    async def cancel(self, turn: str) -> Turn | None:
        """End a turn, if it has not ended by itself; None if it is not known."""
        if self._workflow is not None and self._workflow.turn == turn:
            self._workflow.cancel()
            return await self._live[turn].outcome()
        found = self.find(turn)
        return found.state() if found is not None and found.is_begun else None

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Complete the turn that was left open, then take what comes; until cancelled."""
        unended, self._unended = self._unended, None
        if unended is not None and self._workflow is not None:
            log.info("turn %s was under way when the process before ended; it goes on", unended.turn.turn)
            await self._complete(unended.turn, self._workflow, again=True)
        while True:
            live = await self._waiting.get()
            await self._take(live)

    async def close(self, seconds: float) -> None:
        """Take nothing more, and give the running turn this long to end or to come to where it waits."""
        self._closing = True
        self._refuse_waiting(RefusedError(503, "shutting_down", "the session is being moved; send the turn again"))
        waits = [asyncio.ensure_future(self._idle.wait())]
        if self._workflow is not None:
            waits.append(asyncio.ensure_future(self._workflow.interruptible.wait()))
        _, late = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in late:
            wait.cancel()
        if self._workflow is not None:
            log.info("turn %s is still under way; it goes on after the next start", self._workflow.turn)
            await self._workflow.calls.stop()

    # --- inside --------------------------------------------------------------------------------------------------

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

    def _check_approvals(self) -> None:
        suspension = self.suspension()
        if suspension is not None and suspension.approvals:
            names = ", ".join(approval.id for approval in suspension.approvals)
            raise RefusedError(409, "approval_pending", f"turn {suspension.turn} waits for a decision on {names}")

    def _decided_before(self, turn: str, decisions: list[Decision]) -> Turn:
        """The turn, which has ended, if these are the decisions that it was given."""
        recorded = self._transcript.get(turn)
        if recorded is None or recorded.end is None:
            raise RefusedError(404, "turn_not_found", "there is no such turn in this session")
        outcomes = {e.call.approval: e.call.outcome for e in recorded.end.log if e.call is not None}
        for decision in decisions:
            if decision.approval not in outcomes:
                raise no_approval(decision.approval)
            if decision.approve is (outcomes[decision.approval] is CallOutcome.REFUSED):
                raise RefusedError(409, "already_decided", f"call {decision.approval} was decided otherwise before")
        return recorded.wire()

    def _refuse_waiting(self, error: RefusedError) -> None:
        while not self._waiting.empty():
            live = self._waiting.get_nowait()
            self._live.pop(live.request.turn, None)
            live.refuse(error)

    async def _take(self, live: Live) -> None:
        request = live.request
        try:
            if live.unheard:
                raise RefusedError(409, "abandoned", "nobody waits for this turn any more")
            self._check_previous(request, self._transcript.last_completed())
            config = self._around.config()
            if config is None:
                raise RefusedError(503, "not_configured", "the session has no configuration yet")
            await self._around.receive(request)
            start = TurnStart(request=without_bytes(request), agent=config.agent, instructions=config.instructions)
            record = await self._pen.once(request.turn, 0, start)
        except RefusedError as error:
            self._live.pop(request.turn)
            live.refuse(error)
            return
        except JournalError as error:
            self._live.pop(request.turn)
            live.refuse(unavailable(error))
            return
        recorded = self._transcript.begin(record, start, live.digest)
        workflow = self._begin(Open(recorded, Steps(request.turn)), live)
        await self._complete(recorded, workflow, again=False)

    def _limits(self) -> Limits:
        config = self._around.config()
        return config.limits if config is not None else Limits()

    def _begin(self, unended: Open, live: Live) -> Workflow:
        """The turn is under way from now on."""
        turn, around = unended.turn, self._around
        unended.steps.limits, unended.steps.patience = self._limits, around.pace.diverged
        self._live[turn.turn] = live
        live.begin(turn.begun(), unended.text, unended.log)
        calls = Calls(around.identity, unended.steps, self._pen, around.toolbox, around.fit, around.clock, live.enter)

        async def run(on_text: Callable[[str], None]) -> Answered:
            return await around.runtime.run(await self._asked(turn, unended.steps), on_text)

        self._idle.clear()
        pending = RefusedError(409, "approval_pending", f"turn {turn.turn} waits for a decision")
        means = Means(
            self._pen,
            around.clock,
            run,
            around.runtime.reach,
            around.pace,
            around.metrics.turn_rerun,
            lambda: self._refuse_waiting(pending),
        )
        return Workflow(unended, live, calls, means)

    async def _asked(self, turn: RecordedTurn, steps: Steps) -> bytes:
        """What the agent is asked in a run that begins now."""
        await self._around.toolbox.ready()
        history = self._transcript.history()
        steps.begin_run(history[0].sequence if history else 0)
        functions = [function.definition for function in self._around.toolbox.functions()]
        start = turn.start
        return request_body(start.agent, start.instructions, [t.context for t in history], start.request, functions)

    async def _complete(self, turn: RecordedTurn, workflow: Workflow, again: bool) -> None:
        """Run a turn that is recorded until it ends, and record that."""
        self._workflow = workflow
        live = self._live[turn.turn]
        try:
            end = await workflow.complete(again)
            self._transcript.finish(await self._pen.write(turn.turn, 0, end), end)
        finally:
            self._workflow = None
            self._idle.set()
            self._live.pop(turn.turn, None)
        around = self._around
        around.metrics.turn_ended(end.status, around.clock.now() - turn.started_at)
        live.end(turn.wire())
