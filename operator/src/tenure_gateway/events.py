"""The events of a turn, as a sidecar's stream has them: see `wire.TurnEvent`.

Only what carries a turn or an item is checked by pydantic: text is on the hot path.
"""

from typing import NamedTuple

import pydantic_core

from tenure_api.wire import Item, Turn


class Event(NamedTuple):
    """One event. Text that comes at once is one event, however it was cut."""

    kind: str
    text: str = ""
    turn: Turn | None = None
    item: Item | None = None
    attempt: int = 0
    offset: int = 0


class LanguageError(Exception):
    """These are not the events of a turn."""


def decode(lines: list[bytes]) -> list[Event]:
    """The events in these lines; kinds that are not known are left out. Raises `LanguageError`."""
    events: list[Event] = []
    texts: list[str] = []
    try:
        for line in lines:
            if not line:
                continue
            event = pydantic_core.from_json(line)
            kind = event["type"]
            if kind == "delta":
                texts.append(event["text"])
                continue
            if texts:
                events.append(Event("delta", "".join(texts)))
                texts.clear()
            if kind in ("started", "suspended", "ended"):
                events.append(Event(kind, turn=Turn.model_validate(event["turn"])))
            elif kind == "item":
                events.append(Event(kind, item=Item.model_validate(event["item"])))
            elif kind == "attempt":
                events.append(Event(kind, attempt=event["attempt"], offset=event["offset"]))
            elif kind == "resumed":
                events.append(Event(kind))
        if texts:
            events.append(Event("delta", "".join(texts)))
    except (ValueError, TypeError, KeyError) as error:
        raise LanguageError(f"the sidecar speaks another language: {type(error).__name__}") from None
    return events
