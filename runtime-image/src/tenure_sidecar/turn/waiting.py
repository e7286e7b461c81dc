"""The built-in tool by which the model suspends its turn until a time."""

from datetime import UTC, datetime
from typing import Any

from tenure_sidecar.clock import moment
from tenure_sidecar.codec import decode

DESCRIPTION = (
    "Suspends this conversation until a time, and then goes on. Give either `time` or `seconds`. "
    "Costs nothing while it waits."
)
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "time": {"type": "string", "description": "When to go on: RFC 3339 with offset, such as 2027-01-31T09:00:00Z."},
        "seconds": {"type": "number", "description": "Seconds from now after which to go on."},
    },
    "additionalProperties": False,
}


class UnclearTimeError(Exception):
    """The arguments name no time to wait for; the message tells the model what to write instead."""


def until(arguments: str, now: float, max_seconds: int) -> float:
    """The time that a call waits for, in seconds since the epoch. Raises `UnclearTimeError`."""
    try:
        given = decode(arguments.encode() or b"{}")
    except ValueError:
        given = None
    match given:
        case {"seconds": int() | float() as seconds, **rest} if not rest and not isinstance(seconds, bool):
            at = now + max(0.0, float(seconds))
        case {"time": str(text), **rest} if not rest:
            at = _parsed(text)
        case _:
            raise UnclearTimeError('give either {"time": "2027-01-31T09:00:00Z"} or {"seconds": 3600}')
    if not at <= now + max_seconds:
        raise UnclearTimeError(f"the longest wait is {max_seconds} seconds, until {told(now + max_seconds)}")
    return at


def over(now: float) -> str:
    """What the model is told when it has waited."""
    return f"The wait is over. It is now {told(now)}."


def told(at: float) -> str:
    """A time as the model is told of it."""
    return moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UnclearTimeError(f"time {text[:64]!r} is not RFC 3339, such as 2027-01-31T09:00:00Z") from None
    try:
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UnclearTimeError(f"time {text[:64]!r} is out of range") from None
