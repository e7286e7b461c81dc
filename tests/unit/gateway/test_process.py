"""The process: its servers, the guard at its door, and how it ends."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from tenure_gateway import main
from tenure_gateway.server import protocol
from tenure_gateway.settings import Settings
from unit.gateway.doubles import listening
from unit.gateway.world import World, http, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A gateway with its two servers, in this process."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(main._run(settings, world.gateway, self.stop))
        self.probes = f"http://127.0.0.1:{settings.metrics_port}"
        world.url = f"http://127.0.0.1:{settings.port}"


async def get(url: str) -> httpx2.Response:
    async with http() as web:
        return await web.get(url)


async def closed(url: str) -> None:
    """Returns when nobody listens there any more."""
    async with asyncio.timeout(5):
        with contextlib.suppress(httpx2.TransportError):
            while True:
                await get(url)


@pytest.fixture
async def process(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Process]:
    """Its parameters are the two drain times."""
    delay, bound = getattr(request, "param", (0, 20))
    settings = Settings(port=free_port(), metrics_port=free_port(), drain_delay_seconds=delay, drain_seconds=bound)
    process = Process(world, settings)
    for url in (f"{world.url}/v1/models", f"{process.probes}/healthz"):
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(httpx2.ConnectError):
                    await get(url)
                    break
                await asyncio.sleep(0.005)
    yield process
    process.stop.set()
    await process.task


async def test_it_says_that_it_lives_is_ready_and_how_it_does(world: World, process: Process) -> None:
    assert (await get(f"{process.probes}/healthz")).status_code == 200
    assert (await get(f"{process.probes}/readyz")).text == "ok"
    world.session("mine")
    async with world.client(world.alice) as client:
        await client.responses.create(conversation="shop/mine", input="a")
        for route in ("shop/mine", "shop/other"):
            with contextlib.suppress(openai.NotFoundError):
                await client.conversations.retrieve(route)
    await get(f"{world.url}/nothing/here")
    text = (await get(f"{process.probes}/metrics")).text
    assert 'requests_total{method="POST",route="/v1/responses",status="2xx"} 1.0' in text
    assert 'requests_total{method="GET",route="/v1/conversations/{conversation}",status="4xx"} 1.0' in text
    assert 'requests_total{method="GET",route="unmatched",status="4xx"}' in text
    assert 'turn_seconds_count{outcome="completed"} 1.0' in text
    assert "mine" not in text


async def test_it_is_not_ready_before_it_knows_agents_and_sessions(world: World, process: Process) -> None:
    world.gateway.directory.agents.filled = False
    answer = await get(f"{process.probes}/readyz")
    assert (answer.status_code, answer.text) == (503, "agents and sessions are being listed")


@pytest.mark.parametrize("process", [(1.5, 20)], indirect=True)
async def test_it_ends_when_streams_have_ended_and_serves_new_requests_till_its_door_closes(
    world: World, process: Process
) -> None:
    pod = world.pod(world.session("mine"))
    pod.gate = asyncio.Event()
    async with world.client(world.alice) as client:
        stream = await client.responses.create(conversation="shop/mine", input="abc", stream=True)
        process.stop.set()
        await until(lambda: world.gateway.front.draining)
        assert (await get(f"{process.probes}/readyz")).text == "shutting down"
        await asyncio.sleep(0.3)  # long enough for a server that closes its door at once
        late = await get(f"{world.url}/v1/models")
        assert late.status_code == 401
        assert late.headers["connection"] == "close"
        await closed(f"{world.url}/v1/models")
        assert not process.task.done()
        pod.gate.set()
        kinds = [event.type async for event in stream]
    assert kinds[-1] == "response.completed"
    await process.task


@pytest.mark.parametrize("process", [(0, 1)], indirect=True)
async def test_a_stream_that_does_not_end_is_cut_at_the_bound(world: World, process: Process) -> None:
    world.pod(world.session("mine")).gate = asyncio.Event()
    async with world.client(world.alice) as client:
        stream = await client.responses.create(conversation="shop/mine", input="abc", stream=True)
        process.stop.set()
        with pytest.raises(openai.APIConnectionError):
            [event async for event in stream]
    await process.task


async def test_throwaway_sessions_are_deleted_before_it_ends(world: World, process: Process) -> None:
    world.cluster.deleting_seconds = 0.5
    async with world.client(world.alice) as client:
        await client.responses.create(model="shop/helper", input="a", store=False)
        process.stop.set()
    await process.task
    assert world.sessions == {}


async def test_a_part_that_ends_by_itself_ends_the_process_with_an_error(world: World) -> None:
    async def broken() -> None:
        raise RuntimeError("the watch is broken")

    object.__setattr__(world.gateway, "follow", broken)
    settings = Settings(port=free_port(), metrics_port=free_port())
    with pytest.raises(RuntimeError, match="the watch is broken"):
        await main._run(settings, world.gateway, asyncio.Event())


def test_wrong_settings_end_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_PORT", "http")
    with pytest.raises(SystemExit, match="TENURE_PORT"):
        main.main()
    monkeypatch.setenv("TENURE_PORT", "8080")
    monkeypatch.setenv("TENURE_SIGNING_KEY_FILE", "/nowhere/gateway.key")
    with pytest.raises(SystemExit, match="/nowhere/gateway"):
        main.main()


async def talk(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that the server says to these pieces before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        return await reader.read()
    return b""


@pytest.mark.parametrize(
    "pieces", [(), (b"GET / HT",), (b"GET / HTTP/1.1\r\nx: y\r\n",), (b"GET /v1/models HTTP/1.1\r\n\r\n", b"GET /")]
)
async def test_who_does_not_get_on_with_a_request_is_put_out(world: World, pieces: tuple[bytes, ...]) -> None:
    async with listening(world.gateway.front, protocol(0.05)) as port, asyncio.timeout(5):
        said = await talk(port, *pieces, pause=0.01)
    assert said.count(b"HTTP/1.1 401") == (1 if len(pieces) == 2 else 0)


async def test_a_head_beyond_the_limit_is_put_out(world: World) -> None:
    async with listening(world.gateway.front, protocol(30)) as port, asyncio.timeout(5):
        head = [b"GET / HTTP/1.1\r\n", *(b"x-%d: %b\r\n" % (n, b"y" * 8000) for n in range(20))]
        assert await talk(port, *head) == b""


async def test_a_large_body_that_comes_with_its_head_is_not_taken_for_a_head(world: World) -> None:
    async with listening(world.gateway.front, protocol(30)) as port, asyncio.timeout(5):
        body = b"x" * 200_000
        head = b"POST /v1/responses HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        assert b"HTTP/1.1 401" in await talk(port, head + body)


async def test_a_body_that_says_that_it_is_huge_is_not_waited_for(world: World) -> None:
    async with listening(world.gateway.front, protocol(30)) as port, asyncio.timeout(5):
        head = b"POST /v1/responses HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n"
        assert b"HTTP/1.1 413" in await talk(port, head)
