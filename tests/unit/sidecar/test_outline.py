"""The outline of a turn: the same items whenever it is made, and a context that every model accepts."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure_api.wire import Approval, Call, CallOutcome, ItemType, Message, Role, Turn, TurnRequest, TurnStatus, Usage
from tenure_sidecar.clock import moment
from tenure_sidecar.journal.records import LogEntry, Round, RoundCall
from tenure_sidecar.turn.live import Live
from tenure_sidecar.turn.outline import context, items, pieces
from unit.sidecar.support import a_turn

TURN = "0" * 32


def call(step: int) -> Call:
    return Call(tool="t", function="f", arguments="{}", output=f"o{step}", outcome=CallOutcome.COMPLETED)


@st.composite
def outlines(draw: st.DrawFn) -> tuple[str, list[LogEntry]]:
    """A text, and entries at places of it in ascending order."""
    text = draw(st.text("ab ", max_size=30))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    log = []
    for step, place in enumerate(places):
        kind = draw(st.sampled_from(["call", "approval", "rest"]))
        common: dict[str, Any] = {"offset": place, "at": 5.0, "step": step}
        if kind == "call":
            log.append(LogEntry(**common, call=call(step)))
        elif kind == "approval":
            log.append(LogEntry(**common, approval=Approval(id=f"mcpr_{TURN}_{step}", tool="t", function="f")))
        else:
            log += [LogEntry(**common, suspended=Usage()), LogEntry(**common, resumed=True)]
    return text, log


@given(outlines())
def test_the_pieces_are_the_whole_text_and_all_entries_in_order(made: tuple[str, list[LogEntry]]) -> None:
    text, log = made
    found = list(pieces(text, log))
    assert "".join(piece for piece in found if isinstance(piece, str)) == text
    assert [piece for piece in found if not isinstance(piece, str)] == log


@given(outlines())
def test_items_say_all_of_the_text_and_have_ids_of_their_own(made: tuple[str, list[LogEntry]]) -> None:
    text, log = made
    found = items(TURN, 1, text, log, 5.0)
    assert "".join(item.text for item in found) == text
    assert len({item.id for item in found}) == len(found)
    assert all(item.text for item in found if item.type is ItemType.MESSAGE)
    for number, item in enumerate(found):
        if item.type is ItemType.MESSAGE:
            assert item.id == f"msg_{TURN}_{number + 1}"


def begun() -> Turn:
    return Turn(turn=TURN, status=TurnStatus.IN_PROGRESS, created_at=moment(5.0))


async def told(live: Live) -> list[dict[str, Any]]:
    lines = b"".join([part async for part in live.events()])
    return [json.loads(line) for line in lines.splitlines()]


def merged(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "delta" and found and found[-1]["type"] == "delta":
            found[-1] = {**event, "text": found[-1]["text"] + event["text"]}
        else:
            found.append(event)
    return found


@given(outlines(), st.lists(st.integers(1, 7), min_size=1), st.booleans())
def test_listeners_are_told_the_same_whenever_they_come_and_however_the_text_does(
    made: tuple[str, list[LogEntry]], sizes: list[int], late_entries: bool
) -> None:
    text, log = made
    request: TurnRequest = a_turn(turn=TURN)

    async def play() -> None:
        live = Live(request, b"")
        live.begin(begun())
        rest, entries = list(log), text
        if late_entries:  # as after a restart: what stands between the parts is known, the text comes again
            for entry in rest:
                live.enter(entry)
            rest = []
        said = 0
        while entries or rest:
            while rest and rest[0].offset <= said:
                live.enter(rest.pop(0))
            size = sizes[said % len(sizes)]
            if rest:
                size = min(size, max(1, rest[0].offset - said))
            live.text(entries[:size])
            entries, said = entries[size:], said + size
        live.end(begun())
        again = Live(request, b"")
        again.begin(begun(), text, log)
        again.end(begun())
        assert merged(await told(live)) == merged(await told(again))

    asyncio.run(play())


@given(st.lists(st.tuples(st.text("xyz", max_size=3), st.integers(1, 3)), max_size=4), st.text("xyz", max_size=3))
def test_every_call_in_the_context_has_its_result_right_after_it(rounds: list[tuple[str, int]], last: str) -> None:
    text, log, kept, step = "", [], [], 0
    for said, count in rounds:
        text += said
        calls = []
        for _ in range(count):
            log.append(LogEntry(offset=len(text), at=5.0, step=step, call=call(step)))
            calls.append(RoundCall(call_id=f"c{step}", step=step))
            step += 1
        kept.append(Round(text=said, calls=calls))
    made = context([Message(role=Role.USER, text="hi")], text + last, log, kept)
    messages = json.loads(b"[" + made + b"]")
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert waiting.pop(0) == message["tool_call_id"]
        else:
            assert waiting == []
            waiting = [wanted["id"] for wanted in message.get("tool_calls", [])]
    assert waiting == []
    assert "".join(m["content"] or "" for m in messages if m["role"] == "assistant") == text + last
    assert messages[-1] == {"role": "assistant", "content": last}


def test_a_round_whose_call_is_missing_is_left_out() -> None:
    made = context([Message(role=Role.USER, text="hi")], "x", [], [Round(calls=[RoundCall(call_id="c", step=1)])])
    assert [m["role"] for m in json.loads(b"[" + made + b"]")] == ["user", "assistant"]


def test_a_message_that_was_begun_anew_has_an_id_of_its_own() -> None:
    log = [
        LogEntry(offset=2, at=5.0, step=1, call=call(1)),
        LogEntry(offset=2, at=5.0, attempt=1),
    ]
    assert [item.id for item in items(TURN, 1, "abcd", log, 5.0)] == [
        f"msg_{TURN}_1",
        f"mcp_{TURN}_1",
        f"msg_{TURN}_3_1",
    ]


async def test_void_text_is_taken_back_and_never_told_to_those_who_come_later() -> None:
    live = Live(a_turn(turn=TURN), b"")
    live.begin(begun())
    live.text("one two")
    live.enter(LogEntry(offset=4, at=5.0, attempt=1))
    live.rerun()
    live.text("one ")
    live.text("three")
    live.end(begun())
    events = await told(live)
    assert [event["type"] for event in events] == ["started", "delta", "attempt", "delta", "ended"]
    assert [event["text"] for event in events if event["type"] == "delta"] == ["one ", "three"]
