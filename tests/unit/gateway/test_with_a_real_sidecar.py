"""The official client, the gateway and a real sidecar, together: what no stand-in can say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tenure_api.tools import Replay
from tenure_gateway.api_client import SESSIONS
from tenure_gateway.gateway import Gateway, assemble
from tenure_gateway.ids import Key
from tenure_gateway.settings import Settings
from unit.gateway.doubles import StandInCluster, listening
from unit.gateway.test_turns_over_time import last_number
from unit.gateway.world import http, until
from unit.sidecar.looping import LoopingAgent, blocking, crash, plays
from unit.sidecar.support import SESSION
from unit.sidecar.world import GATEWAY, World, a_world

AGENT, ONE = Key("shop", "helper"), Key("shop", "one")
ASKING: Any = {"model": "shop/helper", "conversation": "shop/one", "input": "pay"}


@dataclass
class Whole:
    """Everything: a session `shop/one` of alice's with a real sidecar, behind a gateway."""

    sidecar: World
    cluster: StandInCluster
    gateway: Gateway
    url: str
    token: str
    client: AsyncOpenAI

    async def bytes_of(self, response: str, after: int | None = None) -> bytes:
        """A stream, as it is on the wire."""
        rest = "" if after is None else f"&starting_after={after}"
        async with http() as web:
            headers = {"authorization": f"Bearer {self.token}"}
            answer = await web.get(f"{self.url}/v1/responses/{response}?stream=true{rest}", headers=headers)
        return answer.content


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with AsyncExitStack() as stack:
        sidecar = await stack.enter_async_context(a_world(tmp_path, LoopingAgent()))

        async def reroute(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            request.url = request.url.with_host("127.0.0.1").with_port(sidecar.http.base_url.port)
            return await handler(request)

        http_client = aiohttp.ClientSession(middlewares=(reroute,), cookie_jar=aiohttp.DummyCookieJar())
        await stack.enter_async_context(http_client)
        cluster = StandInCluster()
        token = cluster.user("alice", namespaces=("shop",))
        cluster.agent(AGENT)
        metadata = {"namespace": "shop", "name": "one", "uid": "u-one", "creationTimestamp": "2026-11-24T00:00:00Z"}
        cluster.put(SESSIONS, {"metadata": metadata, "spec": {"agentRef": {"name": "helper"}, "subject": "alice"}})
        cluster.ready(ONE, "10.0.0.1", identity=SESSION)
        gateway = assemble(Settings(hold_seconds=20), GATEWAY, cluster, http_client)
        url = f"http://127.0.0.1:{await stack.enter_async_context(listening(gateway.front))}"
        following = asyncio.create_task(gateway.follow())
        stack.callback(following.cancel)
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, http_client=http())
        yield Whole(sidecar, cluster, gateway, url, token, await stack.enter_async_context(client))


def decision(item: Any, approve: bool = True) -> Any:
    return [{"type": "mcp_approval_response", "approval_request_id": item.id, "approve": approve}]


async def test_an_approval_survives_crashes_and_the_response_goes_on_under_its_id(whole: Whole) -> None:
    whole.sidecar.tools.add("pay", approval=True)
    whole.sidecar.tools.add("look", replay=Replay.SAFE)
    whole.sidecar.model.now(*plays(["look"], ["pay"], "It is paid.", say="I look first."))
    waiting = await whole.client.responses.create(**ASKING, metadata={"a": "b"}, instructions="be kind")
    assert (waiting.status, waiting.metadata, waiting.instructions) == ("incomplete", {"a": "b"}, "be kind")
    assert [item.type for item in waiting.output] == ["message", "mcp_call", "mcp_approval_request"]
    before = await whole.bytes_of(waiting.id)
    with pytest.raises(openai.ConflictError) as refused:
        await whole.client.responses.create(conversation="shop/one", input="and?")
    assert refused.value.code == "approval_pending"
    await crash(whole.sidecar)
    assert await whole.client.responses.retrieve(waiting.id) == waiting
    assert await whole.bytes_of(waiting.id) == before
    async with whole.client.responses.stream(
        model="shop/helper", previous_response_id=waiting.id, input=decision(waiting.output[-1])
    ) as stream:
        events = [event async for event in stream]
        done = await stream.get_final_response()
    assert events[0].sequence_number == (last_number(before) or 0) + 1
    assert (done.id, done.output_text) == (waiting.id, "I look first.It is paid.")
    assert whole.sidecar.tools.made("pay") == ['{"n": 0}']
    await crash(whole.sidecar)
    after = await whole.bytes_of(waiting.id)
    assert after.startswith(before)
    items = [item async for item in whole.client.conversations.items.list("shop/one", order="asc")]
    assert [item.to_dict()["id"] for item in items[1:]] == [item.to_dict()["id"] for item in done.output]


