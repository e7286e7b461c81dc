"""What makes no sense, or asks for what is not there, is refused with the name of the field and a sentence."""

import asyncio
from typing import Any

import httpx2
import pytest

from tenure_gateway.openai import body as read
from tenure_gateway.openai import chat, conversations, responses
from tenure_gateway.openai.errors import ApiError
from unit.gateway.world import World, http

SAID = {"messages": [{"role": "user", "content": "x"}]}
DEEP = "[" * 5000 + "]" * 5000


def refusal(parse: Any, body: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")
    return caught.value


def response(**fields: Any) -> ApiError:
    return refusal(responses.parse, {"model": "a/b", "input": "x", **fields})


def completion(**fields: Any) -> ApiError:
    return refusal(lambda body: chat.parse(body, None), {"model": "a/b", **SAID, **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("include", ["reasoning.encrypted_content"]),
        ("max_tool_calls", 3),
        ("prompt", {"id": "p"}),
        ("reasoning", {"effort": "high"}),
        ("service_tier", "flex"),
        ("stream_options", {"include_obfuscation": True}),
        ("text", {"format": {"type": "json_object"}}),
        ("text", {"verbosity": "low"}),
        ("tool_choice", "required"),
        ("tools", [{"type": "web_search"}]),
        ("top_logprobs", 2),
        ("truncation", "disabled"),
        ("context_management", [{"type": "compaction"}]),
    ],
)
def test_a_response_refuses_what_it_would_ignore(field: str, value: Any) -> None:
    error = response(**{field: value})
    assert (error.code, error.param) == ("unsupported_parameter", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "x", "format": "wav"}),
        ("frequency_penalty", 0.5),
        ("function_call", {"name": "f"}),
        ("functions", [{}]),
        ("logit_bias", {"1": 2}),
        ("logprobs", True),
        ("modalities", ["text", "audio"]),
        ("n", 2),
        ("prediction", {"type": "content", "content": "x"}),
        ("presence_penalty", 1),
        ("reasoning_effort", "low"),
        ("response_format", {"type": "json_object"}),
        ("seed", 1),
        ("stop", ["x"]),
        ("store", True),
        ("tools", [{"type": "function"}]),
        ("top_logprobs", 1),
        ("verbosity", "low"),
        ("web_search_options", {"a": 1}),
    ],
)
def test_a_completion_refuses_what_it_would_ignore(field: str, value: Any) -> None:
    error = completion(**{field: value})
    assert (error.code, error.param) == ("unsupported_parameter", field)


def test_what_asks_for_nothing_passes() -> None:
    harmless = {name: value for name, rule in responses._WITHOUT_EFFECT.items() for value in rule.harmless}
    nothing = dict.fromkeys(responses._WITHOUT_EFFECT)
    hints = {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}
    for fields in (harmless, nothing, hints, {"store": True, "metadata": None, "conversation": None, "stream": None}):
        assert responses.parse({"model": "a/b", "input": "x", **fields}).model == "a/b"
    harmless = {name: value for name, rule in chat._WITHOUT_EFFECT.items() for value in rule.harmless}
    nothing = dict.fromkeys(chat._WITHOUT_EFFECT)
    for fields in (harmless, nothing, hints, {"n": 1, "tools": [], "stream_options": None}):
        assert chat.parse({"model": "a/b", **SAID, **fields}, None).model == "a/b"


def part(**fields: Any) -> dict[str, Any]:
    """A file in a message."""
    return {"type": "input_file", "filename": "a.txt", "file_data": "YQ==", **fields}


def message(*parts: Any) -> dict[str, Any]:
    """A message of these parts."""
    return {"role": "user", "content": list(parts)}


