"""The same request twice, known by its Idempotency-Key, is one turn."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tenure_gateway.ids import Key, repeatable
from unit.gateway.world import World, http

MODEL = "shop/helper"
ONCE = {"Idempotency-Key": "order-7"}


async def test_a_repeated_request_gets_the_same_response(client: AsyncOpenAI, world: World) -> None:
    first = await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    assert await client.responses.create(model=MODEL, input="a", extra_headers=ONCE) == first
    (key,) = world.sessions
    assert len(world.volumes[key].turns) == 1
    other = await client.responses.create(model=MODEL, input="a", extra_headers={"Idempotency-Key": "order-8"})
    assert other.id != first.id


async def test_it_may_ask_for_a_stream_the_second_time(client: AsyncOpenAI, world: World) -> None:
    first = await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    async with client.responses.stream(model=MODEL, input="a", extra_headers=ONCE) as stream:
        assert (await stream.get_final_response()).id == first.id
    assert len(world.sessions) == 1


async def test_it_works_within_a_conversation(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    answers = [await client.responses.create(conversation="shop/mine", input="a", extra_headers=ONCE) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(world.volumes[key].turns) == 1


async def test_a_repeated_completion_is_the_same_though_its_session_is_a_throwaway_one(
    client: AsyncOpenAI, world: World
) -> None:
    said: Any = [{"role": "user", "content": "a"}]
    answers = [await client.chat.completions.create(model=MODEL, messages=said, extra_headers=ONCE) for _ in range(2)]
    assert answers[0].id == answers[1].id
    (key,) = world.sessions
    assert "expiresAt" in world.sessions[key]["spec"]
    assert len(world.volumes[key].turns) == 1


async def test_a_key_with_other_content_is_refused(client: AsyncOpenAI) -> None:
    await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    with pytest.raises(openai.ConflictError) as refused:
        await client.responses.create(model=MODEL, input="b", extra_headers=ONCE)
    assert refused.value.code == "idempotency_key_reused"
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_a_key_with_another_agent_is_refused(client: AsyncOpenAI, world: World) -> None:
    world.cluster.agent(Key("shop", "other"))
    await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    with pytest.raises(openai.ConflictError) as refused:
        await client.responses.create(model="shop/other", input="a", extra_headers=ONCE)
    assert refused.value.code == "idempotency_key_reused"


async def test_keys_of_two_callers_are_two(client: AsyncOpenAI, world: World) -> None:
    bob = world.cluster.user("bob", namespaces=("shop",))
    first = await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    async with world.client(bob) as his:
        second = await his.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    assert first.id != second.id
    assert len(world.sessions) == 2


async def test_a_session_of_that_name_that_is_somebody_elses_is_not_used(client: AsyncOpenAI, world: World) -> None:
    world.session(repeatable("alice", "order-7").session, subject="mallory")
    with pytest.raises(openai.ConflictError) as refused:
        await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
    assert refused.value.code == "idempotency_key_reused"


async def test_a_repetition_finds_a_session_whose_creation_was_not_answered(world: World) -> None:
    world.cluster.lose_answers = True
    async with world.client(world.alice) as client:
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)
        world.cluster.lose_answers = False
        (key,) = world.sessions
        world.revive(key)
        assert (await client.responses.create(model=MODEL, input="a", extra_headers=ONCE)).output_text == "a"
    assert len(world.sessions) == 1


@pytest.mark.parametrize("key", [b"x" * 256, b"a\tb", "é".encode()])
async def test_a_key_that_is_none_is_refused(world: World, key: bytes) -> None:
    headers = [(b"authorization", f"Bearer {world.alice}".encode()), (b"idempotency-key", key)]
    async with http() as web:
        answer = await web.post(f"{world.url}/v1/responses", json={"model": MODEL, "input": "a"}, headers=headers)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["error"]["message"]


def test_names_are_those_of_one_caller_and_one_key() -> None:
    names = {repeatable(*of) for of in [("a", "bc"), ("ab", "c"), ("1:a", "b"), ("1", ":ab")]}
    assert len(names) == 4
    for turn, session in names:
        assert len(turn) == 32
        assert len(session) <= 52
        assert session == session.lower()
