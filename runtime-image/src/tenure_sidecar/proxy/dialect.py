"""What differs between the two OpenAI APIs that a model may speak."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Protocol

from tenure_api.configuration import ModelRoute
from tenure_api.wire import Usage
from tenure_sidecar.sse import Event

Json = dict[str, Any]


class Progress(Enum):
    """What an event of a stream means for those who pass it on."""

    PREAMBLE = auto()
    """Says nothing yet; as long as only such events have come, another model can still be asked."""
    TOKEN = auto()
    """Part of the answer."""
    FINAL = auto()
    """The answer is complete; from here on events are held back until it is in the journal."""
    END = auto()
    """Nothing follows."""


class Assembler(Protocol):
    """Puts the answer together from the events of its stream."""

    def feed(self, event: Event) -> Progress:
        """Take an event. Raises `GarbageError` if it is not one of this API, `StreamError` if it reports an error."""

    def answer(self) -> Json | None:
        """The whole answer, as without streaming; None while it is not complete."""

    def wanted(self, event: Event) -> bool:
        """Whether the agent asked for this event; those that only the proxy asked for are not passed on."""


class StreamError(Exception):
    """The stream itself reports an error; `body` is the JSON of the event."""

    def __init__(self, body: bytes) -> None:
        super().__init__("the stream reports an error")
        self.body = body


class Dialect(Protocol):
    """One of the two APIs."""

    path: str
    """Below the base URL."""

    def completed(self, request: Json, route: ModelRoute) -> Json:
        """The request with the configured parameters where it sets none."""

    def assembler(self, request: Json) -> Assembler:
        """For the stream that answers this request, as the agent made it."""

    def is_answer(self, answer: object) -> bool:
        """Whether JSON is a whole answer."""

    def usage(self, answer: Json) -> Usage:
        """The tokens that the answer reports."""

    def replay(self, answer: Json, request: Json) -> Iterator[Event]:
        """A stream that says the same as the whole answer."""


def tokens(usage: object, field: str) -> int:
    """A count in a usage report that may be anything."""
    value = usage.get(field) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
