"""Server-sent events as bytes, for tests that compare streams to the byte."""

import json


def complete_events(received: bytes) -> bytes:
    """What was received, up to the end of its last whole event."""
    return received[: received.rfind(b"\n\n") + 2] if b"\n\n" in received else b""


def sequence_number(events: bytes) -> int:
    """The `sequence_number` of the last event that has one."""
    lines = [line for line in events.splitlines() if line.startswith(b"data: {")]
    number: int = json.loads(lines[-1].removeprefix(b"data: "))["sequence_number"]
    return number
