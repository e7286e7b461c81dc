"""Server-sent events, read bit by bit. WHATWG HTML, section 9.2.6."""

from typing import NamedTuple

from tenure_sidecar.errors import GarbageError

EVENT_LIMIT = 4 * 1024 * 1024
"""Most bytes of one event: the last event of a Responses stream repeats the whole answer."""


class Event(NamedTuple):
    """One event: its name, empty if it has none, and its data."""

    name: bytes
    data: bytes

    def encoded(self) -> bytes:
        """The event as it goes on the wire."""
        data = self.data.replace(b"\n", b"\ndata: ")
        return b"event: %b\ndata: %b\n\n" % (self.name, data) if self.name else b"data: %b\n\n" % data


class Parser:
    """Turns the parts of a stream, cut anywhere, into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, part: bytes) -> list[Event]:
        """The events that `part` completes. Raises `GarbageError` if an event is too long."""
        if not (self._rest or self._data or self._name) and part.endswith(b"\n\n") and b"\r" not in part:
            blocks = part[:-2].split(b"\n\n")
            if all(block.startswith(b"data: ") and b"\n" not in block for block in blocks):
                return [Event(b"", block[6:]) for block in blocks]  # as nearly every part comes
        lines = (self._rest + part).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            event = self._line(line[:-1] if line.endswith(b"\r") else line)
            if event is not None:
                events.append(event)
        if self._size + len(self._rest) > EVENT_LIMIT:
            raise GarbageError(f"an event of the stream is longer than {EVENT_LIMIT} bytes")
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, b"\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = b"", [], 0
            return event
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value
        return None
