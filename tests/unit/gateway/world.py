"""A gateway in its surroundings, and short words for what tests do there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
from openai import AsyncOpenAI

from tenure_gateway.api_client import SESSIONS
from tenure_gateway.gateway import Gateway, assemble
from tenure_gateway.ids import Key
from tenure_gateway.settings import Settings
from unit.gateway.courses import Deed
from unit.gateway.doubles import Object, StandInCluster, listening
from unit.gateway.sidecars import SIGNING_KEY, Pod, StandInSidecars, Volume

AGENT = Key("shop", "helper")


def http(**options: Any) -> httpx2.AsyncClient:
    """A client that reads no certificates: that takes it longer than all that it does here."""
    return httpx2.AsyncClient(verify=False, timeout=20, **options)


def echo(heard: list[str]) -> list[Deed]:
    """The speech of a model that repeats all that it heard, in three deltas."""
    text = " | ".join(heard)
    return [text[: len(text) // 3], text[len(text) // 3 : 2 * len(text) // 3], text[2 * len(text) // 3 :]]


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; it must within five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - it is about what another part does
            await asyncio.sleep(0.005)


@dataclass
class World:
    """The gateway at `url`, with the agent `shop/helper`."""

    gateway: Gateway
    cluster: StandInCluster
    sidecars: StandInSidecars
    url: str
    volumes: dict[Key, Volume] = field(default_factory=dict)
    speech: Callable[[list[str]], list[Deed]] = echo
    _numbers: Any = field(default_factory=count)
    _following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to follow the cluster."""
        self.alice = self.cluster.user("alice", namespaces=("shop",))
        self.cluster.agent(AGENT)
        self.cluster.on_create = self.serve
        self.cluster.on_wake = self.revive
        self._following = asyncio.create_task(self.gateway.follow())

    async def stop(self) -> None:
        """Ends, after all that goes on in the background."""
        await self.gateway.sessions.settle()
        assert self._following is not None
        self._following.cancel()

    @asynccontextmanager
    async def replica(self, hold_seconds: float = 5) -> AsyncIterator[str]:
        """The address of another gateway, which shares nothing with the first but the cluster."""
        async with self.sidecars.client() as http:
            gateway = assemble(Settings(hold_seconds=hold_seconds), SIGNING_KEY, self.cluster, http)
            following = asyncio.create_task(gateway.follow())
            async with listening(gateway.front) as port:
                yield f"http://127.0.0.1:{port}"
            following.cancel()

    def client(self, token: str, retries: int = 0) -> AsyncOpenAI:
        """The official client."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=retries, http_client=http())

    def serve(self, session: Object) -> None:
        """Gives a session a pod and makes it Ready, as the operator would."""
        self.revive(Key(session["metadata"]["namespace"], session["metadata"]["name"]))

    def revive(self, key: Key, address: str | None = None) -> Pod:
        """Gives a session a new pod, with the volume that it had."""
        address = address or f"10.0.0.{next(self._numbers)}"
        pod = Pod(f"claim-of-{key.name}", self.volumes.setdefault(key, Volume()), lambda heard: self.speech(heard))
        self.sidecars.pods[address] = pod
        self.cluster.ready(key, address)
        return pod

    def sleep(self, key: Key, kept: bool = False) -> None:
        """Puts a session to sleep: its pod is gone."""
        self.kill(key)
        self.cluster.asleep(key, kept)

    def kill(self, key: Key) -> None:
        """Takes a session's pod away; the status does not know yet."""
        del self.sidecars.pods[self.address(key)]

    def address(self, key: Key) -> str:
        """Where the status says that a session's pod is."""
        found: str = self.cluster.objects[SESSIONS][key]["status"]["podIP"]
        return found

    def pod(self, key: Key) -> Pod:
        """A session's pod."""
        return self.sidecars.pods[self.address(key)]

    def session(self, name: str = "mine", subject: str = "alice", agent: Key = AGENT, ready: bool = True) -> Key:
        """A session that somebody made with kubectl."""
        key = Key(agent.namespace, name)
        metadata = {"namespace": key.namespace, "name": key.name, "uid": f"uid-{name}"}
        metadata["creationTimestamp"] = "2026-11-24T00:00:00Z"
        spec = {"agentRef": {"name": agent.name}, "subject": subject}
        self.cluster.put(SESSIONS, {"metadata": metadata, "spec": spec})
        if ready:
            self.revive(key)
        else:
            self.cluster.starting(key)
        return key

    @property
    def sessions(self) -> dict[Key, Object]:
        """All sessions."""
        return self.cluster.objects[SESSIONS]
