"""Requests at random while sessions fall asleep and wake at random: each is answered, by its own session, exactly once.

The operator, the kubelet and the sidecars are a model that does what the contract between them and the gateway says, at
its worst: statuses lag behind, pods are gone before their status says so, addresses are used again by other sessions,
the operator dies between a drain and what should follow, and the API server fails.
"""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from openai import AsyncOpenAI

from tenure_gateway.faults import ClusterUnavailable
from tenure_gateway.ids import Key
from unit.gateway.courses import Deed
from unit.gateway.sidecars import Pod
from unit.gateway.world import World, http

SESSIONS = 4
REQUESTS = 80
AT_ONCE = 8


class Operator:
    """A model of all that puts sessions to sleep and wakes them."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._addresses = [f"10.1.0.{n}" for n in range(SESSIONS)]
        self.sleeps: Counter[Key] = Counter()

    async def tend(self, key: Key) -> None:
        """Looks after a session for ever."""
        while True:
            await self._nap()
            if self._is_to_wake(key):
                await self._start(key)
            elif self._runs(key):
                await self._try_to_sleep(key)

    async def _start(self, key: Key) -> None:
        if self._chance.random() < 0.5:
            self._world.cluster.starting(key)
            await self._nap()
        free = [address for address in self._addresses if address not in self._world.sidecars.pods]
        self._world.revive(key, self._chance.choice(free))

    async def _try_to_sleep(self, key: Key) -> None:
        pod, address = self._world.pod(key), self._world.address(key)
        if not pod.idle():
            return
        pod.draining = True
        await self._nap()
        if self._chance.random() < 0.2:  # the operator dies, and the sidecar goes on working
            await self._nap()
            pod.draining = False
            return
        if self._chance.random() < 0.3:  # the pod ends by itself, before anybody says so
            self._end(pod, address)
            await self._nap()
        self._world.cluster.asleep(key)
        self.sleeps[key] += 1
        await self._nap()
        self._end(pod, address)

    def _end(self, pod: Pod, address: str) -> None:
        if self._world.sidecars.pods.get(address) is pod:
            del self._world.sidecars.pods[address]

    def _status(self, key: Key) -> dict[str, Any]:
        status: dict[str, Any] = self._world.sessions[key]["status"]
        return status

    def _runs(self, key: Key) -> bool:
        return self._status(key).get("effectiveMode") == "Running" and "podIP" in self._status(key)

    def _is_to_wake(self, key: Key) -> bool:
        written = self._world.sessions[key]["metadata"].get("annotations", {}).get("tenure.dev/wake")
        asleep = self._status(key).get("effectiveMode") == "Hibernated"
        return asleep and written == str(self._world.cluster.generation(key))

    async def _nap(self) -> None:
        await asyncio.sleep(self._chance.choice([0, 0, 0.001, 0.005, 0.02]))


class Clients:
    """Those who ask, and what they were promised."""

    def __init__(self, world: World, chance: random.Random, clients: list[AsyncOpenAI]) -> None:
        self._world = world
        self._chance = chance
        self._clients = clients
        self.said: dict[Key, list[str]] = {}
        """What was said in each session, by when it was answered."""

    async def ask(self, number: int, key: Key) -> None:
        """Asks one session for something, and sees to it that the answer is that session's."""
        client = self._chance.choice(self._clients)
        what = self._chance.choice(["say", "say", "stream", "file", "items", "look back"])
        text = f"{key.name} hears {number}"
        conversation = str(key)
        container = f"cntr_{conversation.encode().hex()}"
        match what:
            case "say":
                answer = await client.responses.create(conversation=conversation, input=text)
                assert answer.output_text == f"{key.name}: {text}"
                self.said.setdefault(key, []).append(text)
            case "stream":
                async with client.responses.stream(
                    model="shop/helper", conversation=conversation, input=text
                ) as stream:
                    assert (await stream.get_final_response()).output_text == f"{key.name}: {text}"
                self.said.setdefault(key, []).append(text)
            case "file":
                name = f"{number}.txt"
                file = await client.containers.files.create(container, file=(name, text.encode() * 5000))
                content = await client.containers.files.content.retrieve(file.id, container_id=container)
                assert content.content == text.encode() * 5000
            case "items":
                before = set(self.said.get(key, []))
                heard = set(await self.heard(client, key))
                assert before <= heard
            case "look back":
                begun = await client.responses.create(conversation=conversation, input=text, background=True)
                self.said.setdefault(key, []).append(text)
                assert (await client.responses.retrieve(begun.id)).id == begun.id

    async def heard(self, client: AsyncOpenAI, key: Key) -> list[str]:
        """What was said in a session, as its transcript has it."""
        items: list[Any] = [item async for item in client.conversations.items.list(str(key), limit=100, order="asc")]
        assert all(key.name in item.content[0].text for item in items)
        return [item.content[0].text for item in items if item.role == "user"]


def repeat(heard: list[str]) -> list[Deed]:
    """What the agent says: whose it is, and what it heard."""
    return [f"{heard[-1].split()[0]}: ", heard[-1]]


@pytest.mark.parametrize("world", [{"hold_seconds": 30}], indirect=True)
@pytest.mark.parametrize("seed", range(3))
async def test_every_request_is_answered_by_its_own_session_and_no_session_is_woken_that_is_awake(
    world: World, seed: int
) -> None:
    chance = random.Random(seed)
    world.speech = repeat
    world.cluster.on_wake = lambda _: None
    operator = Operator(world, chance)
    keys = [world.session(f"session-{n}") for n in range(SESSIONS)]
    world.cluster.lag = lambda: chance.choice([0, 0, 0, 0.001, 0.01])
    async with AsyncExitStack() as stack:
        replica = await stack.enter_async_context(world.replica(hold_seconds=30))
        clients = [
            await stack.enter_async_context(
                AsyncOpenAI(base_url=f"{url}/v1", api_key=world.alice, max_retries=0, http_client=http())
            )
            for url in (world.url, replica)
        ]
        asking = Clients(world, chance, clients)
        tending = [asyncio.create_task(operator.tend(key)) for key in keys]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.05]))
                if chance.random() < 0.1:
                    world.cluster.wake_troubles.append(ClusterUnavailable("etcd"))
                await asking.ask(number, chance.choice(keys))

        await asyncio.gather(*(one(number) for number in range(REQUESTS)))
        for key in keys:
            heard = await asking.heard(clients[0], key)
            assert sorted(heard) == sorted(asking.said.get(key, []))
        for task in tending:
            task.cancel()
    assert operator.sleeps.total() >= 10
    # Each wake ended one sleep, and no sleep was ended twice: the stand-in itself refuses wakes of who is awake.
    assert len(set(world.cluster.wakes)) == len(world.cluster.wakes)
    for key in keys:
        woken = [generation for woken, generation in world.cluster.wakes if woken == key]
        assert woken == sorted(woken)
        assert operator.sleeps[key] - len(woken) in (0, 1)
