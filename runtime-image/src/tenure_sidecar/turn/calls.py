"""The tool calls of a turn: approved where that is needed, made once as far as anybody can know, and recorded.

A call belongs to the turn and not to one run of the agent. If the agent dies while a call is made, the call goes on and
its result serves the next run.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable

from tenure_api.tools import Replay
from tenure_api.wire import Approval, Call, CallOutcome, Decision, ToolAnswer, ToolCall
from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.records import (
    ApprovalAsked,
    ApprovalDecided,
    LogEntry,
    ToolIntent,
    ToolResult,
    WaitBegun,
)
from tenure_sidecar.tools.tool import Attempt, Function, Outcome, Toolbox
from tenure_sidecar.turn import waiting
from tenure_sidecar.turn.outline import approval_id
from tenure_sidecar.turn.steps import Steps, ToolStep

Fit = Callable[[str, int, str, int], Awaitable[str]]
"""Cuts a result to a number of bytes, keeping the whole in a file named by turn and step."""

UNKNOWN = (
    "The call was interrupted, and its outcome is unknown: it may or may not have taken effect. It was not made again. "
    "Find out before you rely on it or repeat it."
)

log = logging.getLogger(__name__)


def key_of(identity: str, turn: str, step: int) -> str:
    """The idempotency key of a step: the same in every attempt, and of no other step of any session."""
    return hashlib.sha256(f"{identity}/{turn}/{step}".encode()).hexdigest()[:32]


class Calls:
    """The tool calls of one turn."""

    def __init__(
        self,
        identity: str,
        steps: Steps,
        pen: Pen,
        toolbox: Toolbox,
        fit: Fit,
        clock: Clock,
        enter: Callable[..., None],
    ) -> None:
        """`identity` is the session's; `enter` tells listeners of an entry of the turn's log."""
        self._identity = identity
        self._steps = steps
        self._pen = pen
        self._toolbox = toolbox
        self._fit = fit
        self._clock = clock
        self._enter: Callable[[LogEntry], None] = enter
        self._tasks: dict[int, asyncio.Task[ToolResult | None]] = {}
        self.parked = 0
        """How many calls the present run waits for that wait for a person or a time: it cannot go on."""
        self.changed = asyncio.Event()
        """Set when a call has begun to wait, was decided on or was settled."""

    def begin_run(self) -> None:
        """The agent is run from the start of the turn."""
        self.parked = 0

    # --- for the agent ---

    async def answer(self, wanted: ToolCall) -> ToolAnswer:
        """The answer to a call. Never comes if the call waits: then the run ends. Raises `RefusedError`."""
        function = self._toolbox.find(wanted.name)
        step = await self._steps.tool(wanted, function.tool.name if function else "")
        result = step.result or await self._settled(step, function)
        if result is None:
            self.parked += 1
            self.changed.set()
            await asyncio.Event().wait()
        assert result is not None  # noqa: S101 - nothing sets that event
        return ToolAnswer(output=result.output, is_error=result.outcome is not CallOutcome.COMPLETED)

    async def _settled(self, step: ToolStep, function: Function | None) -> ToolResult | None:
        task = self._tasks.get(step.number)
        if task is None or task.done():
            task = self._tasks[step.number] = asyncio.create_task(self._settle(step, function))
            task.add_done_callback(lambda _: self.changed.set())
        return await asyncio.shield(task)

    # --- for people ---

    def find(self, approval: str) -> ToolStep:
        """The step that an approval is about. Raises `RefusedError` if there is none."""
        for step in self._steps.tools.values():
            if step.approval_asked and approval_id(self._steps.turn, step.number) == approval:
                return step
        raise no_approval(approval)

    async def decide(self, step: ToolStep, decision: Decision, by: str) -> None:
        """Take a person's decision. Raises `RefusedError` if another one was taken before."""
        if step.decision is None:
            decided = ApprovalDecided(approve=decision.approve, by=by, reason=decision.reason)
            record = await self._pen.write(self._steps.turn, step.number, decided)
            # Another decision may have been written meanwhile: the journal's holds.
            step.decision = ApprovalDecided.model_validate_json(record.payload)
            self.changed.set()
        if step.decision.approve != decision.approve:
            what = "approved" if step.decision.approve else "refused"
            raise RefusedError(409, "already_decided", f"call {decision.approval} was {what} before")

    # --- for the engine ---

    @property
    def running(self) -> bool:
        """Whether a call is being made."""
        return any(not task.done() for task in self._tasks.values())

    def pending(self) -> list[ToolStep]:
        """The calls that wait, for a person or for a time."""
        return [step for step in self._steps.tools.values() if step.undecided or step.waits]

    async def stop(self) -> None:
        """End all calls that are being made. What is not known of them stays so."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def give_up(self) -> None:
        """The turn ends: settle what is left, so that every call that was begun has an outcome."""
        await self.stop()
        for step in self._steps.tools.values():
            if step.result is None:
                begun = step.interrupted not in (None, Replay.SAFE)
                said = UNKNOWN if begun else "The turn ended before this call was settled."
                await self._record(step, Outcome(said, is_error=True, unknown=begun))

    # --- inside ---

    async def _settle(self, step: ToolStep, function: Function | None) -> ToolResult | None:
        """Bring a step to its result; None if it must wait."""
        if function is None and not step.approval_asked and step.interrupted is None:
            said = f"There is no function {step.call.function[:64]!r}."
            return await self._record(step, Outcome(said, is_error=True))
        if step.until is not None or (function is not None and function.tool.wait is not None):
            return await self._wait(step, function)
        if step.approval_asked or (function is not None and function.tool.approval):
            if step.decision is None:
                await self._ask(step)
                return None
            if not step.decision.approve:
                return await self._refused(step, step.decision)
        if step.interrupted is Replay.NEVER:
            return await self._record(step, Outcome(UNKNOWN, is_error=True, unknown=True))
        if function is None:
            said = f"There is no function {step.call.function[:64]!r} any more."
            begun = step.interrupted is Replay.IDEMPOTENCY_KEY
            return await self._record(step, Outcome(f"{said} {UNKNOWN}" if begun else said, True, begun))
        again = step.interrupted is not None
        if not again:
            await self._pen.write(self._steps.turn, step.number, ToolIntent(call=step.call, replay=function.replay))
            step.interrupted = function.replay
        turn, number = self._steps.turn, step.number
        attempt = Attempt(key_of(self._identity, turn, number), turn, number, again)
        outcome = await self._toolbox.call(function, step.call.arguments, attempt)
        text = await self._fit(outcome.text, function.tool.max_result_bytes, turn, number)
        return await self._record(step, Outcome(text, outcome.is_error, outcome.unknown))

    async def _wait(self, step: ToolStep, function: Function | None) -> ToolResult | None:
        now = self._clock.now()
        if step.until is None:
            assert function is not None and function.tool.wait is not None  # noqa: S101, PT018 - see the caller
            try:
                until = waiting.until(step.call.arguments, now, function.tool.wait.max_seconds)
            except waiting.UnclearTimeError as error:
                return await self._record(step, Outcome(str(error), is_error=True))
            await self._pen.write(self._steps.turn, step.number, WaitBegun(call=step.call, until=until))
            step.until = until
        if step.until > now:
            return None
        return await self._record(step, Outcome(waiting.over(now)))

    async def _ask(self, step: ToolStep) -> None:
        """Have a person asked, once."""
        if not step.approval_asked:
            record = await self._pen.write(self._steps.turn, step.number, ApprovalAsked(call=step.call))
            step.approval_asked = True
            self._enter(asked_entry(self._steps.turn, step, record.at / 1e6))

    async def _refused(self, step: ToolStep, decision: ApprovalDecided) -> ToolResult:
        why = f" They said: {decision.reason}" if decision.reason else ""
        return await self._record(step, Outcome(f"A person did not approve this call.{why}", is_error=True))

    async def _record(self, step: ToolStep, outcome: Outcome) -> ToolResult:
        entry = ToolResult(call=step.call, output=outcome.text, outcome=_kind(step, outcome))
        record = await self._pen.write(self._steps.turn, step.number, entry)
        # The task that was to write it before this one may have been ended after it had.
        result = step.result = ToolResult.model_validate_json(record.payload)
        self._enter(settled_entry(self._steps.turn, step, record.at / 1e6))
        return result


def no_approval(approval: str) -> RefusedError:
    """There is no such call to decide on."""
    return RefusedError(404, "approval_not_found", f"there is no call {approval[:64]!r} to decide on")


def _kind(step: ToolStep, outcome: Outcome) -> CallOutcome:
    if outcome.unknown:
        return CallOutcome.UNKNOWN
    if step.decision is not None and not step.decision.approve:
        return CallOutcome.REFUSED
    return CallOutcome.FAILED if outcome.is_error else CallOutcome.COMPLETED


def asked_entry(turn: str, step: ToolStep, at: float) -> LogEntry:
    """That a person is asked to approve a call."""
    call = step.call
    asked = Approval(
        id=approval_id(turn, step.number), tool=call.tool, function=call.function, arguments=call.arguments
    )
    return LogEntry(offset=call.offset, at=at, step=step.number, approval=asked)


def settled_entry(turn: str, step: ToolStep, at: float) -> LogEntry:
    """That a call is settled."""
    assert step.result is not None  # noqa: S101 - it is settled
    call = step.call
    made = Call(
        tool=call.tool,
        function=call.function,
        arguments=call.arguments,
        output=step.result.output,
        outcome=step.result.outcome,
        approval=approval_id(turn, step.number) if step.approval_asked else None,
    )
    return LogEntry(offset=call.offset, at=at, step=step.number, call=made)
