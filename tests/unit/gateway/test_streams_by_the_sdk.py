"""Streams, parsed by the official client into its typed models, and those validated strictly."""

import asyncio
import json
from collections.abc import Mapping

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseOutputMessage, ResponseStreamEvent
from pydantic import TypeAdapter

from unit.gateway.world import World, http, until

MODEL = "shop/helper"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

WHOLE = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def raw_events(world: World, path: str, body: Mapping[str, object]) -> list[dict[str, object]]:
    """The events of a stream, as they are on the wire."""
    headers = {"authorization": f"Bearer {world.alice}"}
    async with http() as web:
        answer = await web.post(f"{world.url}{path}", json={**body, "stream": True}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def without_repetition(kinds: list[str]) -> list[str]:
    return [kind for n, kind in enumerate(kinds) if n == 0 or kinds[n - 1] != kind]


async def test_a_streamed_response_has_the_documented_events_numbered(world: World) -> None:
    world.session("mine")
    raw = await raw_events(world, "/v1/responses", {"conversation": "shop/mine", "input": "hello"})
    events = [EVENT.validate_python(event) for event in raw]
    assert without_repetition([event.type for event in events]) == WHOLE
    assert [event["sequence_number"] for event in raw] == list(range(len(raw)))


async def test_the_clients_helper_puts_a_streamed_response_together(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input="hello") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == "hello"
    assert final.usage is not None
    retrieved = await client.responses.retrieve(final.id)
    assert isinstance(final.output[0], ResponseOutputMessage)
    assert isinstance(retrieved.output[0], ResponseOutputMessage)
    assert retrieved.output[0].id == final.output[0].id


async def test_a_streamed_response_is_continued_by_its_id(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input="a") as stream:
        first = await stream.get_final_response()
    async with client.responses.stream(model=MODEL, input="b", previous_response_id=first.id) as stream:
        assert (await stream.get_final_response()).output_text == "a | a | b"


async def test_deltas_are_passed_on_as_they_come(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(world.session("mine"))
    pod.gate = asyncio.Event()
    world.speech = lambda _: ["one two ", "three"]
    async with client.responses.stream(model=MODEL, conversation="shop/mine", input="x") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                assert event.delta == "one "
                break
        pod.gate.set()
        assert (await stream.get_final_response()).output_text == "one two three"


async def test_a_failed_turn_ends_its_stream_as_failed(world: World) -> None:
    world.pod(world.session("mine")).breaks = ["fail"]
    raw = await raw_events(world, "/v1/responses", {"conversation": "shop/mine", "input": "hello"})
    last = EVENT.validate_python(raw[-1])
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "model_error: the model said no"


async def test_a_cut_answer_ends_its_stream_as_incomplete(world: World) -> None:
    world.pod(world.session("mine")).breaks = ["cut"]
    raw = await raw_events(world, "/v1/responses", {"conversation": "shop/mine", "input": "hello"})
    assert EVENT.validate_python(raw[-1]).type == "response.incomplete"


async def test_what_is_refused_before_a_stream_begins_is_an_answer_and_no_stream(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="a")
    await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)
    with pytest.raises(openai.BadRequestError, match="branching"):
        await client.responses.create(model=MODEL, input="c", previous_response_id=first.id, stream=True)


async def test_chunks_begin_with_the_role_and_end_with_a_reason_and_the_usage(world: World) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "metadata": {"conversation": "shop/mine"},
        "stream_options": {"include_usage": True},
    }
    world.session("mine")
    chunks = [ChatCompletionChunk.model_validate(raw) for raw in await raw_events(world, "/v1/chat/completions", body)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_streamed_completion_is_put_together_by_the_client_and_leaves_nothing_behind(
    client: AsyncOpenAI, world: World
) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": "hello"}]) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "hello"
    await world.gateway.sessions.settle()
    assert world.sessions == {}


async def test_a_failed_turn_ends_streamed_chunks_with_an_error(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).breaks = ["fail"]
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        metadata={"conversation": "shop/mine"},
    )
    with pytest.raises(openai.APIError, match="the model said no"):
        [chunk async for chunk in stream]


async def test_a_throwaway_session_goes_when_its_client_goes(client: AsyncOpenAI, world: World) -> None:
    gate = asyncio.Event()

    def create(obj: dict[str, object]) -> None:
        world.serve(obj)
        world.pod(next(iter(world.sessions))).gate = gate

    world.cluster.on_create = create
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    async for _ in stream:
        break
    await stream.close()
    await until(lambda: not world.sessions)
    gate.set()
