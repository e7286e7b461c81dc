"""The steps of a turn: its model calls and tool calls, numbered in the order in which they were first asked for.

When the agent is run again from the start of the turn, it asks for the same steps again, those in parallel in any
order. Each is known by the digest of its content, and one that has a result is answered from the journal. That holds
for an agent that is a function of its input; one that asks for something else while recorded steps have not been asked
for again is told so.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tenure_api.configuration import Limits
from tenure_api.tools import Replay
from tenure_api.wire import ToolCall, Usage
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import (
    ApprovalAsked,
    ApprovalDecided,
    AskedCall,
    ModelIntent,
    ModelResult,
    Round,
    RoundCall,
    ToolIntent,
    ToolResult,
    WaitBegun,
)
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn.answers import NOTHING, Said, said


@dataclass(slots=True, eq=False)
class ModelStep:
    """A model call."""

    number: int
    digest: str
    result: ModelResult | None = None
    said: Said = NOTHING
    asked: bool = False
    """Whether the present run has asked for it."""


@dataclass(slots=True, eq=False)
class ToolStep:
    """A tool call."""

    number: int
    call: AskedCall
    interrupted: Replay | None = None
    """The class of a call that a process before this one began and did not settle."""
    approval_asked: bool = False
    decision: ApprovalDecided | None = None
    until: float | None = None
    """When the wait that it asks for is over, in seconds since the epoch."""
    result: ToolResult | None = None
    asked: bool = False
    """Whether the present run has asked for it."""

    @property
    def undecided(self) -> bool:
        """Whether a person must decide on it."""
        return self.approval_asked and self.decision is None and self.result is None

    @property
    def waits(self) -> bool:
        """Whether it waits for a time."""
        return self.until is not None and self.result is None


@dataclass
class Steps:
    """The steps of one turn, over all of its runs."""

    turn: str
    limits: Callable[[], Limits] = Limits
    patience: float = 3.0
    """Seconds for which a step that is not recorded is held while recorded ones have not been asked for again."""
    oldest: int = 0
    """Sequence of the oldest turn in the history of the present run, 0 if there is none."""
    models: dict[int, ModelStep] = field(default_factory=dict)
    tools: dict[int, ToolStep] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    """Code and sentence: why the turn cannot go on, whatever the agent makes of it."""
    last: ModelResult | None = None
    """The result that was given to the agent last."""
    abandoned: bool = False
    """The present run is over; nobody waits for its calls any more."""
    models_running: int = 0
    _next: int = 0
    _handlers: set[asyncio.Task[object]] = field(default_factory=set)
    _writes: set[asyncio.Future[None]] = field(default_factory=set)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def apply(self, record: Record) -> None:
        """Bring it forward by a record that an earlier process wrote."""
        number = record.step
        match record.kind:
            case ModelIntent.kind:
                self.models[number] = ModelStep(number, ModelIntent.model_validate_json(record.payload).digest)
            case ModelResult.kind:
                self.settled(self.models[number], ModelResult.model_validate_json(record.payload))
            case ToolIntent.kind:
                intent = ToolIntent.model_validate_json(record.payload)
                self._tool(number, intent.call).interrupted = intent.replay
            case ApprovalAsked.kind:
                self._tool(number, ApprovalAsked.model_validate_json(record.payload).call).approval_asked = True
            case ApprovalDecided.kind:
                self.tools[number].decision = ApprovalDecided.model_validate_json(record.payload)
            case WaitBegun.kind:
                begun = WaitBegun.model_validate_json(record.payload)
                self._tool(number, begun.call).until = begun.until
            case ToolResult.kind:
                result = ToolResult.model_validate_json(record.payload)
                self._tool(number, result.call).result = result
            case _:
                return
        self._next = max(self._next, number + 1)

    def begin_run(self, oldest: int) -> None:
        """The agent is run from the start of the turn. Model calls without an answer may be asked differently now."""
        self.oldest = oldest
        self.abandoned = False
        self.last = None
        self.forget_unanswered()
        for step in self._all():
            step.asked = False

    def forget_unanswered(self) -> None:
        """The run in which these model calls were asked for is over, and they are made anew."""
        self.models = {step.number: step for step in self.models.values() if step.result is not None}

    # --- the agent asks ---

    async def model(self, digest: str) -> ModelStep:
        """The step of a model call. Raises `RefusedError`.

        Where retention has shortened the history between two runs, the request must differ and the recorded result
        still holds.
        """
        while True:
            self._check()
            waiting = [step for step in self.models.values() if not step.asked]
            same = (step for step in waiting if step.digest == digest)
            moved = (step for step in waiting if step.result is not None and step.result.oldest != self.oldest)
            found = next(same, None) or next(moved, None)
            if found is not None:
                self._ask(found)
                self.last = found.result
                return found
            if await self._may_be_new("a model call that differs from the recorded ones"):
                break
        self._check_limits()
        step = ModelStep(self._number(), digest, asked=True)
        self.models[step.number] = step
        return step

    async def tool(self, wanted: ToolCall, tool: str) -> ToolStep:
        """The step of a tool call; `tool` is the name of its tool. Raises `RefusedError`."""
        call = self._call(wanted, tool)
        while True:
            self._check()
            for step in self.tools.values():
                if step.asked:
                    continue
                if step.call.digest == call.digest:
                    self._ask(step)
                    return step
                if step.call.round == call.round is not None and step.call.call_id == call.call_id:
                    self._diverge(f"call {call.call_id[:64]} of {call.function[:64]} differs from the recorded one")
            if await self._may_be_new(f"a call of {call.function[:64]} that differs from the recorded ones"):
                break
        self._check_limits()
        step = ToolStep(self._number(), call, asked=True)
        self.tools[step.number] = step
        return step

    def settled(self, step: ModelStep, result: ModelResult) -> None:
        """A model call has a result."""
        step.result = self.last = result
        step.said = said(result.body) if result.status == 200 else NOTHING

    @contextmanager
    def handling(self, model: bool) -> Iterator[None]:
        """While a request of the agent is handled: it ends with the run."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self._handlers.add(task)
        self.models_running += model
        try:
            yield
        finally:
            self._handlers.discard(task)
            self.models_running -= model

    async def wholly(self, write: Coroutine[object, object, None]) -> None:
        """Do a write to its end, also if whoever waits for it is ended.

        Else a result could be in the journal of which this process does not know: it would ask for the step again, and
        the next process would find two results where the agent asks for one.
        """
        task = asyncio.ensure_future(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        await asyncio.shield(task)

    async def abandon(self) -> None:
        """The run is over; returns when nothing of it goes on but calls of tools."""
        self.abandoned = True
        for handler in self._handlers:
            handler.cancel()
        while rest := self._handlers | self._writes:
            await asyncio.wait(rest)

    # --- what the engine wants to know ---

    @property
    def usage(self) -> Usage:
        """The tokens of all calls of the turn."""
        used = [step.result.usage for step in self.models.values() if step.result is not None]
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in used),
            output_tokens=sum(usage.output_tokens for usage in used),
        )

    @property
    def cut_turns(self) -> int:
        """How many turns the agent left out of its last call."""
        return self.last.cut_turns if self.last is not None else 0

    @property
    def settled_count(self) -> int:
        """How many steps have a result."""
        return sum(step.result is not None for step in self._all())

    @property
    def length(self) -> int:
        """Characters that the settled model calls have said."""
        return sum(len(step.said.text) for step in self.models.values())

    @property
    def unanswered(self) -> bool:
        """Whether a model call has no result: part of its answer may have been passed on."""
        return any(step.result is None for step in self.models.values())

    def rounds(self) -> list[Round]:
        """The answers of the model that asked for calls, with those whose calls are all settled."""
        by_call = {
            (step.call.round, step.call.call_id): step.number for step in self.tools.values() if step.result is not None
        }
        found = []
        for step in self.models.values():
            numbers = [by_call.get((step.number, call.call_id)) for call in step.said.calls]
            calls = [
                RoundCall(call_id=call.call_id, step=number)
                for call, number in zip(step.said.calls, numbers, strict=True)
                if number is not None
            ]
            if calls and len(calls) == len(numbers):
                found.append(Round(text=step.said.text, calls=calls))
        return found

    # --- inside ---

    def _all(self) -> Iterator[ModelStep | ToolStep]:
        yield from self.models.values()
        yield from self.tools.values()

    def _tool(self, number: int, call: AskedCall) -> ToolStep:
        return self.tools.setdefault(number, ToolStep(number, call))

    def _number(self) -> int:
        number = self._next
        self._next += 1
        return number

    def _call(self, wanted: ToolCall, tool: str) -> AskedCall:
        """The call with its place: after the latest answer, of those that this run has had, that asks for it."""
        answers = [
            step.number
            for step in self.models.values()
            if step.asked and any(call.call_id == wanted.call_id for call in step.said.calls)
        ]
        place = answers[-1] if answers else None
        content = "\0".join((str(place), wanted.call_id, wanted.name, wanted.arguments))
        return AskedCall(
            call_id=wanted.call_id,
            function=wanted.name,
            tool=tool,
            arguments=wanted.arguments,
            digest=hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest(),
            round=place,
            offset=sum(len(step.said.text) for step in self.models.values() if step.asked),
        )

    def _ask(self, step: ModelStep | ToolStep) -> None:
        step.asked = True
        self._asked.set()

    def _check(self) -> None:
        if self.failure is not None:
            raise RefusedError(409, *self.failure)

    def _check_limits(self) -> None:
        """Raises `RefusedError` if the turn may have no further step."""
        limits, used = self.limits(), self.usage
        if len(self.models) + len(self.tools) >= limits.max_steps:
            self.failure = "max_steps_reached", f"the turn has had {limits.max_steps} steps, its limit"
        elif limits.max_tokens is not None and used.input_tokens + used.output_tokens >= limits.max_tokens:
            self.failure = "max_tokens_reached", f"the turn has used {limits.max_tokens} tokens or more, its limit"
        self._check()

    async def _may_be_new(self, what: str) -> bool:
        """Whether all recorded steps have been asked for again. Waits for a change if not, then for another look."""
        if all(step.asked for step in self._all()):
            return True
        self._asked.clear()
        try:
            async with asyncio.timeout(self.patience):
                await self._asked.wait()
        except TimeoutError:
            self._diverge(what)
        return False

    def _diverge(self, what: str) -> None:
        self.failure = "determinism_error", f"the agent, run again, asks for something else than before: {what}"
        self._check()
