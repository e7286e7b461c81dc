"""A stand-in for the turns in a sidecar: what an agent does in one, and what listeners are told of it.

As in the sidecar, the turn goes on whoever listens, and everybody is told the same, except for where text is cut and
for text that became void.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tenure_api.wire import (
    Approval,
    Call,
    CallOutcome,
    Decision,
    Failure,
    Item,
    ItemType,
    Role,
    Turn,
    TurnOptions,
    TurnRequest,
    TurnStatus,
    Usage,
)

Object = dict[str, Any]

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass(frozen=True)
class Void:
    """Text of a model call that is interrupted, and made again."""

    text: str


@dataclass(frozen=True)
class Used:
    """A call of a tool; `ask`: somebody must approve it first."""

    function: str
    output: str = "done"
    outcome: CallOutcome = CallOutcome.COMPLETED
    ask: bool = False
    arguments: str = '{"n": 1}'


Deed = str | Void | Used
"""What an agent does in a turn: it says something, or uses a tool."""


@dataclass
class Course:
    """One turn."""

    request: TurnRequest
    text: str = ""
    log: list[tuple[int, Object]] = field(default_factory=list)
    """Events between the parts of the text, each with its place."""
    status: TurnStatus = TurnStatus.IN_PROGRESS
    ended: Turn | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    deciders: list[str | None] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    failure: Failure | None = None
    """How it will end, if not well."""
    finish: str = "stop"
    told: list[Object] = field(default_factory=list)
    _steps: int = 0
    _attempts: int = 0
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def begun(self) -> Turn:
        """As it was when it began."""
        options = TurnOptions.model_validate(self.request, from_attributes=True)
        inputs = len(self.request.input)
        return Turn(
            turn=self.request.turn, status=TurnStatus.IN_PROGRESS, created_at=NOW, options=options, inputs=inputs
        )

    def turn(self) -> Turn:
        """As it is now."""
        if self.ended is not None:
            return self.ended
        resumed = sum(event["type"] == "resumed" for _, event in self.log)
        used = Usage(input_tokens=7, output_tokens=3)
        changed = {"status": self.status, "output": self.output(), "resumptions": resumed, "usage": used}
        return self.begun().model_copy(update=changed)

    def output(self) -> list[Item]:
        """Messages and calls."""
        found: list[Item] = []
        place = attempt = 0

        def message(until: int) -> None:
            nonlocal place
            if until > place:
                suffix = f"_{attempt}" if attempt else ""
                name = f"msg_{self.request.turn}_{len(self.request.input) + len(found)}{suffix}"
                text = self.text[place:until]
                found.append(Item(id=name, turn=self.request.turn, role=Role.ASSISTANT, created_at=NOW, text=text))
                place = until

        for offset, event in self.log:
            if event["type"] == "attempt":
                attempt = event["attempt"]
            elif event["type"] == "item":
                message(offset)
                found.append(Item.model_validate(event["item"]))
        message(len(self.text))
        return found

    # --- what the agent does ---------------------------------------------------------------------------------------

    async def run(self, deeds: list[Deed], gate: asyncio.Event | None) -> None:
        """Does it all."""
        if self.failure is None:
            for n, deed in enumerate(deeds):
                await self._do(deed)
                if n == 0 and gate is not None:
                    await gate.wait()
        self.end(TurnStatus.COMPLETED if self.failure is None else TurnStatus.FAILED, len(deeds))

    def end(self, status: TurnStatus, tokens: int = 0) -> None:
        """It has ended."""
        output = self.output()
        if not output and status is TurnStatus.COMPLETED:
            suffix = f"_{self._attempts}" if self._attempts else ""
            name = f"msg_{self.request.turn}_{len(self.request.input)}{suffix}"
            output = [Item(id=name, turn=self.request.turn, role=Role.ASSISTANT, created_at=NOW)]
        changed = {"status": status, "output": output, "usage": Usage(input_tokens=7, output_tokens=tokens)}
        changed |= {"finish_reason": self.finish, "error": self.failure}
        self.ended = self.turn().model_copy(update=changed)
        self._tell({"type": "ended", "turn": self.ended.model_dump(mode="json", by_alias=True)})

    async def _do(self, deed: Deed) -> None:
        match deed:
            case str():
                self.text += deed
                self._tell({"type": "delta", "text": deed})
                await asyncio.sleep(0)
            case Void():
                self._tell({"type": "delta", "text": deed.text})
                await asyncio.sleep(0.01)
                self._attempts += 1
                self._enter({"type": "attempt", "attempt": self._attempts, "offset": len(self.text)})
            case Used():
                self._steps += 1
                await self._use(deed, self._steps)

    async def _use(self, deed: Used, step: int) -> None:
        asked = Approval(
            id=f"mcpr_{self.request.turn}_{step}", tool="shop", function=deed.function, arguments=deed.arguments
        )
        output, outcome = deed.output, deed.outcome
        if deed.ask:
            self._item(f"mcpr_{self.request.turn}_{step}", ItemType.APPROVAL, approval=asked)
            self.status = TurnStatus.AWAITING_APPROVAL
            self._enter({"type": "suspended", "turn": self.turn().model_dump(mode="json", by_alias=True)})
            while asked.id not in self.decisions:
                await self._change()
            if not self.decisions[asked.id].approve:
                output, outcome = "not approved", CallOutcome.REFUSED
        call = Call(
            tool="shop",
            function=deed.function,
            arguments=deed.arguments,
            output=output,
            outcome=outcome,
            approval=asked.id if deed.ask else None,
        )
        self._item(f"mcp_{self.request.turn}_{step}", ItemType.CALL, call=call)

    def decide(self, decisions: list[Decision], by: str | None) -> bool:
        """Takes decisions; False if another one was taken before."""
        for decision in decisions:
            known = self.decisions.setdefault(decision.approval, decision)
            if known.approve != decision.approve:
                return False
        if self.status is TurnStatus.AWAITING_APPROVAL:
            self.status = TurnStatus.IN_PROGRESS
            self.deciders.append(by)
            self._enter({"type": "resumed"})
        return True

    def _item(self, identifier: str, kind: ItemType, **fields: Any) -> None:
        item = Item(id=identifier, turn=self.request.turn, role=Role.ASSISTANT, created_at=NOW, type=kind, **fields)
        self._enter({"type": "item", "item": item.model_dump(mode="json", by_alias=True)})

    def _enter(self, event: Object) -> None:
        self.log.append((len(self.text), event))
        self._tell(event)

    def _tell(self, event: Object) -> None:
        self.told.append(event)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    # --- what listeners are told -------------------------------------------------------------------------------------

    async def events(self, cut: Callable[[str], list[str]]) -> AsyncIterator[Object]:
        """To the end, or to where somebody must decide. `cut` says how the text so far is cut."""
        place = len(self.told)
        for event in self._history(cut):
            yield event
        while self.ended is None or place < len(self.told):
            if place < len(self.told):
                place += 1
                yield self.told[place - 1]
            elif self.status is TurnStatus.AWAITING_APPROVAL:
                return
            else:
                await self._change()

    def _history(self, cut: Callable[[str], list[str]]) -> list[Object]:
        found: list[Object] = [{"type": "started", "turn": self.begun().model_dump(mode="json", by_alias=True)}]
        place = 0
        for offset, event in [*self.log, (len(self.text), {})]:
            found += [{"type": "delta", "text": text} for text in cut(self.text[place:offset])]
            place = offset
            found += [event] if event else []
        if self.ended is not None:
            found.append({"type": "ended", "turn": self.ended.model_dump(mode="json", by_alias=True)})
        return found
