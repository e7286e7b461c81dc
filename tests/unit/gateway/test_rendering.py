"""The events of a response are a function of the turn: however it came, and from wherever one goes on."""

import asyncio
import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tenure_api.wire import CallOutcome, Decision, Failure, TurnRequest
from tenure_gateway.events import LanguageError, decode
from tenure_gateway.ids import Key
from tenure_gateway.openai.cutting import Cutter
from tenure_gateway.openai.rendering import STRIDE, Rendering
from tenure_gateway.openai.response_object import Frame
from unit.gateway.courses import Course, Deed, Used, Void

FRAME = Frame(Key("shop", "mine"), "shop/helper")
TURN = "0123456789abcdef" * 2
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

WORDS = st.text(alphabet="ab \né😀", max_size=40)
CALLS = st.builds(Used, st.just("look"), outcome=st.sampled_from(CallOutcome), ask=st.booleans())
DEEDS: st.SearchStrategy[list[Deed]] = st.lists(WORDS | CALLS | st.builds(Void, WORDS), max_size=8)


def cut_by(places: list[int]) -> Callable[[str], list[str]]:
    """Cuts text at these places."""

    def cut(text: str) -> list[str]:
        at = sorted({0, len(text), *(place for place in places if place < len(text))})
        return [text[a:b] for a, b in itertools.pairwise(at)]

    return cut


async def followed(deeds: list[Deed], failure: Failure | None = None) -> tuple[Course, list[bytes]]:
    """A turn at its end, and the lines that somebody saw who was there all the time."""
    course = Course(TurnRequest.model_validate({"turn": TURN, "input": [{"role": "user", "text": "x"}]}))
    course.failure = failure
    started = json.dumps({"type": "started", "turn": course.begun().model_dump(mode="json", by_alias=True)})
    running = asyncio.create_task(course.run(deeds, None))
    while not running.done():
        await asyncio.sleep(0)
        approvals = [event["item"]["approval"] for _, event in course.log if event["type"] == "item"]
        asked = [Decision(approval=approval["id"], approve=True) for approval in approvals if approval]
        course.decide([decision for decision in asked if decision.approval not in course.decisions], "alice")
    return course, [started.encode(), *(json.dumps(event).encode() for event in course.told)]


async def lines_later(course: Course, cut: Callable[[str], list[str]]) -> list[bytes]:
    """The lines of one who comes when it has ended."""
    return [json.dumps(event).encode() async for event in course.events(cut)]


def split(data: bytes) -> list[bytes]:
    return [part + b"\n\n" for part in data.split(b"\n\n") if part]


def number(event: bytes) -> int:
    found: int = json.loads(event.partition(b"data: ")[2])["sequence_number"]
    return found


def batches(lines: list[bytes], sizes: list[int]) -> list[list[bytes]]:
    """The lines, in reads of these sizes."""
    found, rest = [], lines
    for size in sizes:
        found.append(rest[:size])
        rest = rest[size:]
    return [*found, rest]


def rendered(lines: list[bytes], after: int = -1, sizes: list[int] | None = None) -> list[bytes]:
    rendering = Rendering(FRAME, after)
    return split(b"".join(rendering.write(decode(batch)) for batch in batches(lines, sizes or [])))


@given(DEEDS, st.lists(st.integers(1, 60), max_size=12), st.lists(st.integers(0, 4), max_size=12))
async def test_events_do_not_depend_on_how_the_turn_came(deeds: list[Deed], cuts: list[int], sizes: list[int]) -> None:
    course, live = await followed([deed for deed in deeds if not isinstance(deed, Void)])
    whole = rendered(live)
    assert rendered(await lines_later(course, cut_by(cuts)), sizes=sizes) == whole
    numbers = [number(event) for event in whole]
    assert numbers == list(range(len(numbers)))


@given(DEEDS, st.lists(st.integers(1, 60), max_size=12))
async def test_what_comes_after_a_number_is_the_exact_rest(deeds: list[Deed], cuts: list[int]) -> None:
    course, live = await followed(deeds)
    later = await lines_later(course, cut_by(cuts))
    seen = rendered(live)
    for n, event in enumerate(seen):
        rest = rendered(later, number(event))
        # Who saw text that became void afterwards has seen more, never less, and nothing else.
        assert rest == [event for event in seen[n + 1 :] if event in rest]
        missing = [json.loads(event.partition(b"data: ")[2]) for event in seen[n + 1 :] if event not in rest]
        assert {event["type"] for event in missing} <= {"response.output_text.delta"}
    numbers = [number(event) for event in seen]
    assert numbers == sorted(set(numbers))


