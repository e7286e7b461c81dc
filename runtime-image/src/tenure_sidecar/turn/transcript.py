"""The transcript: what was said, in order, kept in memory and brought forward record by record.

Only turns that completed are part of the conversation: the model sees them and `GET /v1/items` lists them. A turn that
failed leaves nothing behind but its outcome, as in the OpenAI API.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tenure_api.report import UnknownOutcome
from tenure_api.wire import Item, ItemPage, Turn, TurnOptions, TurnRequest, TurnStatus
from tenure_sidecar.clock import moment
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import TurnEnd, TurnStart
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn import outline


def digest_of(request: TurnRequest) -> bytes:
    """Equal for equal turns; tells a repetition from another turn of the same name.

    The bytes of files do not count, since they are not kept here; their digests do.
    """
    return hashlib.sha256(without_bytes(request).model_dump_json().encode()).digest()


def without_bytes(request: TurnRequest) -> TurnRequest:
    """The request as it is recorded: with the names, but without the bytes of its files."""
    if not request.files:
        return request
    files = [file.model_copy(update={"data": ""}) for file in request.files]
    return request.model_copy(update={"files": files})


@dataclass(slots=True)
class RecordedTurn:
    """A turn of the transcript. Times are in seconds since the epoch."""

    turn: str
    sequence: int
    started_at: float
    start: TurnStart
    digest: bytes
    end: TurnEnd | None = None
    ended_at: float | None = None
    context: bytes = b""
    """What the model is shown of it, once it is completed."""

    @property
    def completed(self) -> bool:
        """Whether it is part of the conversation."""
        return self.end is not None and self.end.status is TurnStatus.COMPLETED

    def finish(self, end: TurnEnd, at: float) -> None:
        """Note that it has ended."""
        self.end, self.ended_at = end, at
        if self.completed:
            self.context = outline.context(self.start.request.input, end.text, end.log, end.rounds)

    def items(self) -> list[Item]:
        """Its messages and calls; none unless it completed."""
        if not self.completed:
            return []
        created = moment(self.started_at)
        said = [
            Item(id=f"msg_{self.turn}_{n}", turn=self.turn, role=m.role, text=m.text, created_at=created)
            for n, m in enumerate(self.start.request.input)
        ]
        return [*said, *self.output()]

    def output(self) -> list[Item]:
        """What came of it: if it completed at least one message, else what was settled before its end."""
        if self.end is None or self.ended_at is None:
            return []
        first = len(self.start.request.input)
        found = outline.items(self.turn, first, self.end.text, self.end.log, self.ended_at)
        if found or not self.completed:
            return found
        attempts = sum(entry.attempt is not None for entry in self.end.log)
        return [outline.message_item(self.turn, first, attempts, "", self.ended_at)]

    def begun(self) -> Turn:
        """As the gateway was told of it when it began."""
        options = TurnOptions.model_validate(self.start.request, from_attributes=True)
        created = moment(self.started_at)
        inputs = len(self.start.request.input)
        return Turn(turn=self.turn, status=TurnStatus.IN_PROGRESS, created_at=created, options=options, inputs=inputs)

    def wire(self) -> Turn:
        """As the gateway is told of it."""
        if self.end is None:
            return self.begun()
        return self.begun().model_copy(
            update={
                "status": self.end.status,
                "output": self.output(),
                "usage": self.end.usage,
                "cut_turns": self.end.cut_turns,
                "finish_reason": self.end.finish_reason,
                "error": self.end.error,
                "resumptions": sum(entry.resumed for entry in self.end.log),
            }
        )


class Transcript:
    """All turns that the journal holds, oldest first. At most one of them, the last, has not ended."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._turns: dict[str, RecordedTurn] = {}
        self._completed: list[RecordedTurn] = []
        self._last_activity: float | None = None
        for record in records:
            self.apply(record)

    def __iter__(self) -> Iterator[RecordedTurn]:
        return iter(self._turns.values())

    def __len__(self) -> int:
        """How many turns of the conversation there are."""
        return len(self._completed)

    @property
    def last_activity(self) -> float | None:
        """When a turn last began or ended, in seconds since the epoch."""
        return self._last_activity

    def apply(self, record: Record) -> None:
        """Bring the transcript forward by a record; those of other kinds say nothing to it."""
        if record.kind == TurnStart.kind:
            start = TurnStart.model_validate_json(record.payload)
            self.begin(record, start, digest_of(start.request))
        elif record.kind == TurnEnd.kind:
            self.finish(record, TurnEnd.model_validate_json(record.payload))

    def begin(self, record: Record, start: TurnStart, digest: bytes) -> RecordedTurn:
        """A turn has begun with this record."""
        turn = RecordedTurn(record.turn, record.sequence, record.at / 1e6, start, digest)
        self._turns[record.turn] = turn
        self._last_activity = turn.started_at
        return turn

    def finish(self, record: Record, end: TurnEnd) -> None:
        """A turn has ended with this record."""
        turn = self._turns[record.turn]
        turn.finish(end, record.at / 1e6)
        self._last_activity = turn.ended_at
        if turn.completed:
            self._completed.append(turn)

    def drop(self, turns: Iterable[str]) -> None:
        """Forget turns that were deleted from the journal."""
        gone = {turn for turn in turns if self._turns.pop(turn, None) is not None}
        if gone:
            self._completed = [turn for turn in self._completed if turn.turn not in gone]

    def get(self, turn: str) -> RecordedTurn | None:
        """The turn of this name."""
        return self._turns.get(turn)

    def open_turn(self) -> RecordedTurn | None:
        """The turn that has not ended."""
        last = next(reversed(self._turns.values()), None)
        return last if last is not None and last.end is None else None

    def last_completed(self) -> str | None:
        """The last turn of the conversation."""
        return self._completed[-1].turn if self._completed else None

    def history(self) -> list[RecordedTurn]:
        """The turns that the model sees."""
        return list(self._completed)

    def unknown(self) -> UnknownOutcome | None:
        """The latest call of a turn that has ended of which nobody knows whether it took effect."""
        ended = (turn for turn in reversed(self._turns.values()) if turn.end is not None)
        found = (outline.unknown_in(turn.turn, turn.end.log) for turn in ended if turn.end is not None)
        return next((unknown for unknown in found if unknown is not None), None)

    def page(self, limit: int, newest_first: bool, after: str | None) -> ItemPage:
        """At most `limit` items, those that come after the item `after` in this order.

        Raises `RefusedError` if that item is not, or no longer, in the transcript.
        """
        turns = iter(reversed(self._turns.values()) if newest_first else self._turns.values())
        found: list[Item] = []
        waiting = after is not None
        for turn in turns:
            if waiting and after is not None and turn.turn not in after:
                continue
            items = turn.items()[::-1] if newest_first else turn.items()
            if waiting:
                place = next((n for n, item in enumerate(items) if item.id == after), None)
                if place is None:
                    break
                items, waiting = items[place + 1 :], False
            found += items
            if len(found) > limit:
                break
        if waiting:
            raise RefusedError(404, "item_not_found", f"there is no item {after!r} in this session")
        return ItemPage(data=found[:limit], has_more=len(found) > limit)
