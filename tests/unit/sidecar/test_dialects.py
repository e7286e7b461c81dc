"""Both APIs: a stream is put together to the answer it stands for, and an answer replayed as a stream says the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api.configuration import ModelTarget
from tenure_api.wire import Usage
from tenure_sidecar.errors import GarbageError
from tenure_sidecar.proxy.chat import ChatAssembler, ChatCompletions
from tenure_sidecar.proxy.dialect import Dialect, Json, Progress, StreamError
from tenure_sidecar.proxy.responses import Responses
from tenure_sidecar.sse import Event
from unit.sidecar.support import a_route

CHAT, RESPONSES = ChatCompletions(), Responses()
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def event(**fields: Any) -> Event:
    return Event(b"", json.dumps(fields).encode())


def chunk(delta: Json, finish: str | None = None, index: int = 0, **more: Any) -> Event:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event(id="c1", created=1, model="m", object="chat.completion.chunk", choices=[choice], **more)


def assembled(dialect: Dialect, events: list[Event], request: Json | None = None) -> tuple[Json | None, list[Progress]]:
    assembler = dialect.assembler(request or {})
    progress = [assembler.feed(one) for one in events]
    return assembler.answer(), progress


def test_a_chat_stream_is_put_together() -> None:
    answer, progress = assembled(
        CHAT,
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning_content": "hm"}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo"}),
            chunk({}, "stop"),
            event(id="c1", choices=[], usage=USAGE),
            Event(b"", b"[DONE]"),
        ],
    )
    assert answer == {
        "id": "c1",
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello", "reasoning_content": "hm"},
            }
        ],
    }
    assert progress == [
        Progress.PREAMBLE,
        Progress.TOKEN,
        Progress.TOKEN,
        Progress.TOKEN,
        Progress.FINAL,
        Progress.FINAL,
        Progress.END,
    ]


def test_tool_calls_are_put_together_by_index() -> None:
    def call(index: int, **more: Any) -> Json:
        return {"tool_calls": [{"index": index, **more}]}

    answer, _ = assembled(
        CHAT,
        [
            chunk(call(0, id="a", type="function", function={"name": "f", "arguments": ""})),
            chunk(call(1, id="b", function={"name": "g", "arguments": "{"})),
            chunk(call(0, function={"arguments": '{"x":'})),
            chunk(call(1, function={"arguments": "}"})),
            chunk(call(0, function={"arguments": "1}"})),
            chunk({}, "tool_calls"),
        ],
    )
    assert answer is not None
    assert answer["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_an_answer_is_complete_when_all_choices_are() -> None:
    answer, progress = assembled(
        CHAT, [chunk({"content": "a"}, index=0), chunk({"content": "b"}, "stop", index=1), chunk({}, "stop", index=0)]
    )
    assert progress[1:] == [Progress.TOKEN, Progress.FINAL]
    assert answer is not None
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"null", b'"x"', b"{}", b'{"choices": 1}', b'{"choices": [1]}', b'{"choices": [{"delta": [1]}]}',
     b'{"choices": [{"index": "x"}]}', b'{"choices": [{"delta": {"tool_calls": 1}}]}',
     b'{"choices": [{"delta": {"tool_calls": [1]}}]}'],
)  # fmt: skip
def test_what_is_no_chunk_is_garbage(data: bytes) -> None:
    assembler = CHAT.assembler({})
    with pytest.raises(GarbageError):
        assembler.feed(Event(b"", data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "index", "content", "tool_calls", "function", "finish_reason", "usage",
                         "type", "response", "error", "role", "logprobs"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(json_values, max_size=4))
def test_no_stream_makes_the_assemblers_fail_otherwise(values: list[Any]) -> None:
    for dialect in (CHAT, RESPONSES):
        assembler = dialect.assembler({})
        try:
            for value in values:
                assembler.feed(Event(b"", json.dumps(value).encode()))
        except (GarbageError, StreamError):
            continue
        answer = assembler.answer()
        if answer is not None:
            dialect.usage(answer)
            json.dumps(answer)


def test_an_error_within_the_stream_is_one() -> None:
    with pytest.raises(StreamError):
        CHAT.assembler({}).feed(event(error={"message": "overloaded"}))
    with pytest.raises(StreamError):
        RESPONSES.assembler({}).feed(event(type="response.failed", response={"error": {"message": "no"}}))


WHOLE = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "Hi", "refusal": None}},
        {
            "index": 1,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        },
    ],
    "usage": USAGE,
}


def test_a_replayed_chat_answer_says_the_same() -> None:
    request = {"stream": True, "stream_options": {"include_usage": True}}
    again, progress = assembled(CHAT, list(CHAT.replay(WHOLE, request)), request)
    expected = json.loads(json.dumps(WHOLE))
    del expected["choices"][0]["message"]["refusal"]
    assert again == expected
    assert progress[-1] is Progress.END


def test_usage_is_replayed_only_to_those_who_asked() -> None:
    assert not any(b"prompt_tokens" in one.data for one in CHAT.replay(WHOLE, {"stream": True}))


def test_usage_is_always_asked_for_but_not_always_passed_on() -> None:
    full = CHAT.completed({"stream": True}, a_route(ModelTarget(name="m", base_url="http://h/v1")))
    assert full["stream_options"] == {"include_usage": True}
    usage = event(id="c1", choices=[], usage=USAGE)
    assert not CHAT.assembler({"stream": True}).wanted(usage)
    assert CHAT.assembler({"stream_options": {"include_usage": True}}).wanted(usage)
    assert CHAT.assembler({"stream": True}).wanted(chunk({}, "stop", usage=USAGE))


def test_the_usage_of_an_answer() -> None:
    assert CHAT.usage(WHOLE) == Usage(input_tokens=3, output_tokens=4)
    assert CHAT.usage({"usage": {"prompt_tokens": "many", "completion_tokens": -1}}) == Usage()
    assert RESPONSES.usage({"usage": {"input_tokens": 5, "output_tokens": 6}}) == Usage(input_tokens=5, output_tokens=6)
    assert RESPONSES.usage({}) == Usage()


def test_configured_parameters_fill_only_gaps() -> None:
    route = a_route(ModelTarget(name="m", base_url="http://h/v1")).model_copy(
        update={"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 100}
    )
    assert CHAT.completed({"temperature": 0}, route) == {"temperature": 0, "top_p": 0.9, "max_completion_tokens": 100}
    assert "max_completion_tokens" not in CHAT.completed({"max_tokens": 5}, route)
    assert RESPONSES.completed({"top_p": 1, "store": True}, route) == {
        "temperature": 0.5,
        "top_p": 1,
        "max_output_tokens": 100,
        "store": True,
    }


RESPONSE = {
    "id": "r1",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs", "summary": []},
        {
            "type": "message",
            "id": "m1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2},
}


def test_a_replayed_response_says_the_same() -> None:
    events = list(RESPONSES.replay(RESPONSE, {}))
    again, progress = assembled(RESPONSES, events)
    assert again == RESPONSE
    assert progress[0] is Progress.PREAMBLE
    assert progress[-1] is Progress.FINAL
    texts = [json.loads(one.data)["delta"] for one in events if one.name == b"response.output_text.delta"]
    assert texts == ["Hello"]
    numbers = [json.loads(one.data)["sequence_number"] for one in events]
    assert numbers == list(range(len(events)))


def test_what_is_a_whole_answer() -> None:
    assert CHAT.is_answer(WHOLE)
    assert RESPONSES.is_answer(RESPONSE)
    nothings: list[Any] = [None, [], {}, {"choices": []}, {"choices": [1]}, {"choices": [{}]}, {"output": 1}, "text"]
    for nothing in nothings:
        assert not CHAT.is_answer(nothing)
        assert not RESPONSES.is_answer(nothing)


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}])
def test_parallel_calls_without_an_index_of_their_own_are_told_apart_by_their_ids(index: Json) -> None:
    assembler = ChatAssembler(usage_wanted=False)
    for name in ("a", "b"):
        part = {**index, "id": name, "function": {"name": "f", "arguments": name}}
        choice: Json = {"index": 0, "delta": {"tool_calls": [part]}}
        assembler.feed(Event(b"", json.dumps({"choices": [choice]}).encode()))
    choice = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    assembler.feed(Event(b"", json.dumps({"choices": [choice]}).encode()))
    answer = assembler.answer()
    assert answer is not None
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", "a"), ("b", "b")]
