"""A turn that waits or runs, and those who listen to it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

from tenure_api.wire import Turn, TurnRequest, TurnStatus
from tenure_sidecar.codec import encode
from tenure_sidecar.errors import RefusedError, SidecarError
from tenure_sidecar.journal.records import LogEntry
from tenure_sidecar.turn import outline


class DivergedError(SidecarError):
    """The agent says something else than it said before it was run again."""


def _turn_event(kind: bytes, turn: Turn) -> bytes:
    return b'{"type":"%b","turn":%b}\n' % (kind, turn.model_dump_json(by_alias=True).encode())


def _delta(text: str) -> bytes:
    return b'{"type":"delta","text":%b}\n' % encode(text)


class Live:
    """Collects the events of a turn; every listener reads them at its own pace, and all read the same.

    Whoever comes late first gets what was so far, the text in as few pieces as possible. When the agent is run again,
    it says again what it said before; that is compared, and only what is new is told.
    """

    def __init__(self, request: TurnRequest, digest: bytes) -> None:
        self.request = request
        self.digest = digest
        self._started: Turn | None = None
        self._text: list[str] = []
        self._length = 0
        self._ahead = ""
        """What the present run must say before it can say anything new."""
        self._log: list[LogEntry] = []
        """The entries that listeners have been told of."""
        self._later: deque[LogEntry] = deque()
        """Entries whose place in the text has not come yet."""
        self._ended: Turn | None = None
        self._events: list[bytes] = []
        self._refusal: RefusedError | None = None
        self._listeners = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.suspended = False
        """Whether the turn waits for approvals."""

    # --- for the engine ---

    @property
    def unheard(self) -> bool:
        """Whether nobody listens."""
        return self._listeners == 0

    @property
    def length(self) -> int:
        """Characters of the answer so far."""
        return self._length

    @property
    def answer(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    @property
    def log(self) -> list[LogEntry]:
        """All entries, also those whose place has not come."""
        return [*self._log, *self._later]

    def begin(self, turn: Turn, text: str = "", log: Iterable[LogEntry] = ()) -> None:
        """The turn is recorded. `text` and `log` are what the journal knows of it, if it was begun before."""
        self._started = turn
        # The log first: where a model call was made again, this text is what came of it, and not what became void.
        self._later.extend(log)
        self._say(text)
        self._tell_due()
        self._wake()

    def refuse(self, error: RefusedError) -> None:
        """The turn is not taken."""
        self._refusal = error
        self._wake()

    def rerun(self) -> None:
        """The agent is run from the start of the turn."""
        self._ahead = self.answer

    def text(self, text: str) -> None:
        """The agent says something. Raises `DivergedError` if it is not what it said before."""
        if self._ahead:
            known = min(len(text), len(self._ahead))
            if text[:known] != self._ahead[:known]:
                raise DivergedError("the agent's words differ from those that it had said before it was restarted")
            self._ahead, text = self._ahead[known:], text[known:]
        if text:
            self._say(text)

    def enter(self, entry: LogEntry) -> None:
        """Something has happened at a place of the text; it is told as soon as the text has come so far."""
        self._later.append(entry)
        self._tell_due()

    def end(self, turn: Turn) -> None:
        """The turn has ended, on disk."""
        while self._later:
            self._tell(self._later.popleft())
        self._ended = turn
        self._publish(_turn_event(b"ended", turn))

    @property
    def is_begun(self) -> bool:
        """Whether the turn is recorded."""
        return self._started is not None

    def state(self) -> Turn:
        """The turn as it is now. It must have begun."""
        if self._ended is not None:
            return self._ended
        status = TurnStatus.AWAITING_APPROVAL if self.suspended else TurnStatus.IN_PROGRESS
        return self._snapshot(self.answer, self._log, status)

    async def moving(self) -> None:
        """Wait until the turn does not wait for approvals."""
        while self.suspended:
            await self._change()

    async def outcome(self) -> Turn:
        """The turn at its end."""
        while self._ended is None:
            await self._change()
        return self._ended

    # --- for listeners ---

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While somebody listens. A turn that has not begun when nobody does is not taken."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    async def begun(self) -> None:
        """Wait until the turn is recorded. Raises `RefusedError` if it is not taken."""
        while self._started is None and self._refusal is None:
            await self._change()
        if self._refusal is not None:
            raise self._refusal

    async def events(self) -> AsyncIterator[bytes]:
        """Lines of JSON, as many at a time as there are, to the end or to a suspension. The turn must have begun."""
        place = len(self._events)
        yield b"".join(self._history())
        while self._ended is None or place < len(self._events):
            if place < len(self._events):
                ready, place = self._events[place:], len(self._events)
                yield b"".join(ready)
            elif self.suspended:
                return
            else:
                await self._change()

    def _history(self) -> Iterator[bytes]:
        assert self._started is not None  # noqa: S101 - the turn has begun
        yield _turn_event(b"started", self._started)
        for piece in outline.pieces(self.answer, self._log):
            yield _delta(piece) if isinstance(piece, str) else self._line(piece)
        if self._ended is not None:
            yield _turn_event(b"ended", self._ended)

    # --- inside ---

    def _say(self, text: str) -> None:
        while self._later and self._later[0].offset <= self._length + len(text):
            until = max(0, self._later[0].offset - self._length)
            self._add(text[:until])
            text = text[until:]
            self._tell(self._later.popleft())
        self._add(text)

    def _add(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._length += len(text)
            self._publish(_delta(text))

    def _tell_due(self) -> None:
        while self._later and self._later[0].offset <= self._length:
            self._tell(self._later.popleft())

    def _tell(self, entry: LogEntry) -> None:
        if entry.attempt is not None and entry.offset < self._length:
            self._text, self._length = [self.answer[: entry.offset]], entry.offset
            self._ahead = self._ahead[: entry.offset]
        if entry.suspended is not None or entry.resumed:
            self.suspended = entry.suspended is not None
        self._log.append(entry)
        self._publish(self._line(entry))

    def _line(self, entry: LogEntry) -> bytes:
        assert self._started is not None  # noqa: S101 - the turn has begun
        if entry.attempt is not None:
            return b'{"type":"attempt","attempt":%d,"offset":%d}\n' % (entry.attempt, entry.offset)
        if entry.suspended is not None:
            before = self._log[: self._log.index(entry) + 1]
            text = self.answer[: entry.offset]
            return _turn_event(b"suspended", self._snapshot(text, before, TurnStatus.AWAITING_APPROVAL))
        if entry.resumed:
            return b'{"type":"resumed"}\n'
        item = outline.entry_item(self._started.turn, entry)
        assert item is not None  # noqa: S101 - there is nothing else
        return b'{"type":"item","item":%b}\n' % item.model_dump_json(by_alias=True).encode()

    def _snapshot(self, text: str, log: list[LogEntry], status: TurnStatus) -> Turn:
        """The turn as it was when it had this text and log."""
        assert self._started is not None  # noqa: S101 - the turn has begun
        begun, usages = self._started, [entry.suspended for entry in log if entry.suspended is not None]
        first, at = len(self.request.input), begun.created_at.timestamp()
        return begun.model_copy(
            update={
                "status": status,
                "output": outline.items(begun.turn, first, text, log, at),
                "usage": usages[-1] if usages else begun.usage,
                "resumptions": sum(entry.resumed for entry in log),
            }
        )

    def _publish(self, event: bytes) -> None:
        self._events.append(event)
        self._wake()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


def ended(request: TurnRequest, digest: bytes, begun: Turn, turn: Turn, outlined: tuple[str, list[LogEntry]]) -> Live:
    """A turn that ended before anybody came to listen; `outlined` is its text and its log."""
    live = Live(request, digest)
    live.begin(begun, *outlined)
    live.end(turn)
    return live
