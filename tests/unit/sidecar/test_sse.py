"""Server-sent events come out the same however the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.errors import GarbageError
from tenure_sidecar.sse import EVENT_LIMIT, Event, Parser

STREAM = b': comment\r\ndata: {"a": 1}\r\n\r\nevent: named\ndata:two\ndata: lines\nid: 4\n\n\n\ndata: [DONE]\n\n'
EVENTS = [Event(b"", b'{"a": 1}'), Event(b"named", b"two\nlines"), Event(b"", b"[DONE]")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    parser, found, places = Parser(), [], [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += parser.feed(STREAM[start:end])
    assert found == EVENTS


def test_an_event_is_written_as_it_was_read() -> None:
    assert Parser().feed(b"".join(event.encoded() for event in EVENTS)) == EVENTS


def test_an_event_without_an_end_is_no_event() -> None:
    assert Parser().feed(b"data: x\n") == []


@pytest.mark.parametrize("line", [b"x" * 65536, b"data: " + b"y" * 65530 + b"\n"])
def test_an_endless_event_is_refused(line: bytes) -> None:
    parser = Parser()
    for _ in range(EVENT_LIMIT // len(line)):
        parser.feed(line)
    with pytest.raises(GarbageError, match="longer than"):
        parser.feed(2 * line)
