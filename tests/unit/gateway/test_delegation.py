"""A session's own pod may call the agents that its agent has as tools, and nothing else."""

import dataclasses
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tenure_api.names import CALL_ANNOTATION, PARENT_LABEL
from tenure_gateway import sessions
from tenure_gateway.ids import Key, conversation_id, parse_response
from unit.gateway.courses import Used
from unit.gateway.world import World, until

TURN = "ab" * 16
WRITER = Key("shop", "writer")


def call(step: int = 3, **more: Any) -> dict[str, Any]:
    """What a sidecar sends for a call."""
    metadata = {"tenure.turn": TURN, "tenure.step": str(step), "tenure.lifetime": "600"}
    headers = {"Idempotency-Key": f"key-of-step-{step}"}
    return {"model": "shop/writer", "input": "write", "metadata": metadata, "extra_headers": headers, **more}


def pod_of(world: World, session: Key) -> str | None:
    """The session's pod, as far as the gateway knows."""
    known = world.gateway.directory.sessions.get(session)
    return None if known is None else known.pod


async def parent(world: World, name: str = "mine") -> tuple[Key, AsyncOpenAI]:
    """A session of alice's whose agent has another as a tool, and the client in its pod."""
    world.cluster.agent(Key("shop", "helper"), calls=("writer",))
    world.cluster.agent(WRITER, calls=("helper",))
    key = world.session(name)
    await until(lambda: world.gateway.directory.agents.get(WRITER))
    await until(lambda: pod_of(world, key))
    return key, world.client(world.cluster.pod(key))


def child_of(world: World, response: Any) -> dict[str, Any]:
    parsed = parse_response(response.id)
    assert parsed is not None
    return world.sessions[parsed[0]]


