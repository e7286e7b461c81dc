"""What the sidecar itself tells its listeners, rendered: the two sides of the contract agree."""

import asyncio
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from tenure_api.wire import Approval, Call, CallOutcome, Turn, TurnRequest, TurnStatus, Usage
from tenure_gateway.events import decode
from tenure_gateway.ids import Key
from tenure_gateway.openai.rendering import Rendering
from tenure_gateway.openai.response_object import Frame
from tenure_sidecar.journal.records import LogEntry
from tenure_sidecar.turn import outline
from tenure_sidecar.turn.live import Live, ended

TURN = "ab" * 16
REQUEST = TurnRequest.model_validate({"turn": TURN, "input": [{"role": "user", "text": "x"}]})
BEGUN = Turn(turn=TURN, status=TurnStatus.IN_PROGRESS, created_at=datetime(2026, 1, 1, tzinfo=UTC), inputs=1)

WORDS = st.text(alphabet="ab \n", min_size=1, max_size=30)
CALL, ASK = "a call", "a call that a person approves"
DEEDS = st.lists(WORDS | st.sampled_from([CALL, ASK]) | st.tuples(WORDS), max_size=8)
"""What an agent does: says something, calls a tool, or says something that becomes void."""


async def heard(live: Live, lines: list[bytes]) -> None:
    async for data in live.events():
        lines += data.split(b"\n")


async def live_turn(deeds: list[str | tuple[str]], join: int) -> tuple[list[list[bytes]], Turn]:
    """What is heard by one who is there from the beginning, one who joins later, and two who come after the end."""
    live = Live(REQUEST, b"")
    live.begin(BEGUN)
    heards: list[list[bytes]] = [[], [], [], []]
    listening = [asyncio.create_task(heard(live, heards[0]))]
    attempts = 0
    for n, deed in enumerate(deeds):
        await asyncio.sleep(0)
        if n == join:
            listening.append(asyncio.create_task(heard(live, heards[1])))
            await asyncio.sleep(0)
        place, at = live.length, float(n)
        if isinstance(deed, tuple):
            attempts += 1
            live.text(deed[0])
            await asyncio.sleep(0)
            live.enter(LogEntry(offset=place, at=at, attempt=attempts))
        elif deed in (CALL, ASK):
            asked = Approval(id=outline.approval_id(TURN, n), tool="t", function="f", arguments="{}")
            if deed == ASK:
                live.enter(LogEntry(offset=place, at=at, step=n, approval=asked))
                live.enter(LogEntry(offset=place, at=at, suspended=Usage(input_tokens=n)))
                live.enter(LogEntry(offset=place, at=at, resumed=True))
            call = Call(tool="t", function="f", arguments="{}", output="o", outcome=CallOutcome.COMPLETED)
            live.enter(LogEntry(offset=place, at=at, step=n, call=call))
        else:
            live.text(deed)
    attempts = sum(entry.attempt is not None for entry in live.log)
    output = outline.items(TURN, 1, live.answer, live.log, 1.0) or [outline.message_item(TURN, 1, attempts, "", 1.0)]
    turn = BEGUN.model_copy(update={"status": TurnStatus.COMPLETED, "output": output})
    outlined = live.answer, live.log
    live.end(turn)
    await asyncio.gather(*listening)
    await heard(live, heards[2])
    await heard(ended(REQUEST, b"", BEGUN, turn, outlined), heards[3])
    return [lines for lines in heards if lines], turn


def rendered(lines: list[bytes]) -> list[bytes]:
    return Rendering(Frame(Key("a", "b"), "a/c")).write(decode(lines)).split(b"\n\n")


@given(DEEDS, st.integers(0, 8))
async def test_all_listeners_get_the_same_events(deeds: list[str | tuple[str]], join: int) -> None:
    heards, turn = await live_turn(deeds, join)
    first = rendered(heards[0])
    for lines in heards[1:]:
        later = rendered(lines)
        assert later == [event for event in first if event in later]
        assert all(b"output_text.delta" in event for event in first if event not in later)
        if not any(isinstance(deed, tuple) for deed in deeds):
            assert later == first
    shown = [json.loads(event.partition(b"data: ")[2]) for event in first if event]
    done = {event["item"]["id"]: event["item"] for event in shown if event["type"] == "response.output_item.done"}
    final = shown[-1]["response"]["output"]
    if any(item.text or item.call for item in turn.output):
        assert [done[item["id"]] for item in final] == final
