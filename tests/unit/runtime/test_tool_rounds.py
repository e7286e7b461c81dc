"""The loop with tools: whatever the model asks for, the conversation it gets back is a valid one."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_runtime.errors import FaultError, ModelError
from tenure_runtime.loop import AgentLoop
from tenure_runtime.rounds import Call, as_chunk

Json = dict[str, Any]
TOOLS = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "go"}

ENTRY = st.builds(
    lambda call_id, arguments: {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}},
    st.sampled_from(["a", "b", "call_0_0", "", None]),
    st.text(max_size=5),
)
ROUND = st.tuples(st.text(max_size=8), st.lists(ENTRY, max_size=4))


class Speaker:
    """A model that has its answers ready, and checks what it is asked: text and calls for each round."""

    def __init__(self, rounds: list[tuple[str, list[Json]]], usage: Json | None = None) -> None:
        self.rounds = rounds
        self.usage = usage
        self.asked: list[str] = []
        self.cuts: list[int] = []
        self.reason = "tool_calls"

    def ask(self, request: Json, cut: int) -> AsyncGenerator[bytes, None]:
        raise AssertionError("with tools the answer is read")

    async def chunks(self, request: Json, cut: int) -> AsyncGenerator[object, None]:
        self.check(request["messages"])
        text, entries = self.rounds[len(self.asked)]
        self.asked.append(json.dumps(request))
        self.cuts.append(cut)
        head = {"id": f"chatcmpl-{len(self.asked)}", "created": len(self.asked), "model": f"m{len(self.asked)}"}
        if not request.get("stream"):
            message = {"role": "assistant", "content": text or None, "tool_calls": entries}
            yield as_chunk({**head, "choices": [{"index": 0, "message": message}], "usage": self.usage})
            return
        deltas: list[Json] = [{"role": "assistant", "content": None, "tool_calls": None}]
        deltas += [{"content": letter} for letter in text]
        deltas += [{"tool_calls": [{"index": n, **entry}]} for n, entry in enumerate(entries)]
        for delta in deltas:
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self.reason if entries else "stop"}]}
        yield {**head, "choices": [], "usage": self.usage}

    def check(self, messages: list[Json]) -> None:
        """Each call is answered exactly once, in order, right after the message that asks for it."""
        open_: list[str] = []
        for message in messages:
            if message["role"] == "tool":
                assert open_, "a result of no call"
                assert message["tool_call_id"] == open_.pop(0), "results are in the order of the calls"
                assert isinstance(message["content"], str)
                continue
            assert not open_, "a call without a result"
            open_ = [entry["id"] for entry in message.get("tool_calls") or ()]
            assert len(set(open_)) == len(open_)
        assert not open_


class Echo:
    """Tools that answer with what they were asked, in an order of their own."""

    def __init__(self, lazy: int = 0) -> None:
        self.made: list[tuple[str, str, str]] = []
        self.running = self.most = 0
        self._lazy = lazy

    async def call(self, call: Call) -> str:
        self.made.append((call.id, call.name, call.arguments))
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range((len(self.made) * self._lazy) % 5):
            await asyncio.sleep(0)
        self.running -= 1
        return f"{call.id}:{call.arguments}"


def request(**fields: Any) -> Json:
    return {"model": "helper", "messages": [USER], "tools": TOOLS, "stream": True, **fields}


async def run(model: Speaker, tools: Any, body: Json, window: int | None = None) -> list[Json]:
    """The chunks of a stream, or the one document."""
    text = b"".join([piece async for piece in AgentLoop(model, tools, window).answer(body)]).decode()
    if not body.get("stream"):
        return [json.loads(text)]
    assert text.endswith("\n\ndata: [DONE]\n\n")
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@given(st.lists(ROUND, min_size=1, max_size=4), st.booleans(), st.booleans(), st.integers(0, 4))
def test_every_conversation_is_valid_and_the_answer_is_all_that_was_said(
    rounds: list[tuple[str, list[Json]]], stream: bool, parallel: bool, lazy: int
) -> None:
    """Once more with the same request: the same model and tool calls, byte by byte."""
    rounds = [r for r in rounds if r[1]] + [("end", [])]
    body = request(stream=stream, parallel_tool_calls=parallel)
    first, second, tools, others = Speaker(rounds), Speaker(rounds), Echo(lazy), Echo(lazy + 1)
    answer = asyncio.run(run(first, tools, body))
    again = asyncio.run(run(second, others, body))
    assert len(first.asked) == len(rounds)
    assert first.asked == second.asked
    assert (sorted if parallel else list)(tools.made) == (sorted if parallel else list)(others.made)
    assert answer == again
    assert [arguments for _, _, arguments in tools.made] == [
        entry["function"]["arguments"] for _, entries in rounds for entry in entries
    ]
    said = "".join(text for text, _ in rounds)
    if stream:
        choices = [choice for chunk in answer for choice in chunk["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == said
        assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]
        assert "tool_calls" not in json.dumps(choices)
        assert [c["delta"].get("role") for c in choices][1:] == [None] * (len(choices) - 1)
        assert {(c["id"], c["created"], c["model"]) for c in answer} == {("chatcmpl-1", 1, "m1")}
    else:
        (choice,) = answer[0]["choices"]
        assert choice["message"] == {"role": "assistant", "content": said}
        assert (choice["finish_reason"], answer[0]["id"]) == ("stop", "chatcmpl-1")


def entry(call_id: str, arguments: str = "{}") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}


async def test_calls_are_made_together_unless_the_request_says_otherwise() -> None:
    for fields, most in (({}, 3), ({"parallel_tool_calls": True}, 3), ({"parallel_tool_calls": False}, 1)):
        tools = Echo(1)
        await run(Speaker([("", [entry(i) for i in "abc"]), ("", [])]), tools, request(**fields))
        assert tools.most == most


async def test_usage_is_that_of_all_rounds_and_told_only_if_asked_for() -> None:
    rounds = [("a", [entry("x")]), ("b", [])]
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    doubled = {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    told = await run(Speaker(rounds, usage), Echo(), request(stream_options={"include_usage": True}))
    assert told[-1]["usage"] == doubled
    assert "usage" not in json.dumps(await run(Speaker(rounds, usage), Echo(), request()))
    assert (await run(Speaker(rounds, usage), Echo(), request(stream=False)))[0]["usage"] == doubled


async def test_a_reason_of_stop_does_not_hide_the_calls() -> None:
    model = Speaker([("", [entry("x")]), ("done", [])])
    model.reason = "stop"
    await run(model, Echo(), request())
    assert len(model.asked) == 2


async def test_an_answer_that_was_cut_short_ends_the_turn() -> None:
    model = Speaker([("", [entry("x", '{"pa')])])
    model.reason = "length"
    tools = Echo()
    assert (await run(model, tools, request()))[-1]["choices"][0]["finish_reason"] == "length"
    assert tools.made == []


async def test_an_answer_that_breaks_off_is_an_error_and_its_calls_are_not_made() -> None:
    class Breaking(Speaker):
        async def chunks(self, request: Json, cut: int) -> AsyncGenerator[object, None]:
            yield {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **entry("x")}]}}]}

    tools = Echo()
    with pytest.raises(ModelError, match="502"):
        await run(Breaking([]), tools, request())
    assert tools.made == []


async def test_a_refused_call_ends_the_run_and_the_other_calls_with_it() -> None:
    class Refusing:
        def __init__(self) -> None:
            self.cancelled = 0

        async def call(self, call: Call) -> str:
            if call.id == "b":
                await asyncio.sleep(0)
                raise FaultError(409, {"code": "determinism_error", "message": "not as before"})
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return ""

    tools = Refusing()
    with pytest.raises(FaultError) as refused:
        await run(Speaker([("", [entry(i) for i in "abc"])]), tools, request())
    assert refused.value.error["code"] == "determinism_error"
    assert tools.cancelled == 2
    assert len(asyncio.all_tasks()) == 1


async def test_a_turn_that_was_left_out_stays_out_and_the_rounds_of_the_current_one_stay_in() -> None:
    class Narrow(Speaker):
        async def chunks(self, request: Json, cut: int) -> AsyncGenerator[object, None]:
            if len(request["messages"]) > 6:
                raise ModelError(400, {"code": "context_length_exceeded", "message": "too long"})
            async for chunk in super().chunks(request, cut):
                yield chunk

    earlier = [
        message
        for n in range(3)
        for message in (
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": None, "tool_calls": [entry("x")]},
            {"role": "tool", "tool_call_id": "x", "content": "r"},
            {"role": "assistant", "content": f"a{n}"},
        )
    ]
    model = Narrow([("", [entry("x")]), ("", [entry("y")]), ("done", [])])
    await run(model, Echo(), request(messages=[*earlier, USER]))
    assert model.cuts == [2, 3, 3]
    roles = [[m["role"] for m in json.loads(asked)["messages"]] for asked in model.asked]
    assert roles[-1] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_with_a_known_window_the_rounds_make_old_turns_leave() -> None:
    earlier = [
        m for n in range(4) for m in ({"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"})
    ]
    model = Speaker([("", [entry("x", "x" * 60)]), ("", [entry("y", "y" * 300)]), ("done", [])])
    await run(model, Echo(), request(messages=[*earlier, USER]), window=200)
    assert model.cuts[0] == 0
    assert model.cuts == sorted(model.cuts)
    assert model.cuts[-1] == 4, "all but the current turn"
