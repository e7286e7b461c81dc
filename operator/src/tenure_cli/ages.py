"""Times of Kubernetes objects, for people."""

from datetime import UTC, datetime, timedelta

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def parse(text: str | None) -> datetime | None:
    """A time as the API server writes it; None if there is none."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def span(length: timedelta) -> str:
    """A span of time in its largest unit, such as `3 h`."""
    seconds = max(0, int(length.total_seconds()))
    for unit, name in _UNITS:
        if seconds >= 2 * unit or unit == 1:
            return f"{seconds // unit} {name}"
    raise AssertionError


def age(text: str | None, now: datetime) -> str:
    """How long ago a time was; empty if there is none."""
    found = parse(text)
    return "" if found is None else span(now - found)


def moment(text: str | None) -> str:
    """A time in a sentence, in UTC to the minute."""
    found = parse(text)
    return "an unknown time" if found is None else found.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
