"""What a client sees of a pod that starts late, dies, or is somewhere else."""

import asyncio
import time

import openai
import pytest
from openai import AsyncOpenAI
from prometheus_client import generate_latest

from tenure_gateway.ids import Key
from unit.gateway.sidecars import Pod
from unit.gateway.world import World, until

SHORT = pytest.mark.parametrize("world", [{"hold_seconds": 0.3}], indirect=True)


async def ask(client: AsyncOpenAI, text: str = "hello") -> str:
    return (await client.responses.create(conversation="shop/mine", input=text)).output_text


async def items(client: AsyncOpenAI) -> list[object]:
    return [item async for item in client.conversations.items.list("shop/mine")]


async def streamed(client: AsyncOpenAI) -> tuple[str, list[str]]:
    """The text that a stream brought, and the kinds of its events."""
    text = ""
    kinds: list[str] = []
    stream = await client.responses.create(conversation="shop/mine", input="hello", stream=True)
    async for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    return text, kinds


async def test_a_request_is_held_until_the_session_is_ready(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine", ready=False)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "held 1.0" in metrics(world))
    world.revive(key)
    assert await asking == "hello"


def metrics(world: World) -> str:
    return generate_latest(world.gateway.metrics.registry).decode()


@SHORT
async def test_a_session_that_does_not_become_ready_is_answered_with_its_reason(
    client: AsyncOpenAI, world: World
) -> None:
    world.cluster.starting(world.session("mine", ready=False), "no node has room")
    with pytest.raises(openai.InternalServerError, match="no node has room") as error:
        await ask(client)
    assert (error.value.status_code, error.value.code) == (503, "session_not_ready")
    assert error.value.response.headers["retry-after"] == "10"
    assert "x-should-retry" not in error.value.response.headers


async def test_a_stalled_session_is_answered_at_once(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine", ready=False)
    conditions = [{"type": "Stalled", "status": "True", "reason": "KeyLost", "message": "restore Secret mine-key"}]
    world.cluster.set_status(key, {"conditions": conditions})
    with pytest.raises(openai.InternalServerError, match="restore Secret mine-key") as error:
        await ask(client)
    assert (error.value.status_code, error.value.code) == (503, "session_stalled")
    assert error.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("trouble", ["before", "after", "restart first"])
async def test_a_pod_that_breaks_before_text_was_passed_on_is_not_seen(
    client: AsyncOpenAI, world: World, trouble: str
) -> None:
    pod = world.pod(world.session("mine"))
    pod.breaks = [trouble]
    assert (await streamed(client))[0] == "hello"
    assert len({request.turn for request in pod.requests}) == 1


@pytest.mark.parametrize("trouble", ["before", "after", "middle", "restart"])
async def test_an_answer_that_is_not_streamed_survives_everything(
    client: AsyncOpenAI, world: World, trouble: str
) -> None:
    pod = world.pod(world.session("mine"))
    pod.breaks = [trouble]
    assert await ask(client) == "hello"
    assert len({request.turn for request in pod.requests}) == 1


@pytest.mark.parametrize("trouble", ["middle", "restart"])
async def test_neither_is_one_that_breaks_after_text_was_passed_on(
    client: AsyncOpenAI, world: World, trouble: str
) -> None:
    pod = world.pod(world.session("mine"))
    world.speech = lambda _: ["one two ", "three"]
    pod.breaks = [trouble]
    async with client.responses.stream(model="shop/helper", conversation="shop/mine", input="hello") as stream:
        final = await stream.get_final_response()
    assert final.output_text == "one two three"
    assert len({request.turn for request in pod.requests}) == 1


async def chunks(client: AsyncOpenAI) -> str:
    """The text that chunks brought."""
    stream = await client.chat.completions.create(
        model="shop/helper",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        extra_headers={"X-Tenure-Session": "shop/mine"},
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_broken_chunks_go_on_where_they_broke(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).breaks = ["middle"]
    assert await chunks(client) == "hello"


async def test_chunks_whose_text_became_void_end_with_an_error(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).breaks = ["restart"]
    with pytest.raises(openai.APIError, match="completes by itself"):
        await chunks(client)


async def test_a_turn_moves_to_the_new_pod_when_the_old_one_is_gone(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    world.kill(key)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "sidecar_retries_total 0.0" not in metrics(world))
    world.cluster.starting(key)
    world.revive(key)
    assert await asking == "hello"


@pytest.mark.parametrize("trouble", ["silent", "mute"])
async def test_a_pod_that_vanished_without_a_word_is_not_waited_for_once_there_is_a_new_one(
    client: AsyncOpenAI, world: World, trouble: str
) -> None:
    key = world.session("mine")
    pod = world.pod(key)
    pod.breaks = [trouble]
    asking = asyncio.create_task(ask(client))
    await until(lambda: pod.subjects)
    world.cluster.starting(key)
    world.revive(key)
    assert await asking == "hello"


async def test_neither_is_one_that_is_asked_for_items(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    pod = world.pod(key)
    pod.deaf = True
    reading = asyncio.create_task(items(client))
    await until(lambda: pod.subjects)
    world.revive(key)
    assert await reading == []


async def test_an_address_that_is_another_sessions_by_now_gives_away_nothing(client: AsyncOpenAI, world: World) -> None:
    mine, other = world.session("mine"), world.session("other", subject="bob")
    stale = world.address(mine)
    stranger = world.sidecars.pods[stale] = Pod("claim-of-other", world.volumes[other], world.speech)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "sidecar_retries_total 0.0" not in metrics(world))
    world.revive(mine)
    assert await asking == "hello"
    assert stranger.requests == []


@SHORT
async def test_a_pod_that_never_answers_is_given_up_and_the_turn_not_sent_twice(
    client: AsyncOpenAI, world: World
) -> None:
    key = world.session("mine")
    world.pod(key).breaks = ["after"] * 1000
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError, match="completes by itself") as error:
        await ask(client)
    assert error.value.code == "session_not_ready"
    assert error.value.response.headers["x-should-retry"] == "false"
    assert time.monotonic() - began >= 0.3
    assert len({request.turn for request in world.pod(key).requests}) == 1


async def test_a_busy_session_is_a_locked_conversation(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).refusals = [(409, "session_busy")]
    with pytest.raises(openai.ConflictError) as error:
        await ask(client)
    assert error.value.code == "conversation_locked"


async def test_a_session_deleted_while_a_request_is_held_is_not_found(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine", ready=False)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "held 1.0" in metrics(world))
    world.cluster.remove("agentsessions", key)
    with pytest.raises(openai.NotFoundError):
        await asking


async def test_a_client_that_goes_away_is_not_waited_for(client: AsyncOpenAI, world: World) -> None:
    world.session("mine", ready=False)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "held 1.0" in metrics(world))
    asking.cancel()
    await until(lambda: "held 0.0" in metrics(world))


async def test_a_session_of_an_agent_that_cannot_start_any_is_not_made(client: AsyncOpenAI, world: World) -> None:
    world.cluster.agent(Key("shop", "broken"), ready=False, message="Secret llm-key not found")
    await until(lambda: world.gateway.directory.agents.get(Key("shop", "broken")))
    with pytest.raises(openai.InternalServerError, match="Secret llm-key not found"):
        await client.responses.create(model="shop/broken", input="a")
    assert world.sessions == {}


@SHORT
@pytest.mark.parametrize("stream", [False, True])
async def test_a_session_whose_id_no_client_has_learnt_is_deleted(
    client: AsyncOpenAI, world: World, stream: bool
) -> None:
    world.cluster.on_create = lambda obj: None
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="shop/helper", input="a", stream=stream)
    await world.gateway.sessions.settle()
    assert world.sessions == {}


async def test_a_session_whose_creation_was_not_answered_is_deleted(client: AsyncOpenAI, world: World) -> None:
    world.cluster.lose_answers = True
    with pytest.raises(openai.InternalServerError):
        await client.conversations.create(metadata={"agent": "shop/helper"})
    await world.gateway.sessions.settle()
    assert world.sessions == {}


async def test_a_session_that_is_being_deleted_is_not_found(client: AsyncOpenAI, world: World) -> None:
    obj = world.sessions[world.session("mine")]
    world.cluster.put("agentsessions", {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "now"}})
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve("shop/mine")


@SHORT
async def test_the_time_in_which_a_pod_had_the_turn_is_not_waiting(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).breaks = ["late"]
    assert await ask(client) == "hello"


async def test_an_empty_answer_is_an_answer(client: AsyncOpenAI, world: World) -> None:
    world.session("mine")
    world.speech = lambda _: []
    text, kinds = await streamed(client)
    assert text == ""
    assert kinds[2:] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_a_session_that_another_replica_has_just_made_is_asked_for(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    table = world.gateway.directory.sessions
    await until(lambda: table.get(key) is not None and table.get(key).address)  # type: ignore[union-attr]
    view = table.get(key)
    assert view is not None
    table._seen = 0  # as if the watch had not come so far
    table.drop(view)
    assert await ask(client) == "hello"
    assert world.cluster.gets == 1
