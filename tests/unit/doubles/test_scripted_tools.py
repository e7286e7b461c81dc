"""The scripted model with tools: programs, refused conversations and holds."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from doubles.scripted_model.app import ScriptedModel
from doubles.scripted_model.serving import serving
from doubles.scripted_model.transcript import InvalidTranscriptError, of_items, of_messages, rounds_of

Json = dict[str, Any]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("look", "touch")
]
FLAT_TOOLS: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
PROGRAM = {
    "rounds": [
        {"say": "Looking. ", "calls": [{"name": "look", "arguments": {"at": "a"}}, {"name": "touch"}]},
        [{"name": "touch", "arguments": {"what": ["{0.1}"]}}, {"name": "look", "arguments": "{no json"}],
    ],
    "final": "First {0.0}, then {1.0}; {7.7}.",
}
ASK: Json = {"role": "user", "content": f"tag:plan plan: {json.dumps(PROGRAM)}"}


def results(entries: list[Any]) -> list[Json]:
    return [{"role": "tool", "tool_call_id": e.id, "content": f"<{e.function.arguments}>"} for e in entries]


class Endpoint:
    """The stand-in, its official client, and its inspection."""

    def __init__(self, model: ScriptedModel, url: str, client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
        self.model = model
        self.url = url
        self.client = client
        self.http = http

    async def chat(self, *messages: Any, tools: Any = TOOLS) -> Any:
        answer = await self.client.chat.completions.create(model="scripted", messages=list(messages), tools=tools)
        return answer.choices[0]

    async def set(self, hold: str) -> None:
        (await self.http.post("/control/hold", params={"name": hold})).raise_for_status()

    async def control(self, path: str, **query: str) -> Any:
        method = "POST" if path in ("release", "reset") else "GET"
        return (await self.http.request(method, f"/control/{path}", params=query)).raise_for_status().json()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    model = ScriptedModel()
    async with (
        serving(model) as url,
        openai.AsyncOpenAI(base_url=url, api_key="k1", max_retries=0) as client,
        httpx.AsyncClient(base_url=url.removesuffix("/v1"), trust_env=False) as http,
    ):
        yield Endpoint(model, url, client, http)


async def test_a_program_is_played_round_by_round(endpoint: Endpoint) -> None:
    first = await endpoint.chat(ASK)
    assert (first.message.content, first.finish_reason) == ("Looking. ", "tool_calls")
    calls = first.message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [("look", '{"at": "a"}'), ("touch", "{}")]
    assert [c.id[:9] for c in calls] == ["call_0_0_", "call_0_1_"]
    messages = [ASK, first.message, *results(calls)]
    second = await endpoint.chat(*messages)
    assert second.message.content is None
    calls = second.message.tool_calls
    assert [c.function.arguments for c in calls] == ['{"what": ["<{}>"]}', "{no json"]
    last = await endpoint.chat(*messages, second.message, *results(calls))
    assert last.message.tool_calls is None
    assert last.message.content == 'First <{"at": "a"}>, then <{"what": ["<{}>"]}>; {7.7}.'
    assert last.finish_reason == "stop"


async def test_the_same_request_gets_the_same_calls_streamed_or_not(endpoint: Endpoint) -> None:
    whole = (await endpoint.chat(ASK)).message
    stream = endpoint.client.chat.completions.stream(model="scripted", messages=[ASK], tools=TOOLS)  # type: ignore[list-item]
    async with stream as events:
        streamed = (await events.get_final_completion()).choices[0].message
    assert streamed.content == whole.content
    more: Any = {"index": True, "function": {"parsed_arguments"}}
    assert [c.model_dump(exclude=more) for c in streamed.tool_calls or ()] == [c.model_dump() for c in whole.tool_calls]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api_plays_the_same_program(endpoint: Endpoint, stream: bool) -> None:
    given: list[Any] = [ASK]
    said = []
    for _ in range(3):
        if stream:
            asking = endpoint.client.responses.stream(model="scripted", input=given, tools=FLAT_TOOLS)
            async with asking as events:
                response: Any = await events.get_final_response()
        else:
            response = await endpoint.client.responses.create(model="scripted", input=given, tools=FLAT_TOOLS)
        said.append(response.output_text)
        calls = [item for item in response.output if item.type == "function_call"]
        given += [{"role": "assistant", "content": response.output_text}] if response.output_text else []
        for call in calls:
            asked = {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
            given.append(asked)
        given += [{"type": "function_call_output", "call_id": c.call_id, "output": f"<{c.arguments}>"} for c in calls]
    assert said == ["Looking. ", "", 'First <{"at": "a"}>, then <{"what": ["<{}>"]}>; {7.7}.']


async def test_a_new_message_of_the_user_begins_a_new_program(endpoint: Endpoint) -> None:
    first = await endpoint.chat(ASK)
    after = [ASK, first.message, *results(first.message.tool_calls), {"role": "assistant", "content": "done"}]
    again = await endpoint.chat(*after, ASK)
    assert again.message.content == "Looking. "


@pytest.mark.parametrize("text", ["plan: {", "plan: 3", 'plan: {"final": 1}', 'plan: [[{"arguments": {}}]]'])
async def test_a_program_that_is_none_is_refused(endpoint: Endpoint, text: str) -> None:
    with pytest.raises(openai.BadRequestError, match="program"):
        await endpoint.chat({"role": "user", "content": text})


async def test_a_function_that_is_not_offered_is_refused_by_name(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="calls touch; the request offers: look"):
        await endpoint.chat(ASK, tools=TOOLS[:1])


def asked(*ids: object) -> Json:
    calls = [{"id": i, "type": "function", "function": {"name": "look", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answered(*ids: str) -> list[Json]:
    return [{"role": "tool", "tool_call_id": i, "content": f"r{i}"} for i in ids]


USER: Json = {"role": "user", "content": "go"}
INVALID = [
    [USER, asked("a")],
    [USER, asked("a"), USER],
    [USER, asked("a", "b"), *answered("b")],
    [USER, *answered("a")],
    [USER, asked("a"), *answered("a", "a")],
    [USER, asked("a"), *answered("a"), *answered("b")],
    [USER, asked("a"), *answered("a"), {"role": "assistant", "content": "x"}, *answered("a")],
    [USER, asked("a", "a"), *answered("a")],
    [USER, asked(""), *answered("")],
    [USER, asked(None)],
]


@pytest.mark.parametrize("messages", INVALID)
async def test_a_conversation_whose_calls_and_results_do_not_fit_is_refused_and_told(
    endpoint: Endpoint, messages: list[Json]
) -> None:
    tagged = {"role": "user", "content": "tag:odd go"}
    messages = [tagged if message is USER else message for message in messages]
    answer = await endpoint.http.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Invalid conversation: ")
    for query in ({}, {"tag": "odd"}):
        told = await endpoint.control("refused", **query)
        assert told["count"] == 1
        assert told["last"][0]["asked"]["messages"] == messages
    assert (await endpoint.control("refused", tag="other"))["count"] == 0
    await endpoint.control("reset")
    assert (await endpoint.control("refused"))["count"] == 0


def flat(messages: list[Json]) -> list[Json]:
    """Messages as items of the Responses API."""
    items: list[Json] = []
    for m in messages:
        if m["role"] == "tool":
            items.append({"type": "function_call_output", "call_id": m["tool_call_id"], "output": m["content"]})
        elif "tool_calls" in m:
            items += [{"type": "function_call", "call_id": c["id"]} for c in m["tool_calls"]]
        else:
            items.append(m)
    return items


@pytest.mark.parametrize("messages", [m for m in INVALID if m[1].get("role") != "tool"])
def test_it_is_refused_in_the_responses_api_too(messages: list[Json]) -> None:
    for entries in (of_messages(messages), of_items(flat(messages))):
        with pytest.raises(InvalidTranscriptError):
            rounds_of(entries)


def test_rounds_are_told_apart_in_both_apis() -> None:
    messages = [
        USER,
        asked("x"),
        *answered("x"),
        USER,
        asked("a", "b"),
        *answered("b", "a"),
        asked("c"),
        *answered("c"),
    ]
    for entries in (of_messages(messages), of_items(flat(messages))):
        assert rounds_of(entries) == [["ra", "rb"], ["rc"]]


HELD: Json = {"role": "user", "content": "tag:held say: a b"}


async def waits(endpoint: Endpoint, name: str, count: int = 1) -> None:
    while (await endpoint.control("hold", name=name))["waiting"] != count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def ended(endpoint: Endpoint) -> str:
    while endpoint.model.calls.report("held")["calls"][-1]["ended"] is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return str(endpoint.model.calls.report("held")["calls"][-1]["ended"])


@pytest.mark.parametrize("name", ["held/0/before", "held/0/after"])
async def test_a_call_waits_at_a_hold_that_is_set_until_it_is_released(endpoint: Endpoint, name: str) -> None:
    await endpoint.set(name)
    asking = asyncio.create_task(endpoint.chat(HELD))
    await waits(endpoint, name)
    await endpoint.control("release", name=name)
    assert (await asking).message.content == "a b"
    assert (await endpoint.chat(HELD)).message.content == "a b"
    assert await endpoint.control("hold", name=name) == {"arrived": 2, "waiting": 0, "set": False}


async def test_each_round_has_holds_of_its_own(endpoint: Endpoint) -> None:
    await endpoint.set("plan/1/before")
    first = (await endpoint.chat(ASK)).message
    asking = asyncio.create_task(endpoint.chat(ASK, first, *results(first.tool_calls)))
    await waits(endpoint, "plan/1/before")
    await endpoint.control("release", name="plan/1/before", drop="true")
    with pytest.raises(openai.APIError):
        await asking


async def test_all_but_the_end_is_said_at_the_hold_before_the_end(endpoint: Endpoint) -> None:
    await endpoint.set("held/0/after")
    messages: Any = [HELD]
    stream = await endpoint.client.chat.completions.create(model="scripted", messages=messages, stream=True)
    said = ""
    async for chunk in stream:
        said += chunk.choices[0].delta.content or ""
        if said == "a b":
            break
    await waits(endpoint, "held/0/after")
    await stream.close()
    assert await ended(endpoint) == "aborted"
    await waits(endpoint, "held/0/after", 0)
