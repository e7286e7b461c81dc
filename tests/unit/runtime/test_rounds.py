"""One answer of the model is the same however it was cut into chunks, and whether it is spoken or replayed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_runtime.errors import ModelError
from tenure_runtime.rounds import Completion, Round, as_chunk
from tenure_sidecar.proxy.chat import ChatAssembler, ChatCompletions
from tenure_sidecar.sse import Event

Json = dict[str, Any]
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "big"}

IDS = st.text("abc_1", min_size=1, max_size=6)
ENTRIES = st.fixed_dictionaries(
    {
        "id": IDS,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(max_size=8), "arguments": st.text(max_size=30)}),
    },
    optional={"extra_content": st.fixed_dictionaries({"signature": st.text(max_size=5)})},
)


def chunk(delta: object, reason: str | None = None, **more: Any) -> Json:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def called(*entries: Json) -> Json:
    return chunk({"tool_calls": list(entries)})


def entry(call_id: str | None, arguments: str = "{}", name: str = "look", **more: Any) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def taken(*chunks: object, number: int = 0) -> Round:
    answer = Round(number)
    for one in chunks:
        answer.take(one)
    return answer


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[Json], list[Json]]:
    """Text and calls, and chunks that say them: the text in pieces, each call in pieces, and all of it mixed."""
    text: str = draw(st.text(max_size=20))
    entries: list[Json] = draw(st.lists(ENTRIES, max_size=4, unique_by=lambda e: e["id"]))
    queues: list[list[Json]] = [[chunk({"content": piece}) for piece in draw(pieces(text))]]
    for index, whole in enumerate(entries):
        head = {**whole, "index": index, "function": {**whole["function"], "arguments": ""}}
        parts = [{"index": index, "function": {"arguments": a}} for a in draw(pieces(whole["function"]["arguments"]))]
        queues.append([called(part) for part in [head, *parts]])
    found = [chunk({"role": "assistant", "content": draw(st.sampled_from(["", None]))})]
    while queues := [queue for queue in queues if queue]:
        found.append(draw(st.sampled_from(queues)).pop(0))
    found.append(chunk({}, draw(st.sampled_from(["tool_calls", "stop"]))))
    return text, entries, found


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@given(streams())
def test_chunks_come_together_to_what_the_model_sent(stream: tuple[str, list[Json], list[Json]]) -> None:
    text, entries, chunks = stream
    answer = taken(*chunks)
    assert answer.message() == {"role": "assistant", "content": text or None, "tool_calls": entries}
    assert [call.id for call in answer.calls()] == [e["id"] for e in entries]
    assert [call.arguments for call in answer.calls()] == [e["function"]["arguments"] for e in entries]


@given(streams())
def test_an_answer_replayed_from_the_sidecars_record_is_the_same(stream: tuple[str, list[Json], list[Json]]) -> None:
    _, _, chunks = stream
    assembler = ChatAssembler(usage_wanted=False)
    for one in chunks:
        assembler.feed(Event(b"", json.dumps(one).encode()))
    whole = assembler.answer()
    assert whole is not None
    replayed = [event.data for event in ChatCompletions().replay(whole, {})]
    again = taken(*(json.loads(data) for data in replayed if data != b"[DONE]"))
    assert json.dumps(again.message()) == json.dumps(taken(*chunks).message())
    assert json.dumps(taken(as_chunk(whole)).message()) == json.dumps(again.message())


def test_thoughts_go_back_to_the_model_that_had_them() -> None:
    answer = taken(chunk({"reasoning_content": "I should "}), chunk({"reasoning_content": "look."}), called(entry("a")))
    assert answer.message()["reasoning_content"] == "I should look."


@pytest.mark.parametrize(
    "chunks",
    [
        [called({"index": 0, **entry("a")}), called({"index": 0, **entry("b")})],
        [called(entry("a"), entry("b"))],
        [called({**entry("a"), "index": None}), called({**entry("b"), "index": None})],
        [called(entry("a", "{")), called({"function": {"arguments": "}"}}), called(entry("b"))],
        [called({"index": 1, **entry("b")}), called({"index": 0, **entry("a")})],
    ],
    ids=["the same index", "no index", "null as index", "no index, in parts", "the second first"],
)
def test_calls_are_told_apart_however_the_endpoint_numbers_them(chunks: list[Json]) -> None:
    assert taken(*chunks).message()["tool_calls"] == [entry("a"), entry("b")]


def test_calls_get_an_id_of_their_own_where_the_model_gives_none() -> None:
    answer = taken(
        called({"index": 0, **entry(None)}, {"index": 1, **entry("")}, {"index": 2, **entry("a")}, {"index": 3}),
        number=5,
    )
    assert [call.id for call in answer.calls()] == ["call_5_0", "call_5_1", "a", "call_5_3"]
    assert [e["id"] for e in answer.message()["tool_calls"]] == ["call_5_0", "call_5_1", "a", "call_5_3"]
    whole = {"choices": [{"message": {"tool_calls": [entry("a")] * 3}}]}
    assert [call.id for call in taken(as_chunk(whole)).calls()] == ["a", "a_", "a__"]


@pytest.mark.parametrize("calls", [None, [], "none"])
def test_no_calls_can_be_said_in_several_ways(calls: object) -> None:
    assert taken(chunk({"content": "hi", "tool_calls": calls}, "tool_calls")).calls() == []


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_calls_of_an_answer_that_was_cut_short_are_not_made(reason: str) -> None:
    assert taken(called(entry("a")), chunk({}, reason)).calls() == []
    assert len(taken(called(entry("a")), chunk({}, "stop")).calls()) == 1


def test_only_the_first_choice_counts() -> None:
    second = {"index": 1, "delta": {"content": "two", "tool_calls": [entry("b")]}, "finish_reason": "length"}
    answer = taken({**HEAD, "choices": [second]}, {**HEAD, "choices": [second, *chunk({"content": "one"})["choices"]]})
    assert answer.message() == {"role": "assistant", "content": "one", "tool_calls": []}
    assert answer.finish_reason is None


@pytest.mark.parametrize("odd", [[], 1, "x", called("x")])  # type: ignore[arg-type]
def test_what_is_no_chunk_is_an_error(odd: object) -> None:
    with pytest.raises(ModelError):
        taken(odd)


@pytest.mark.parametrize("odd", [{}, {"choices": None}, {"choices": [1]}, {"choices": [{"delta": []}]}])
def test_chunks_that_say_nothing_are_passed_over(odd: Json) -> None:
    assert taken(odd, chunk({"content": "hi"})).message()["content"] == "hi"


def test_halves_of_characters_are_joined_and_lone_ones_replaced() -> None:
    answer = taken(chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}), called(entry("a", '"\ud83d"')))
    assert answer.message()["content"] == "😀"
    assert answer.calls()[0].arguments == '"\ufffd"'


def test_usage_is_summed_with_its_details() -> None:
    completion = Completion()
    completion.add(chunk({"content": "x"}))
    completion.count({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}, "note": "a"})
    completion.count(None)
    completion.count({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": None}})
    assert completion.last_chunks("stop", usage_wanted=True)[-1]["usage"] == {
        "prompt_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None},
        "note": "a",
    }
    assert len(completion.last_chunks("stop", usage_wanted=False)) == 1
