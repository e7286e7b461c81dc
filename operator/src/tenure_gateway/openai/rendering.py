"""The events of a streamed response: a function of the turn alone.

Whoever asks for the events of a response, whenever, of any replica, however often its pod has died, gets the same
events with the same numbers. So there is one way to go on with a stream that broke, here or at the client: write it
again from the beginning, and leave out what has been sent.

Numbers count from 0. When a model call is made again (`attempt`), the text of the message that it was answering with is
void, and not everybody has seen the same of it. So that message is closed under the last number of its attempt, and
what follows is numbered from the next multiple of `STRIDE`: nobody's numbers depend on what became void. The same goes
for the end of a turn that failed or was cancelled.

The message that takes the place of a void one has an index of its own: clients refuse two items with one index.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pydantic_core

from tenure_api.wire import Turn, TurnStatus
from tenure_gateway.events import Event
from tenure_gateway.openai import items
from tenure_gateway.openai.cutting import Cutter
from tenure_gateway.openai.errors import ApiError, Json
from tenure_gateway.openai.response_object import Frame, awaiting, begun, response, was_cut
from tenure_gateway.openai.sse import event as sse

STRIDE = 10_000_000
"""Numbers of one attempt: far more than the deltas of any answer."""


@dataclass
class _Message:
    """The message that is being written."""

    start: int
    """Where it begins, in characters of all text of the turn."""
    cutter: Cutter = field(default_factory=Cutter)
    texts: list[str] = field(default_factory=list)
    delta: bytes | None = None
    """How its deltas begin; None before it is announced."""


@dataclass
class Rendering:
    """Writes the events of one streamed response, those after the number `after`, and none before a resumption."""

    frame: Frame
    after: int = -1
    """The number of the last event that was sent."""
    resumption: int = 0
    """How often the turn must have gone on after waiting for approvals before anything is written."""

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """The events of the turn come from the beginning again."""
        self._number = self._attempt = self._resumed = self._total = 0
        self._turn: Turn | None = None
        self._output: list[Json] = []
        self._message = _Message(0)
        self._written: list[bytes] = []

    def write(self, events: Iterable[Event]) -> bytes:
        """What these events add."""
        for event in events:
            match event.kind:
                case "delta":
                    self._text(event.text)
                case "started" if event.turn is not None:
                    self._turn = event.turn
                    self._opening()
                case "item" if event.item is not None:
                    self._item(items.item(event.item))
                case "attempt":
                    self._void(event.attempt, event.offset)
                case "suspended" if event.turn is not None:
                    self._close("completed")
                    self._event("response.incomplete", response=awaiting(self.frame, event.turn, self._output))
                case "resumed":
                    self._resumed += 1
                    self._opening()
                case "ended" if event.turn is not None:
                    self._end(event.turn)
        written, self._written = b"".join(self._written), []
        return written

    def end(self, turn: Turn) -> bytes:
        """The stream has come to its end."""
        return b""

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on here. No event of the turn has this number: so it can be resumed after it."""
        return sse(
            {
                "type": "error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "sequence_number": max(self.after, 0),
            }
        )

    # --- the turn ------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> Turn:
        assert self._turn is not None  # noqa: S101 - `started` comes first
        return self._turn

    def _opening(self) -> None:
        shown = pydantic_core.to_json(begun(self.frame, self._known, self._output))
        for kind in (b"response.created", b"response.in_progress"):
            number = self._take()
            if number is not None:
                told = b'event: %b\ndata: {"type":"%b","response":%b,"sequence_number":%d}\n\n'
                self._written.append(told % (kind, kind, shown, number))

    def _item(self, shown: Json) -> None:
        self._close("completed")
        index = self._index
        self._event("response.output_item.added", output_index=index, item=items.begun(shown))
        self._event("response.output_item.done", output_index=index, item=shown)
        self._output.append(shown)

    def _end(self, turn: Turn) -> None:
        shown = response(self.frame, turn)
        if turn.status in (TurnStatus.FAILED, TurnStatus.CANCELLED):
            # What has been said of a last, unfinished message may be known to some and not to others.
            self._deltas(self._message.cutter.end())
            self._number = (self._attempt + 1) * STRIDE - 2
            if self._message.delta is not None:
                content = [items.output_text("".join(self._message.texts))]
                self._done(items.message(self._id, content, "incomplete"))
            self._number = (self._attempt + 1) * STRIDE - 1
            kind = "failed" if turn.status is TurnStatus.FAILED else "incomplete"
            self._event(f"response.{kind}", response=shown)
            return
        if not self._output and not self._total:
            self._announce()
        self._close("incomplete" if was_cut(turn) else "completed")
        self._event(f"response.{shown['status']}", response=shown)

    # --- the message -----------------------------------------------------------------------------------------------

    @property
    def _index(self) -> int:
        """Of the item that comes next. Each attempt has left a void one."""
        return len(self._output) + self._attempt

    @property
    def _id(self) -> str:
        """Of the message, as `wire.Item` says."""
        turn = self._known
        identifier = f"msg_{turn.turn}_{turn.inputs + len(self._output)}"
        return f"{identifier}_{self._attempt}" if self._attempt else identifier

    def _text(self, text: str) -> None:
        self._total += len(text)
        self._message.texts.append(text)
        self._deltas(self._message.cutter.more(text))

    def _deltas(self, deltas: list[str]) -> None:
        """This one is on the hot path."""
        if not deltas:
            return
        begin = self._message.delta or self._announce()
        number = self._number
        for delta in deltas:
            if number > self.after and self._resumed >= self.resumption:
                self.after = number
                self._written.append(
                    b'%b%b,"logprobs":[],"sequence_number":%d}\n\n' % (begin, pydantic_core.to_json(delta), number)
                )
            number += 1
        self._number = number

    def _announce(self) -> bytes:
        """Announces the message, and returns how its deltas begin."""
        place = self._place()
        shown = items.message(self._id, [], "in_progress")
        self._event("response.output_item.added", output_index=self._index, item=shown)
        self._event("response.content_part.added", **place, part=items.output_text(""))
        told = pydantic_core.to_json({"type": "response.output_text.delta", **place})
        self._message.delta = b'event: response.output_text.delta\ndata: %b,"delta":' % told[:-1]
        return self._message.delta

    def _close(self, status: str) -> None:
        """The message is complete, if there is one."""
        self._deltas(self._message.cutter.end())
        if self._message.delta is not None:
            text = "".join(self._message.texts)
            shown = items.message(self._id, [items.output_text(text)], status)
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            self._event("response.content_part.done", **self._place(), part=items.output_text(text))
            self._done(shown)
            self._output.append(shown)
        self._message = _Message(self._total)

    def _void(self, attempt: int, offset: int) -> None:
        """The text after the offset is void. Announced and closed even where none of it was seen: some have."""
        message = self._message
        kept = "".join(message.texts)[: max(0, offset - message.start)]
        for number in range(self._attempt + 1, attempt + 1):
            if self._message.delta is None:
                self._announce()
            self._number = number * STRIDE - 1
            self._done(items.message(self._id, [], "incomplete"))
            self._attempt = number
            self._message = _Message(message.start)
        self._total = message.start
        self._text(kept)

    def _done(self, shown: Json) -> None:
        self._event("response.output_item.done", output_index=self._index, item=shown)

    def _place(self) -> Json:
        return {"item_id": self._id, "output_index": self._index, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> None:
        number = self._take()
        if number is not None:
            self._written.append(sse({"type": kind, **fields, "sequence_number": number}))

    def _take(self) -> int | None:
        """The number of the event that comes next; None if it is not to be written."""
        number = self._number
        self._number += 1
        if number <= self.after or self._resumed < self.resumption:
            return None
        self.after = number
        return number