@given(DEEDS, st.lists(st.integers(0, 2000), max_size=5))
async def test_a_stream_that_breaks_anywhere_and_goes_on_is_the_same(deeds: list[Deed], places: list[int]) -> None:
    course, live = await followed([deed for deed in deeds if not isinstance(deed, Void)])
    rendering, written = Rendering(FRAME), b""
    for place in places:
        rendering.again()
        data = b"\n".join(live)[:place]
        written += rendering.write(decode(data.split(b"\n")[:-1]))
    rendering.again()
    written += rendering.write(decode(await lines_later(course, lambda text: [text])))
    assert split(written) == rendered(live)


async def test_events_are_valid_by_the_types_of_the_official_client() -> None:
    calls: list[Deed] = [Used("look", outcome=outcome, ask=outcome is CallOutcome.COMPLETED) for outcome in CallOutcome]
    _, live = await followed(["one ", Void("two "), "three", *calls, "four"])
    for raw in rendered(live):
        event = json.loads(raw.partition(b"data: ")[2])
        if event["type"] == "response.incomplete":
            event["response"]["incomplete_details"] = None  # that client knows no approvals but of its own service
        EVENT.validate_python(event)


@given(DEEDS)
async def test_what_is_streamed_is_what_is_retrieved(deeds: list[Deed]) -> None:
    course, live = await followed(deeds)
    events = [json.loads(event.partition(b"data: ")[2]) for event in rendered(live)]
    done = {event["item"]["id"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    final = events[-1]["response"]
    assert course.ended is not None
    assert [done[item["id"]] for item in final["output"]] == final["output"]
    void = [item for name, item in done.items() if name not in {item["id"] for item in final["output"]}]
    assert all(item["status"] == "incomplete" and item["content"] == [] for item in void)
    indices = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert indices == list(range(len(indices)))


async def test_a_void_message_is_closed_under_the_last_number_of_its_attempt() -> None:
    _, live = await followed([Void("one two "), "three"])
    events = [json.loads(event.partition(b"data: ")[2]) for event in rendered(live)]
    (closed,) = [event for event in events if event["sequence_number"] == STRIDE - 1]
    assert (closed["type"], closed["item"]["status"]) == ("response.output_item.done", "incomplete")
    after = [event for event in events if event["sequence_number"] >= STRIDE]
    assert after[0]["item"]["id"] == f"{closed['item']['id']}_1"
    assert "".join(event.get("delta", "") for event in after) == "three"


async def test_the_end_of_a_failed_turn_comes_after_whatever_was_seen_of_it() -> None:
    course, _ = await followed(["lost"], Failure(code="model_error", message="no"))
    (last,) = rendered(await lines_later(course, lambda text: [text]), after=1)
    assert number(last) == STRIDE - 1
    assert json.loads(last.partition(b"data: ")[2])["type"] == "response.failed"


@given(st.text(alphabet="ab \n", max_size=80), st.lists(st.integers(0, 80), max_size=10))
def test_deltas_are_a_function_of_the_text(text: str, places: list[int]) -> None:
    at = sorted({0, len(text), *(place for place in places if place < len(text))})
    cutter, found = Cutter(), []
    for a, b in itertools.pairwise(at):
        found += cutter.more(text[a:b])
    found += cutter.end()
    whole = Cutter()
    assert found == whole.more(text) + whole.end()
    assert "".join(found) == text
    assert all(1 <= len(delta) <= 31 for delta in found)


def test_a_delta_ends_after_whitespace_or_after_sixteen_characters_without() -> None:
    cutter = Cutter()
    assert cutter.more("one  two") == ["one  "]
    assert cutter.more(" ") == []
    assert cutter.more("x" * 20) == ["two ", "x" * 16]
    assert cutter.end() == ["xxxx"]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"type":"delta"}', b'{"type":"ended","turn":{}}', b'{"type":"item"}', b"\xff"]
)
def test_another_language_is_none(line: bytes) -> None:
    with pytest.raises(LanguageError):
        decode([line])


def test_kinds_of_events_that_are_invented_later_are_left_out() -> None:
    assert [event.text for event in decode([b'{"type":"delta","text":"a"}', b'{"type":"later"}', b""])] == ["a"]
