import json
from typing import Any

import pytest

from tenure_runtime import responses
from tenure_runtime.errors import BadRequestError, ModelError

CHAT = {"model": "helper", "messages": [{"role": "user", "content": "hi"}]}


def answered(status: str = "completed", **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "hello"}, {"type": "refusal", "refusal": "!"}]
    return {
        "id": "resp_1",
        "created_at": 7.0,
        "model": "big",
        "status": status,
        "output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": content}],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        **fields,
    }


def test_messages_become_input_items_and_nothing_is_stored() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "hello"},
    ]
    assert responses.request({**CHAT, "messages": messages, "stream": True, "stream_options": {}}) == {
        "model": "helper",
        "stream": True,
        "input": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
        ],
        "store": False,
    }


def test_parameters_are_carried_over() -> None:
    body = responses.request({**CHAT, "temperature": 0, "top_p": 0.5, "max_completion_tokens": 9})
    assert (body["temperature"], body["top_p"], body["max_output_tokens"]) == (0, 0.5, 9)
    assert responses.request({**CHAT, "max_tokens": 8})["max_output_tokens"] == 8


def test_what_cannot_be_translated_is_refused_and_named() -> None:
    with pytest.raises(BadRequestError) as refused:
        responses.request({**CHAT, "seed": 1})
    assert refused.value.error["param"] == "seed"
    with pytest.raises(BadRequestError):
        responses.request({**CHAT, "tools": [{"type": "custom", "custom": {"name": "shell"}}]})
    for message in (
        {"role": "function", "content": "x"},
        {"role": "user", "content": [{"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "custom": {}}]},
    ):
        with pytest.raises(BadRequestError):
            responses.request({**CHAT, "messages": [message]})


def test_tools_and_calls_and_their_results_become_what_the_responses_api_has_for_them() -> None:
    parameters = {"type": "object", "properties": {}}
    described = {"name": "look", "description": "Looks.", "parameters": parameters}
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": f'{{"n": {n}}}'}}
        for n in range(2)
    ]
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "call_0", "content": "seen"},
        {"role": "assistant", "content": None, "tool_calls": calls[1:]},
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
    ]
    chat = {"model": "helper", "messages": messages, "tools": [{"type": "function", "function": described}]}
    body = responses.request({**chat, "parallel_tool_calls": False})
    assert body["tools"] == [{"type": "function", "strict": False, **described}]
    assert body["parallel_tool_calls"] is False
    assert body["input"] == [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": '{"n": 0}'},
        {"type": "function_call_output", "call_id": "call_0", "output": "seen"},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"n": 1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": ""},
    ]


def test_a_tool_that_is_strict_stays_strict() -> None:
    tool = {"type": "function", "function": {"name": "look", "strict": True}}
    assert responses.request({**CHAT, "tools": [tool]})["tools"][0]["strict"] is True


CALLED: dict[str, Any] = {
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "touch", "arguments": '{"x": 1}'},
    ]
}
ENTRIES = [
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    {"index": 1, "id": "call_2", "type": "function", "function": {"name": "touch", "arguments": '{"x": 1}'}},
]


def test_function_calls_become_tool_calls() -> None:
    choice = responses.completion(answered(**CALLED))["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "I look.", "tool_calls": ENTRIES}
    assert choice["finish_reason"] == "tool_calls"


def test_function_calls_of_a_stream_become_tool_calls() -> None:
    arguments = {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"}
    completed = {"type": "response.completed", "response": answered(**CALLED)}
    last = [c["choices"][0] for c in chunks(CREATED, delta("I look."), arguments, completed) if c["choices"]][-1]
    assert last["delta"] == {"tool_calls": ENTRIES}
    assert last["finish_reason"] == "tool_calls"


def test_an_answer_becomes_a_chat_completion() -> None:
    completion = responses.completion(answered())
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "hello!"}
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert (completion["object"], completion["created"], completion["model"]) == ("chat.completion", 7, "big")


def test_an_answer_cut_by_the_limit_says_so() -> None:
    cut = answered("incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert responses.completion(cut)["choices"][0]["finish_reason"] == "length"


def test_a_failed_answer_is_an_error_with_the_status_that_fits_its_code() -> None:
    for code, status in (("rate_limit_exceeded", 429), ("context_length_exceeded", 400), ("server_error", 502)):
        with pytest.raises(ModelError) as failed:
            responses.completion(answered("failed", error={"code": code, "message": "no"}))
        assert failed.value.status == status
        assert failed.value.error["code"] == code


def chunks(*events: object) -> list[dict[str, Any]]:
    translation = responses.Translation()
    found = [chunk for event in events for chunk in translation.chunks(event)]
    translation.finish()
    return found


CREATED = {"type": "response.created", "response": {"id": "resp_1", "created_at": 7, "model": "big"}}
COMPLETED = {"type": "response.completed", "response": answered()}


def delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


def test_events_become_chunks_with_the_usage_last() -> None:
    found = chunks(CREATED, delta("hel"), {"type": "response.unheard.of"}, delta("lo"), COMPLETED)
    assert [c["choices"][0]["delta"] for c in found if c["choices"]] == [
        {"role": "assistant", "content": ""},
        {"content": "hel"},
        {"content": "lo"},
        {},
    ]
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["usage"]["total_tokens"] == 5
    assert {c["id"] for c in found} == {"chatcmpl-resp_1"}
    json.dumps(found)


def test_nothing_is_said_before_the_first_text() -> None:
    translation = responses.Translation()
    assert list(translation.chunks(CREATED)) == []
    with pytest.raises(ModelError) as failed:
        list(translation.chunks({"type": "error", "code": "context_length_exceeded", "message": "too long"}))
    assert failed.value.too_long


def test_a_stream_that_ends_early_is_an_error() -> None:
    with pytest.raises(ModelError):
        chunks(CREATED, delta("hel"))


def test_an_event_that_is_no_object_is_an_error() -> None:
    with pytest.raises(ModelError):
        chunks([1, 2])