async def test_a_call_makes_a_session_of_its_own_in_the_name_of_the_same_subject(world: World) -> None:
    _, pod = await parent(world)
    async with pod:
        response = await pod.responses.create(**call())
        assert response.output_text == "write"
        assert await pod.responses.retrieve(response.id) == response
    child = child_of(world, response)
    assert child["spec"]["subject"] == "alice"
    assert child["spec"]["agentRef"] == {"name": "writer"}
    assert "expiresAt" in child["spec"]
    assert child["metadata"]["labels"][PARENT_LABEL] == "mine"
    assert child["metadata"]["annotations"][CALL_ANNOTATION] == f"{TURN}/3"
    (owner,) = child["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("AgentSession", "mine", "uid-mine")
    assert world.pod(Key("shop", child["metadata"]["name"])).subjects[-1] == "alice"


async def test_a_repeated_call_is_the_same_session_and_the_same_turn(world: World) -> None:
    _, pod = await parent(world)
    async with pod:
        first = await pod.responses.create(**call())
        assert (await pod.responses.create(**call())).id == first.id
        assert (await pod.responses.create(**call(4))).id != first.id
    assert len(world.sessions) == 3


async def test_a_call_in_the_background_is_retrieved_and_cancelled(world: World) -> None:
    _, pod = await parent(world)
    world.speech = lambda _: [Used("buy", ask=True)]
    async with pod:
        begun = await pod.responses.create(**call(background=True))
        waiting = await pod.responses.retrieve(begun.id)
        assert (await pod.responses.cancel(waiting.id)).status == "cancelled"


async def test_an_agent_cannot_approve_what_its_sub_agent_asks_for(world: World) -> None:
    _, pod = await parent(world)
    world.speech = lambda _: [Used("buy", ask=True), "bought"]
    async with pod, world.client(world.alice) as alice:
        waiting = await pod.responses.create(**call())
        assert waiting.status == "incomplete"
        item: Any = waiting.output[0]
        decision: Any = [{"type": "mcp_approval_response", "approval_request_id": item.id, "approve": True}]
        with pytest.raises(openai.NotFoundError):
            await pod.responses.create(previous_response_id=waiting.id, input=decision)
        done = await alice.responses.create(previous_response_id=waiting.id, input=decision)
        assert done.output_text == "bought"


async def test_a_pod_finds_no_other_agent_and_no_other_session(world: World) -> None:
    key, pod = await parent(world)
    other = world.session("other")
    async with pod, world.client(world.alice) as alice:
        own = await alice.responses.create(conversation="shop/mine", input="a")
        hers = await alice.responses.create(conversation="shop/other", input="a")
        for model in ("shop/helper", "shop/none", "elsewhere/writer"):
            with pytest.raises(openai.NotFoundError):
                await pod.responses.create(**{**call(), "model": model})
        for response in (own, hers):
            with pytest.raises(openai.NotFoundError):
                await pod.responses.retrieve(response.id)
            with pytest.raises(openai.NotFoundError):
                await pod.responses.cancel(response.id)
        for session in (key, other):
            with pytest.raises(openai.NotFoundError):
                await pod.conversations.retrieve(conversation_id(session))
            with pytest.raises(openai.NotFoundError):
                await pod.responses.create(conversation=conversation_id(session), input="a")
        made = await pod.responses.create(**call())
        child = conversation_id(Key("shop", child_of(world, made)["metadata"]["name"]))
        with pytest.raises(openai.NotFoundError):
            await pod.conversations.delete(child)
        with pytest.raises(openai.NotFoundError):
            await pod.responses.create(previous_response_id=made.id, input="a")
        assert [model async for model in pod.models.list()] == []


async def test_another_session_of_the_same_agent_does_not_see_the_call(world: World) -> None:
    _, pod = await parent(world)
    other = world.session("other")
    await until(lambda: pod_of(world, other))
    async with pod, world.client(world.cluster.pod(other)) as another:
        made = await pod.responses.create(**call())
        with pytest.raises(openai.NotFoundError):
            await another.responses.retrieve(made.id)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"authentication.kubernetes.io/pod-name": ["mine"]},
        {"authentication.kubernetes.io/pod-name": ["none-session"]},
        {"authentication.kubernetes.io/pod-name": ["mine-session", "mine-session"]},
        {"authentication.kubernetes.io/pod-name": ["writers-session"]},
        {"authentication.kubernetes.io/pod-name": ["../mine-session"]},
    ],
)
async def test_a_token_that_is_not_of_the_sessions_pod_may_nothing(
    world: World, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_WATCH_LAG_SECONDS", 0.05)
    key, pod = await parent(world)
    world.session("writers", agent=WRITER)
    world.cluster.extra[world.cluster.pod(key)] = extra
    async with pod:
        with pytest.raises(openai.NotFoundError):
            await pod.responses.create(**call())


async def test_neither_may_the_pod_of_a_deleted_session_of_the_same_name(world: World) -> None:
    key, pod = await parent(world)
    world.cluster.set_status(key, {"conditions": []})
    await until(lambda: pod_of(world, key) is None)
    async with pod:
        with pytest.raises(openai.NotFoundError):
            await pod.responses.create(**call())


async def test_a_pod_may_be_faster_than_the_watch(world: World) -> None:
    key, pod = await parent(world)
    known = world.gateway.directory.sessions.get(key)
    assert known is not None
    older = dataclasses.replace(known, pod=None, version=known.version - 1)
    world.gateway.directory.sessions._rows[key] = older  # as if the watch had not come so far
    async with pod:
        assert (await pod.responses.create(**call())).output_text == "write"


async def from_a_warm_pool(world: World) -> tuple[Key, AsyncOpenAI]:
    """As `parent`, in a pod that was there before the session."""
    key, pod = await parent(world)
    await pod.close()
    world.cluster.ready(key, world.address(key), pod="helper-warm-abcde-session")
    return key, world.client(world.cluster.pod(key))


async def test_a_pod_from_a_warm_pool_calls_for_the_session_that_has_claimed_it(world: World) -> None:
    key, pod = await from_a_warm_pool(world)
    await until(lambda: pod_of(world, key) == "helper-warm-abcde-session")
    async with pod:
        made = await pod.responses.create(**call())
        assert (await pod.responses.create(**call())).id == made.id
    assert child_of(world, made)["metadata"]["labels"][PARENT_LABEL] == "mine"


async def test_it_too_may_be_faster_than_the_watch(world: World) -> None:
    world.cluster.lag = lambda: 0.1
    key, pod = await from_a_warm_pool(world)
    assert pod_of(world, key) != "helper-warm-abcde-session"
    async with pod:
        assert (await pod.responses.create(**call())).output_text == "write"


async def test_a_warm_pod_that_no_session_has_claimed_may_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_WATCH_LAG_SECONDS", 0.05)
    key, pod = await parent(world)
    world.cluster.extra[world.cluster.pod(key)] = {"authentication.kubernetes.io/pod-name": ["helper-warm-1-session"]}
    async with pod:
        with pytest.raises(openai.NotFoundError):
            await pod.responses.create(**call())


async def test_agents_that_call_one_another_come_to_an_end(world: World) -> None:
    key, _ = await parent(world)
    models = ["shop/writer", "shop/helper"]
    for depth in range(6):
        async with world.client(world.cluster.pod(key)) as pod:
            if depth == 5:
                with pytest.raises(openai.BadRequestError) as refused:
                    await pod.responses.create(**call(model=models[depth % 2]))
                break
            made = await pod.responses.create(**call(model=models[depth % 2]))
            key = Key("shop", child_of(world, made)["metadata"]["name"])
    assert refused.value.code == "delegation_too_deep"
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("missing", ["tenure.turn", "tenure.step", "tenure.lifetime"])
async def test_a_call_says_for_what_it_is(world: World, missing: str) -> None:
    _, pod = await parent(world)
    wanted = call()
    del wanted["metadata"][missing]
    async with pod:
        with pytest.raises(openai.BadRequestError) as refused:
            await pod.responses.create(**wanted)
        assert refused.value.param == f"metadata.{missing}"
        with pytest.raises(openai.BadRequestError, match="Idempotency-Key"):
            await pod.responses.create(**{**call(), "extra_headers": {}})
    assert len(world.sessions) == 1
