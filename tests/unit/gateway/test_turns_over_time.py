"""Background, cancel, and going on with a stream: what a client does with a turn that takes its time."""

import asyncio
import random

import openai
import pytest
from openai import AsyncOpenAI

from tenure_gateway.ids import Key
from unit.gateway.courses import Used, Void
from unit.gateway.world import World, http, until

MODEL = "shop/helper"
TEXT = ["It was ", "a bright cold day in April, ", "and the clocks ", "were striking ", "thirteen. ", "日本語" * 9]


def telling(world: World) -> Key:
    """A session whose agent tells a story, with calls in between."""
    world.speech = lambda _: [*TEXT[:2], Used("look", output="x\n" * 40), *TEXT[2:5], Used("look"), TEXT[5]]
    return world.session("mine")


async def test_a_background_response_is_answered_at_once_and_asked_for_later(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(telling(world))
    pod.gate = asyncio.Event()
    begun = await client.responses.create(
        model=MODEL, conversation="shop/mine", input="x", background=True, metadata={"for": "me"}, temperature=0.2
    )
    assert (begun.status, begun.background, begun.metadata) == ("in_progress", True, {"for": "me"})
    running = await client.responses.retrieve(begun.id)
    assert running.status == "in_progress"
    pod.gate.set()
    async for event in await client.responses.retrieve(begun.id, stream=True):
        last = event
    assert last.type == "response.completed"
    done = await client.responses.retrieve(begun.id)
    assert done == last.response
    assert (done.output_text, done.metadata, done.temperature) == ("".join(TEXT), {"for": "me"}, 0.2)


async def test_a_streamed_background_response_goes_on_without_its_client(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(telling(world))
    pod.gate = asyncio.Event()
    stream = await client.responses.create(
        model=MODEL, conversation="shop/mine", input="x", background=True, stream=True
    )
    async for event in stream:
        if event.type == "response.created":
            identifier = event.response.id
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    pod.gate.set()
    async with client.responses.stream(response_id=identifier, starting_after=event.sequence_number) as rest:
        final = await rest.get_final_response()
    assert final.output_text == "".join(TEXT)


async def test_a_response_is_cancelled(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(telling(world))
    pod.gate = asyncio.Event()
    begun = await client.responses.create(conversation="shop/mine", input="x", background=True)
    cancelled = await client.responses.cancel(begun.id)
    assert (cancelled.id, cancelled.status) == (begun.id, "cancelled")
    assert await client.responses.cancel(begun.id) == cancelled
    assert (await client.responses.retrieve(begun.id)).status == "cancelled"


async def test_whoever_follows_a_response_sees_that_it_was_cancelled(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(telling(world))
    pod.gate = asyncio.Event()
    stream = await client.responses.create(conversation="shop/mine", input="x", stream=True)
    asking = asyncio.create_task(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "y"}],
            metadata={"conversation": "shop/mine"},
        )
    )
    kinds = []
    async for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            for course in list(world.volumes[Key("shop", "mine")].turns.values()):
                name = f"resp_{b'shop/mine'.hex()}_{course.request.turn}"
                await client.responses.cancel(name)
    assert kinds[-1] == "response.incomplete"
    assert event.type == "response.incomplete"
    assert event.response.status == "cancelled"
    with pytest.raises(openai.ConflictError) as refused:
        await asking
    assert refused.value.code == "turn_cancelled"


async def test_a_response_that_ended_stays_as_it_is_when_it_is_cancelled(client: AsyncOpenAI, world: World) -> None:
    telling(world)
    done = await client.responses.create(conversation="shop/mine", input="x")
    assert await client.responses.cancel(done.id) == done
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel(done.id[:-1] + ("0" if done.id[-1] != "0" else "1"))


async def test_a_stream_is_resumed_for_a_response_that_is_there_only(client: AsyncOpenAI, world: World) -> None:
    telling(world)
    done = await client.responses.create(conversation="shop/mine", input="x")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(done.id[:-1] + ("0" if done.id[-1] != "0" else "1"), stream=True)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.retrieve(done.id, extra_query={"starting_after": 3})
    assert refused.value.param == "starting_after"
    with pytest.raises(openai.BadRequestError):
        await client.responses.retrieve(done.id, stream=True, starting_after=-1)
    with pytest.raises(openai.BadRequestError):
        await client.responses.retrieve(done.id, include=["reasoning.encrypted_content"])


async def bytes_of(world: World, response: str, after: int | None = None, url: str | None = None) -> bytes:
    """A stream, as it is on the wire, of the gateway at `url`."""
    query = f"?stream=true{'' if after is None else f'&starting_after={after}'}"
    async with http() as web:
        answer = await web.get(
            f"{url or world.url}/v1/responses/{response}{query}", headers={"authorization": f"Bearer {world.alice}"}
        )
    return answer.content


def last_number(data: bytes) -> int | None:
    """The number of the last event that is there whole."""
    whole = data.split(b"\n\n")[:-1]
    return int(whole[-1].rpartition(b'"sequence_number":')[2].rstrip(b"}")) if whole else None


async def test_a_stream_that_the_client_cuts_fifty_times_is_the_same_in_the_end(
    client: AsyncOpenAI, world: World
) -> None:
    telling(world)
    done = await client.responses.create(conversation="shop/mine", input="x")
    uncut = await bytes_of(world, done.id)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    for _ in range(5):
        got, after = b"", None
        for _ in range(10):
            rest = await bytes_of(world, done.id, after)
            assert got + rest == uncut, seed
            piece = rest[: dice.randrange(1, 1500)]
            kept = piece[: piece.rfind(b"\n\n") + 2] if b"\n\n" in piece else b""
            got += kept
            number = last_number(kept)
            after = after if number is None else number


async def test_a_stream_whose_pod_breaks_fifty_times_is_the_same_as_one_that_was_never_cut(
    client: AsyncOpenAI, world: World
) -> None:
    key = telling(world)
    done = await client.responses.create(conversation="shop/mine", input="x")
    uncut = await bytes_of(world, done.id)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    pod = world.pod(key)
    for _ in range(10):
        pod.cut = lambda text: [text[:7], text[7:]] if len(text) > 7 else [text] if text else []
        pod.bytes_left = sorted(dice.randrange(1, 3000) for _ in range(5))
        assert await bytes_of(world, done.id) == uncut, seed
        assert pod.bytes_left == []


async def test_a_live_stream_survives_the_death_of_its_pod_and_void_text(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: ["Let me look. ", Used("look"), Void("I think it"), "It is blue.", Used("look"), "Yes."]
    pod = world.pod(world.session("mine"))
    pod.gate = asyncio.Event()
    text: dict[str, str] = {}
    async with client.responses.stream(model=MODEL, conversation="shop/mine", input="x") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                text[event.item_id] = text.get(event.item_id, "") + event.delta
                if not pod.gate.is_set():
                    key = Key("shop", "mine")
                    world.kill(key)
                    world.cluster.starting(key)
                    world.revive(key)
                    pod.gate.set()
        final = await stream.get_final_response()
    assert [text[item.id] for item in final.output if item.type == "message"] == [
        "Let me look. ",
        "It is blue.",
        "Yes.",
    ]


async def test_another_replica_shows_the_same_and_goes_on_where_the_first_one_stopped(
    client: AsyncOpenAI, world: World
) -> None:
    pod = world.pod(telling(world))
    pod.gate = asyncio.Event()
    begun = await client.responses.create(conversation="shop/mine", input="x", background=True)
    async with world.replica() as other:
        reading = [asyncio.create_task(bytes_of(world, begun.id, url=url)) for url in (None, other, other)]
        await until(lambda: len(pod.subjects) >= 4)
        pod.gate.set()
        streams = {await task for task in reading} | {await bytes_of(world, begun.id)}
        assert len(streams) == 1
        uncut = streams.pop()
        head = uncut[: uncut.rfind(b"\n\n", 0, len(uncut) // 2) + 2]
        assert head + await bytes_of(world, begun.id, last_number(head), url=other) == uncut


async def test_two_replicas_see_the_same_while_nobody_decides_and_the_pod_is_gone(
    client: AsyncOpenAI, world: World
) -> None:
    world.speech = lambda _: [Used("buy", ask=True), "Bought."]
    key = world.session("mine")
    waiting = await client.responses.create(conversation="shop/mine", input="x")
    world.kill(key)
    world.cluster.starting(key)
    async with world.replica() as other:
        reading = [asyncio.create_task(bytes_of(world, waiting.id, url=url)) for url in (None, other)]
        await asyncio.sleep(0.05)
        world.revive(key)
        first, second = [await task for task in reading]
    assert first == second
    assert b"approval_required" in first