async def test_a_live_stream_goes_on_through_a_crash_and_is_the_same_afterwards(whole: Whole) -> None:
    deed, begun, release = blocking()
    whole.sidecar.tools.add("look", deed, replay=Replay.SAFE)
    said = "Let me have a look at it, which may take a while."
    whole.sidecar.model.now(*plays(["look"], "There it is: all is well.", say=said))
    kinds: list[str] = []
    async with whole.client.responses.stream(**ASKING) as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta" and not release.is_set():
                await begun.wait()
                release.set()
                await crash(whole.sidecar)
        done = await stream.get_final_response()
    assert done.output_text == f"{said}There it is: all is well."
    assert "error" not in kinds
    uncut = await whole.bytes_of(done.id)
    assert uncut.count(b"event: ") == len(kinds)
    half = last_number(uncut[: len(uncut) // 2])
    assert uncut.endswith(await whole.bytes_of(done.id, half))


async def test_a_background_response_is_cancelled_while_a_tool_runs(whole: Whole) -> None:
    deed, begun, _ = blocking()
    whole.sidecar.tools.add("look", deed)
    whole.sidecar.model.now(*plays(["look"], "never"))
    running = await whole.client.responses.create(**ASKING, background=True)
    assert running.status == "in_progress"
    await begun.wait()
    cancelled = await whole.client.responses.cancel(running.id)
    assert cancelled.status == "cancelled"
    assert await whole.client.responses.retrieve(running.id) == cancelled
    events = [event async for event in await whole.client.responses.retrieve(running.id, stream=True)]
    assert events[-1].type == "response.incomplete"


async def test_a_repeated_request_is_one_turn_and_other_content_a_conflict(whole: Whole) -> None:
    whole.sidecar.model.now(*plays("once", "twice"))
    once = {"Idempotency-Key": "k"}
    first = await whole.client.responses.create(**ASKING, extra_headers=once)
    assert await whole.client.responses.create(**ASKING, extra_headers=once) == first
    with pytest.raises(openai.ConflictError) as refused:
        await whole.client.responses.create(**{**ASKING, "input": "other"}, extra_headers=once)
    assert refused.value.code == "idempotency_key_reused"


async def test_files_come_and_go(whole: Whole) -> None:
    container = f"cntr_{b'shop/one'.hex()}"
    files = whole.client.containers.files
    data = bytes(range(256)) * 2000
    made = await files.create(container, file=("reports/é 1.bin", data))
    assert (made.path, made.bytes) == ("/workspace/reports/é 1.bin", len(data))
    assert (await files.content.retrieve(made.id, container_id=container)).content == data
    assert [file.id async for file in files.list(container)] == [made.id]
    await files.delete(made.id, container_id=container)
    with pytest.raises(openai.NotFoundError):
        await files.content.retrieve(made.id, container_id=container)
    whole.sidecar.model.now(*plays("read"))
    part = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}
    said: Any = [{"role": "user", "content": [part]}]
    await whole.client.responses.create(conversation="shop/one", input=said)
    (entry,) = [file async for file in files.list(container)]
    assert (entry.path, entry.bytes) == ("/workspace/uploads/a.txt", 5)
    assert (await files.content.retrieve(entry.id, container_id=container)).text == "hello"


async def test_what_comes_while_the_session_falls_asleep_is_done_after_it_has_woken(whole: Whole) -> None:
    whole.sidecar.model.now(*plays("first", "second"))
    await whole.client.responses.create(**ASKING)
    drain = await whole.sidecar.http.post("/v1/drain", json={}, headers=whole.sidecar.token("operator"))
    assert drain.status_code == 200
    container = f"cntr_{b'shop/one'.hex()}"
    asking = [
        asyncio.create_task(whole.client.responses.create(**ASKING)),
        asyncio.create_task(whole.client.containers.files.create(container, file=("a.bin", b"a" * 1_000_000))),
    ]
    registry = whole.gateway.metrics.registry
    await until(lambda: (registry.get_sample_value("tenure_gateway_sidecar_retries_total") or 0) >= 2)
    await whole.sidecar.stop()
    whole.cluster.asleep(ONE)
    await until(lambda: whole.cluster.wakes == [(ONE, 1)])
    await whole.sidecar.start()
    await whole.sidecar.ready()
    whole.cluster.ready(ONE, "10.0.0.2", identity=SESSION)
    answer, file = await asyncio.gather(*asking)
    assert (answer.output_text, file.bytes) == ("second", 1_000_000)