def file(**fields: Any) -> dict[str, Any]:
    """A request with one file."""
    return {"input": [message(part(**fields))]}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"conversation": "c", "previous_response_id": "r"}, "previous_response_id", "invalid_value"),
        ({"conversation": "c", "store": False}, "store", "unsupported_parameter"),
        ({"conversation": 3}, "conversation", "invalid_type"),
        ({"conversation": {}}, "conversation.id", "invalid_type"),
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": ["x"]}, "input[0]", "invalid_type"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type", "unsupported_parameter"),
        ({"background": True, "store": False}, "background", "unsupported_parameter"),
        ({"background": "yes"}, "background", "invalid_type"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls", "invalid_type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "unsupported_parameter"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "invalid_type"),
        ({"input": [{"role": "user", "content": "x", "name": "Ada"}]}, "input[0].name", "unsupported_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
            "input[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]},
            "input[0].content[0].text",
            "invalid_type",
        ),
        (file(file_id="file-1"), "input[0].content[0].file_id", "unsupported_parameter"),
        (file(filename=None), "input[0].content[0].filename", "invalid_type"),
        (file(filename="a/b"), "input[0].content[0].filename", "invalid_value"),
        (file(filename=".."), "input[0].content[0].filename", "invalid_value"),
        (file(filename="a\nb"), "input[0].content[0].filename", "invalid_value"),
        (file(filename="é" * 128), "input[0].content[0].filename", "invalid_value"),
        (file(file_data=None), "input[0].content[0].file_data", "invalid_type"),
        (file(file_data="data:text/plain,plain"), "input[0].content[0].file_data", "invalid_value"),
        (file(file_data="***"), "input[0].content[0].file_data", "invalid_value"),
        ({"input": [message(part(), part(file_data="eA=="))]}, "input[0].content[1].filename", "invalid_value"),
        ({"input": [message(*(part(filename=f"{n}") for n in range(17)))]}, "input", "invalid_value"),
        ({"instructions": []}, "instructions", "invalid_type"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"max_output_tokens": True}, "max_output_tokens", "invalid_type"),
        ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "invalid_value"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "x")}, "metadata", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": float("inf")}, "top_p", "invalid_value"),
    ],
)
def test_a_wrong_field_of_a_response_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    error = response(**fields)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"model": None}, "model"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 3}, "stream_options"),
        ({"metadata": {"conversation": "c"}, "messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(fields: dict[str, Any], param: str) -> None:
    assert completion(**fields).param == param


def test_a_completion_is_in_one_session_only() -> None:
    body = {"model": "a/b", **SAID, "metadata": {"conversation": "a/x"}}
    assert chat.parse(body, "a/x").conversation == "a/x"
    assert refusal(lambda b: chat.parse(b, "a/y"), body).param == "metadata.conversation"


def test_a_conversation_needs_an_agent_and_says_how_to_name_it() -> None:
    error = refusal(conversations.parse, {"metadata": {"topic": "t"}})
    assert error.param == "metadata.agent"
    assert '"metadata": {"agent": "namespace/name"}' in error.message
    assert refusal(conversations.parse, {"metadata": {"agent": "a/b"}, "items": [{}]}).param == "items"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"order": "up"}, "order"),
        ({"include": "x"}, "include"),
    ],
)
def test_a_wrong_query_of_items_is_named(query: dict[str, str], param: str) -> None:
    assert refusal(conversations.page_query, query).param == param


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"3", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff", DEEP.encode(), b'{"a":1}x']
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read.parse(data)
    assert caught.value.code in ("invalid_json", "invalid_type")


# --- over the wire --------------------------------------------------------------------------------------------------


async def send(world: World, method: str, path: str, **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {world.alice}", **more.pop("headers", {})}
    async with http() as client:
        return await client.request(method, f"{world.url}{path}", headers=headers, **more)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "unknown_url"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/conversations/shop/mine", 405, "method_not_allowed"),
        ("GET", "/v1/models/shop/none", 404, "model_not_found"),
        ("GET", "/v1/responses/resp_x", 404, "response_not_found"),
    ],
)
async def test_other_routes_are_refused_in_the_same_shape(
    world: World, method: str, path: str, status: int, code: str
) -> None:
    answer = await send(world, method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("world", [{"max_body_bytes": 100_000}], indirect=True)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [100_001, 1_500_000])
async def test_a_body_beyond_the_limit_is_refused_and_the_client_hears_it(
    world: World, chunked: bool, size: int
) -> None:
    async def pieces() -> Any:
        for _ in range(0, size, 1000):
            yield b"x" * 1001

    answer = await send(world, "POST", "/v1/responses", content=pieces() if chunked else b"x" * size)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("world", [{"receive_timeout_seconds": 0.05}], indirect=True)
async def test_a_body_that_does_not_come_is_not_waited_for(world: World) -> None:
    async def pieces() -> Any:
        yield b"{"
        await asyncio.sleep(0.3)

    answer = await send(world, "POST", "/v1/responses", content=pieces())
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")


async def test_a_model_other_than_the_sessions_agent_is_refused(world: World) -> None:
    world.session("mine")
    body = {"conversation": "shop/mine", "model": "shop/other", "input": "x"}
    answer = await send(world, "POST", "/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert "shop/helper" in answer.json()["error"]["message"]


async def test_a_bug_is_a_500_that_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret thing")

    monkeypatch.setattr(conversations, "parse", broken)
    answer = await send(world, "POST", "/v1/conversations", json={})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]
