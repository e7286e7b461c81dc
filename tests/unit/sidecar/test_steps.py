"""Steps: an agent that is run again gets each recorded result once, in any order; one that differs is stopped."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api.configuration import Limits
from tenure_api.tools import Replay
from tenure_api.wire import CallOutcome, ToolCall, Usage
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import AskedCall, Entry, ModelIntent, ModelResult, ToolIntent, ToolResult
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn.steps import ModelStep, Steps, ToolStep

TURN = "0" * 32


class Tape:
    """Records of one turn."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, step: int, entry: Entry) -> None:
        self.records.append(Record(len(self.records), TURN, step, entry.kind, 0, entry.payload()))

    def steps(self, patience: float = 0.5) -> Steps:
        steps = Steps(TURN, patience=patience)
        for record in self.records:
            steps.apply(record)
        steps.begin_run(0)
        return steps


def body(text: str, *calls: str) -> str:
    wanted = [{"id": name, "type": "function", "function": {"name": "f", "arguments": name}} for name in calls]
    return json.dumps({"choices": [{"message": {"content": text, "tool_calls": wanted}}]})


async def asks_model(steps: Steps, tape: Tape, digest: str, answer: str) -> ModelStep:
    step = await steps.model(digest)
    if step.result is None:
        tape.add(step.number, ModelIntent(digest=digest))
        result = ModelResult(digest=digest, body=answer, usage=Usage(input_tokens=1))
        tape.add(step.number, result)
        steps.settled(step, result)
    return step


async def asks_tool(steps: Steps, tape: Tape, name: str) -> ToolStep:
    step = await steps.tool(ToolCall(call_id=name, name="f", arguments=name), "f")
    if step.result is None:
        tape.add(step.number, ToolIntent(call=step.call, replay=Replay.SAFE))
        step.result = ToolResult(call=step.call, output=name.upper(), outcome=CallOutcome.COMPLETED)
        tape.add(step.number, step.result)
    return step


async def run(steps: Steps, tape: Tape, rounds: list[list[str]], order: list[int], stop_after: int) -> list[str]:
    """A run of an agent that makes the calls of each round at once, in an order; it dies after so many steps."""
    outputs: list[str] = []
    left = stop_after
    for number, calls in enumerate(rounds):
        if left <= 0:
            return outputs
        left -= 1
        await asks_model(steps, tape, f"m{number}", body(f"t{number}", *calls))
        ranked = sorted(range(len(calls)), key=lambda place: order[place % len(order)])
        chosen = [calls[place] for place in ranked[: max(0, left)]]
        left -= len(chosen)
        asked = [asyncio.ensure_future(asks_tool(steps, tape, name)) for name in chosen]
        if len(chosen) < len(calls):  # it dies before it asks for the others, while some of these may be held
            await asyncio.sleep(0.001)
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            return outputs
        made = await asyncio.gather(*asked)
        outputs += sorted(step.result.output for step in made if step.result is not None)
    return outputs


ROUNDS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(
    lambda sizes: [[f"c{number}-{place}" for place in range(size)] for number, size in enumerate(sizes)]
)
ORDER = st.permutations([0, 1, 2])


@given(ROUNDS, st.lists(st.tuples(ORDER, st.integers(0, 12)), max_size=5), ORDER)
def test_no_step_is_made_twice_and_none_is_refused_however_often_the_agent_dies(
    rounds: list[list[str]], deaths: list[tuple[list[int], int]], last: list[int]
) -> None:
    async def play() -> None:
        tape = Tape()
        for order, stop_after in deaths:
            await run(tape.steps(), tape, rounds, order, stop_after)
        outputs = await run(tape.steps(), tape, rounds, last, 99)
        assert outputs == [name.upper() for calls in rounds for name in sorted(calls)]
        results = [record for record in tape.records if record.kind == ToolResult.kind]
        assert len(results) == sum(map(len, rounds))
        assert len({record.step for record in tape.records}) == len(rounds) + len(results)

    asyncio.run(play())


async def test_a_call_is_placed_after_the_answer_that_asks_for_it() -> None:
    steps, tape = Tape().steps(), Tape()
    await asks_model(steps, tape, "m0", body("Hello ", "a"))
    step = await asks_tool(steps, tape, "a")
    assert (step.call.round, step.call.offset) == (0, 6)
    [one] = steps.rounds()
    assert (one.text, [call.step for call in one.calls]) == ("Hello ", [1])


async def test_the_same_id_in_two_answers_names_two_calls() -> None:
    steps, tape = Tape().steps(), Tape()
    await asks_model(steps, tape, "m0", body("", "a"))
    first = await asks_tool(steps, tape, "a")
    await asks_model(steps, tape, "m1", body("", "a"))
    second = await asks_tool(steps, tape, "a")
    assert first.number != second.number
    assert [len(one.calls) for one in steps.rounds()] == [1, 1]


async def test_a_round_with_a_call_that_is_not_settled_is_not_shown_to_later_turns() -> None:
    steps, tape = Tape().steps(), Tape()
    await asks_model(steps, tape, "m0", body("", "a", "b"))
    await asks_tool(steps, tape, "a")
    assert steps.rounds() == []


async def test_a_model_call_that_differs_is_refused_only_after_it_is_clear_that_it_differs() -> None:
    tape = Tape()
    await asks_model(tape.steps(), tape, "m0", body(""))
    with pytest.raises(RefusedError, match="something else"):
        await tape.steps(patience=0.02).model("other")
    steps = tape.steps(patience=5)
    held = asyncio.ensure_future(steps.model("new"))
    await asyncio.sleep(0.01)
    assert not held.done()
    assert (await steps.model("m0")).result is not None
    assert (await held).result is None


async def test_a_call_with_the_same_id_and_other_arguments_is_refused_at_once() -> None:
    tape = Tape()
    steps = tape.steps()
    await asks_model(steps, tape, "m0", body("", "a"))
    await asks_tool(steps, tape, "a")
    again = tape.steps(patience=60)
    await again.model("m0")
    with pytest.raises(RefusedError, match="differs from the recorded one"):
        await again.tool(ToolCall(call_id="a", name="f", arguments="b"), "f")
    with pytest.raises(RefusedError):
        await again.model("m1")


async def test_a_model_call_without_a_result_may_be_asked_differently() -> None:
    tape = Tape()
    tape.add(0, ModelIntent(digest="m0"))
    assert (await tape.steps().model("other")).number == 1


async def test_a_recorded_answer_holds_when_retention_has_shortened_the_history() -> None:
    tape = Tape()
    tape.add(0, ModelIntent(digest="m0"))
    tape.add(0, ModelResult(digest="m0", oldest=7, body=body("old")))
    assert (await tape.steps().model("shorter")).said.text == "old"


async def test_an_interrupted_call_is_known_by_its_class() -> None:
    tape = Tape()
    call = AskedCall(call_id="a", function="f", tool="f", arguments="a", digest="d")
    tape.add(0, ToolIntent(call=call, replay=Replay.NEVER))
    assert tape.steps().tools[0].interrupted is Replay.NEVER


async def test_steps_and_tokens_are_limited() -> None:
    steps, tape = Tape().steps(), Tape()
    steps.limits = lambda: Limits(max_steps=2)
    await asks_model(steps, tape, "m0", body("", "a"))
    await asks_tool(steps, tape, "a")
    with pytest.raises(RefusedError, match="2 steps"):
        await steps.model("m1")
    steps = Tape().steps()
    steps.limits = lambda: Limits(max_tokens=1)
    await asks_model(steps, tape, "m0", body(""))
    with pytest.raises(RefusedError, match="tokens"):
        await steps.model("m1")
