"""What a client sees of a session that sleeps: as little as can be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from prometheus_client import generate_latest

from tenure_gateway.faults import ClusterRefused, ClusterUnavailable
from tenure_gateway.ids import Key
from unit.gateway.courses import Used
from unit.gateway.test_delegation import call, child_of, parent
from unit.gateway.world import World, http, until

SHORT = pytest.mark.parametrize("world", [{"hold_seconds": 0.3}], indirect=True)
CONTAINER = f"cntr_{b'shop/mine'.hex()}"


def seen(world: World, key: Key, asleep: bool = True) -> bool:
    """Whether the gateway knows that the session sleeps."""
    known = world.gateway.directory.sessions.get(key)
    return known is not None and known.asleep is asleep


async def sleeping(world: World, kept: bool = False) -> Key:
    """A session that sleeps."""
    key = world.session("mine")
    world.sleep(key, kept)
    await until(lambda: seen(world, key))
    return key


async def ask(client: AsyncOpenAI, text: str = "hello") -> str:
    answer = await client.responses.create(conversation="shop/mine", input=text)
    return answer.output_text


async def respond(client: AsyncOpenAI, _: str) -> object:
    return await ask(client)


async def complete(client: AsyncOpenAI, _: str) -> object:
    messages: Any = [{"role": "user", "content": "hello"}]
    return await client.chat.completions.create(
        model="shop/helper", messages=messages, extra_headers={"X-Tenure-Session": "shop/mine"}
    )


async def stream(client: AsyncOpenAI, _: str) -> object:
    return [e async for e in await client.responses.create(conversation="shop/mine", input="hello", stream=True)]


async def in_the_background(client: AsyncOpenAI, _: str) -> object:
    return await client.responses.create(conversation="shop/mine", input="hello", background=True)


async def retrieve(client: AsyncOpenAI, earlier: str) -> object:
    return await client.responses.retrieve(earlier)


async def retrieve_events(client: AsyncOpenAI, earlier: str) -> object:
    return [event async for event in await client.responses.retrieve(earlier, stream=True)]


async def cancel(client: AsyncOpenAI, earlier: str) -> object:
    return await client.responses.cancel(earlier)


async def list_items(client: AsyncOpenAI, _: str) -> object:
    return [item async for item in client.conversations.items.list("shop/mine")]


async def list_files(client: AsyncOpenAI, _: str) -> object:
    return [file async for file in client.containers.files.list(CONTAINER)]


async def upload(client: AsyncOpenAI, _: str) -> object:
    return await client.containers.files.create(CONTAINER, file=("b.bin", b"b" * 300_000))


async def download(client: AsyncOpenAI, _: str) -> object:
    return (await client.containers.files.content.retrieve(file_id("a.txt"), container_id=CONTAINER)).content


async def delete_file(client: AsyncOpenAI, _: str) -> object:
    await client.containers.files.delete(file_id("a.txt"), container_id=CONTAINER)
    return "deleted"


def file_id(path: str) -> str:
    return f"cfile_{path.encode().hex()}"


NEED_A_POD: list[Callable[[AsyncOpenAI, str], Awaitable[object]]] = [
    respond,
    complete,
    stream,
    in_the_background,
    retrieve,
    retrieve_events,
    cancel,
    list_items,
    list_files,
    upload,
    download,
    delete_file,
]


async def used(client: AsyncOpenAI, world: World) -> tuple[Key, str]:
    """A session with a response and a file."""
    key = world.session("mine")
    earlier = await client.responses.create(conversation="shop/mine", input="earlier")
    world.volumes[key].files["a.txt"] = b"a"
    return key, earlier.id


@pytest.mark.parametrize("request_", NEED_A_POD)
async def test_whatever_needs_the_pod_wakes_the_session_and_is_answered(
    client: AsyncOpenAI, world: World, request_: Callable[[AsyncOpenAI, str], Awaitable[object]]
) -> None:
    key, earlier = await used(client, world)
    world.sleep(key)
    await until(lambda: seen(world, key))
    assert await request_(client, earlier)
    assert world.cluster.wakes == [(key, 1)]


@pytest.mark.parametrize("request_", NEED_A_POD)
async def test_what_comes_while_the_session_falls_asleep_is_answered_after_it_has_woken(
    client: AsyncOpenAI, world: World, request_: Callable[[AsyncOpenAI, str], Awaitable[object]]
) -> None:
    key, earlier = await used(client, world)
    pod = world.pod(key)
    pod.draining = True
    asking = asyncio.ensure_future(request_(client, earlier))
    await until(lambda: asking.done() or "retries_total 0.0" not in metrics(world))
    if not asking.done():  # as reads are, which change nothing
        world.sleep(key)
    assert await asking
    assert pod.requests[1:] == []


def metrics(world: World) -> str:
    return generate_latest(world.gateway.metrics.registry).decode()


async def test_a_decision_wakes_the_session_and_the_turn_goes_on(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: [Used("buy", ask=True), "bought"]
    key = world.session("mine")
    waiting = await client.responses.create(conversation="shop/mine", input="buy")
    world.sleep(key)
    await until(lambda: seen(world, key))
    decision: Any = [
        {"type": "mcp_approval_response", "approval_request_id": waiting.output[0].id, "approve": True},
    ]
    done = await client.responses.create(previous_response_id=waiting.id, input=decision)
    assert done.output_text == "bought"
    assert world.cluster.wakes == [(key, 1)]


async def test_what_needs_no_pod_wakes_nothing(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world)
    assert (await client.conversations.retrieve("shop/mine")).id
    assert (await client.containers.retrieve(CONTAINER)).id == CONTAINER
    assert [model.id async for model in client.models.list()] == ["shop/helper"]
    assert world.cluster.wakes == []
    await client.conversations.delete("shop/mine")
    assert world.cluster.wakes == []
    assert key not in world.sessions


async def test_many_requests_at_once_wake_it_once(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world)
    world.cluster.on_wake = lambda _: None
    asking = [asyncio.create_task(ask(client, "hello")) for _ in range(8)]
    await until(lambda: "held 8.0" in metrics(world))
    assert world.cluster.wakes == [(key, 1)]
    world.revive(key)
    assert len(await asyncio.gather(*asking)) == 8
    assert 'tenure_gateway_wakes_total{outcome="written"} 1.0' in metrics(world)
    assert "tenure_gateway_wake_seconds_count 8.0" in metrics(world)


async def test_two_gateways_wake_it_once(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world)
    world.cluster.on_wake = lambda _: None
    async with world.replica() as url:
        other = AsyncOpenAI(base_url=f"{url}/v1", api_key=world.alice, max_retries=0, http_client=http())
        async with other:
            asking = [asyncio.create_task(ask(who)) for who in (client, other) for _ in range(3)]
            await until(lambda: world.cluster.wakes)
            await asyncio.sleep(0.05)
            world.revive(key)
            await asyncio.gather(*asking)
    assert world.cluster.wakes == [(key, 1)]


async def test_one_that_falls_asleep_again_before_the_request_came_through_is_woken_again(
    client: AsyncOpenAI, world: World
) -> None:
    key = await sleeping(world)

    def drowsy(key: Key) -> None:
        pod = world.revive(key)
        if len(world.cluster.wakes) < 3:
            pod.draining = True
            asyncio.get_running_loop().call_later(0.05, world.sleep, key)

    world.cluster.on_wake = drowsy
    assert await ask(client) == "hello"
    assert world.cluster.wakes == [(key, 1), (key, 2), (key, 3)]


async def test_a_pod_that_is_gone_before_the_status_says_so_is_only_a_wait(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    world.kill(key)
    asking = asyncio.create_task(ask(client))
    await until(lambda: "sidecar_retries_total 0.0" not in metrics(world))
    world.cluster.asleep(key)
    assert await asking == "hello"
    assert world.cluster.wakes == [(key, 1)]


async def test_a_call_that_hangs_in_a_pod_that_is_gone_ends_when_the_session_sleeps(
    client: AsyncOpenAI, world: World
) -> None:
    key = world.session("mine")
    pod = world.pod(key)
    pod.deaf = True
    reading = asyncio.create_task(list_items(client, ""))
    await until(lambda: pod.subjects)
    world.sleep(key)
    assert await reading == []


@pytest.mark.parametrize("request_", [list_items, respond])
async def test_neither_calls_nor_the_watch_mind_that_much_happens_at_once(
    client: AsyncOpenAI, world: World, request_: Callable[[AsyncOpenAI, str], Awaitable[object]]
) -> None:
    key = world.session("mine")
    pod = world.pod(key)
    pod.deaf, pod.breaks = True, ["silent"]
    asking = asyncio.ensure_future(request_(client, ""))
    await until(lambda: pod.subjects)
    for _ in range(3):
        world.sleep(key)
        world.revive(key)
    await asking
    world.sleep(key)
    assert await ask(client)


async def test_a_call_that_hangs_in_a_pod_of_an_older_generation_ends_at_the_same_address(
    client: AsyncOpenAI, world: World
) -> None:
    key = world.session("mine")
    pod, address = world.pod(key), world.address(key)
    pod.deaf = True
    reading = asyncio.create_task(list_items(client, ""))
    await until(lambda: pod.subjects)
    world.revive(key, address)
    assert await reading == []


async def test_a_pod_that_goes_on_after_all_answers(client: AsyncOpenAI, world: World) -> None:
    pod = world.pod(world.session("mine"))
    pod.draining = True
    asking = asyncio.create_task(ask(client))
    await until(lambda: "sidecar_retries_total 0.0" not in metrics(world))
    pod.draining = False
    assert await asking == "hello"
    assert world.cluster.wakes == []


@SHORT
async def test_a_request_that_was_never_taken_may_be_repeated_by_the_client(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).draining = True
    with pytest.raises(openai.InternalServerError, match="about to fall asleep") as error:
        await ask(client)
    assert error.value.code == "session_not_ready"
    assert "x-should-retry" not in error.value.response.headers


async def test_an_api_server_that_is_away_for_a_moment_delays_the_wake(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world)
    world.cluster.wake_troubles = [ClusterUnavailable("etcd")] * 3
    assert await ask(client) == "hello"
    assert world.cluster.wakes == [(key, 1)]


async def test_a_wake_that_is_refused_is_told(client: AsyncOpenAI, world: World) -> None:
    await sleeping(world)
    world.cluster.wake_troubles = [ClusterRefused("The session sleeps and cannot be woken: forbidden.")]
    with pytest.raises(openai.InternalServerError, match="cannot be woken: forbidden") as error:
        await ask(client)
    assert (error.value.status_code, error.value.code) == (503, "session_refused")
    assert error.value.response.headers["x-should-retry"] == "false"


@SHORT
async def test_one_that_does_not_wake_is_answered_as_one_that_does_not_start(client: AsyncOpenAI, world: World) -> None:
    await sleeping(world)
    world.cluster.on_wake = lambda _: None
    with pytest.raises(openai.InternalServerError, match="has not woken in time") as error:
        await ask(client)
    assert error.value.code == "session_not_ready"


# --- those that are kept asleep ------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", NEED_A_POD)
async def test_one_that_is_kept_asleep_is_not_woken_by_its_own_subject(
    client: AsyncOpenAI, world: World, request_: Callable[[AsyncOpenAI, str], Awaitable[object]]
) -> None:
    key, earlier = await used(client, world)
    world.sleep(key, kept=True)
    await until(lambda: seen(world, key))
    with pytest.raises(openai.ConflictError, match="kubectl tenure wake mine -n shop") as refused:
        await request_(client, earlier)
    assert refused.value.code == "session_hibernated"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert world.cluster.wakes == []
    assert (await client.conversations.retrieve("shop/mine")).id


async def test_whom_rbac_lets_wake_it_wakes_it_and_then_it_answers_all(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world, kept=True)
    support = world.cluster.user("support")
    world.cluster.grants.add(("support", "agentsessions", "shop", "mine"))
    async with world.client(support) as other:
        with pytest.raises(openai.ConflictError):
            await ask(other)
        world.cluster.wakers.add(("support", "mine"))
        assert await ask(other, "a") == "a"
        assert world.cluster.wakes == [(key, 1)]
        assert await ask(client, "b") == "a | a | b"
    assert world.cluster.wakes == [(key, 1)]


async def test_who_comes_while_it_is_being_woken_waits_with_who_woke_it(client: AsyncOpenAI, world: World) -> None:
    key = await sleeping(world, kept=True)
    world.cluster.on_wake = lambda _: None
    world.cluster.wakers.add(("support", "mine"))
    world.cluster.grants.add(("support", "agentsessions", "shop", "mine"))
    async with world.client(world.cluster.user("support")) as support:
        waking = asyncio.create_task(ask(support))
        await until(lambda: world.cluster.wakes)
        asking = asyncio.create_task(ask(client))
        await until(lambda: "held 2.0" in metrics(world))
        world.revive(key)
        await asyncio.gather(waking, asking)


async def test_a_wake_by_who_may_not_use_the_session_is_not_found(world: World) -> None:
    key = await sleeping(world, kept=True)
    world.cluster.wakers.add(("stranger", "mine"))
    async with world.client(world.cluster.user("stranger")) as stranger:
        with pytest.raises(openai.NotFoundError):
            await ask(stranger)
    assert world.cluster.wakes == []
    assert seen(world, key)


async def test_a_sub_agents_session_is_woken_by_the_right_of_its_subject(world: World) -> None:
    _, pod = await parent(world)
    async with pod:
        made = await pod.responses.create(**call())
        child = Key("shop", child_of(world, made)["metadata"]["name"])
        world.sleep(child)
        await until(lambda: seen(world, child))
        assert await pod.responses.retrieve(made.id) == made
        world.sleep(child, kept=True)
        await until(lambda: seen(world, child))
        for request in (pod.responses.retrieve(made.id), pod.responses.create(**call())):
            with pytest.raises(openai.ConflictError) as refused:
                await request
            assert refused.value.code == "session_hibernated"
        world.cluster.wakers.add(("alice", child.name))
        assert await pod.responses.retrieve(made.id) == made
    assert world.cluster.wakes == [(child, 1), (child, 2)]
