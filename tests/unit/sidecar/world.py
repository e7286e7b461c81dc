"""A sidecar with its surroundings over real loopback sockets: a scripted model and a scripted agent."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tenure_api.configuration import ModelTarget, SessionConfig
from tenure_api.tokens import Signer, new_private_key, public_key
from tenure_api.wire import TurnRequest
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.config import CONFIG_FILE
from tenure_sidecar.http_client import Client
from tenure_sidecar.main import build
from tenure_sidecar.settings import Settings, Source
from unit.sidecar.support import KEY, SESSION, a_config, a_route, a_turn, hosting, serving, until
from unit.sidecar.toolbox import FakeTools

POD_TOKEN = "token-of-this-pod"
CREDENTIAL = "sk-a-real-secret"
OPERATOR, GATEWAY = new_private_key(), new_private_key()

Json = dict[str, Any]
Deed = Callable[[Json, Scope, Send], Awaitable[None]]


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "model": "m", "choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"


def says(text: str, pause: asyncio.Event | None = None) -> Deed:
    """Stream a text, word by word; after the first word wait for `pause`."""

    async def deed(request: Json, scope: Scope, send: Send) -> None:
        await asgi.begin(send, 200, asgi.SSE)
        first, *others = text.split(" ")
        await asgi.more(send, chunk("") + chunk(first))
        if pause is not None:
            await pause.wait()
        for word in others:
            await asgi.more(send, chunk(f" {word}"))
        await asgi.end(send, chunk("", "stop") + USAGE + DONE)

    return deed


def answers(status: int, body: Json | bytes, content_type: bytes = asgi.JSON) -> Deed:
    """Answer with a whole body."""

    async def deed(request: Json, scope: Scope, send: Send) -> None:
        await asgi.respond(send, status, body if isinstance(body, bytes) else json.dumps(body).encode(), content_type)

    return deed


def streams(*parts: bytes, then: asyncio.Event | None = None, cut: bool = False) -> Deed:
    """Stream raw parts; then wait, and end or cut the stream."""

    async def deed(request: Json, scope: Scope, send: Send) -> None:
        await asgi.begin(send, 200, asgi.SSE)
        for part in parts:
            await asgi.more(send, part)
        if then is not None:
            await then.wait()
        if not cut:
            await asgi.end(send)

    return deed


def whole(text: str) -> Json:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


class Scripted:
    """A server that does one deed for each request, the last one again and again; and remembers the requests."""

    def __init__(self, *deeds: Deed) -> None:
        self.deeds = list(deeds)
        self.requests: list[Json] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.paths: list[str] = []

    def now(self, *deeds: Deed) -> None:
        """From now on do these."""
        self.deeds = list(deeds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await asgi.read_body(receive, 1 << 30)
        if scope["method"] == "GET":
            await self.listed(scope, send)
            return
        self.requests.append(json.loads(body))
        self.headers.append(dict(scope["headers"]))
        self.paths.append(scope["path"])
        deed = self.deeds.pop(0) if len(self.deeds) > 1 else self.deeds[0]
        await deed(self.requests[-1], scope, send)

    async def listed(self, scope: Scope, send: Send) -> None:
        """The list of models, as the deed of the moment would have it."""
        await asgi.respond(send, 200, b'{"object": "list", "data": []}')


class Agent:
    """The agent container: asks the model through the proxy and passes the answer on."""

    def __init__(self) -> None:
        self.proxy_port = 0
        self.requests: list[Json] = []
        self.asks: list[Json] = [{}]
        """What it asks the model, one after the other, beyond the messages that it was given."""
        self.stream = True
        self.cut_turns = 0
        self.die_after_asks: list[int] = []
        """Of the next runs: after how many of its asks it dies."""
        self.die_after: list[int] = []
        """Of the next runs: after how many parts of the last answer it dies."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = json.loads(await asgi.read_body(receive, 1 << 30))
        if asgi.bearer(scope) != POD_TOKEN:
            await asgi.respond(send, 401, b"{}")
            return
        self.requests.append(request)
        die_after = self.die_after.pop(0) if self.die_after else None
        base = f"http://127.0.0.1:{self.proxy_port}/v1"
        async with httpx.AsyncClient(base_url=base, timeout=20, verify=False, trust_env=False) as client:
            most = self.die_after_asks.pop(0) if self.die_after_asks else len(self.asks)
            for ask in self.asks[:-1][:most]:
                await self.post(client, {**request, **ask, "stream": False})
            if most < len(self.asks):
                await asgi.begin(send, 200, asgi.SSE)
                raise SystemError("the agent dies")
            await self.relay(client, {**request, **self.asks[-1], "stream": self.stream}, send, die_after)

    async def post(self, client: httpx.AsyncClient, body: Json) -> httpx.Response:
        return await client.post("/chat/completions", json=body, headers=self._headers())

    async def relay(self, client: httpx.AsyncClient, body: Json, send: Send, die_after: int | None) -> None:
        async with client.stream("POST", "/chat/completions", json=body, headers=self._headers()) as answer:
            kind = answer.headers["content-type"].encode()
            await send(
                {"type": "http.response.start", "status": answer.status_code, "headers": [(b"content-type", kind)]}
            )
            count = 0
            if die_after == 0:
                raise SystemError("the agent dies")
            async for part in answer.aiter_raw():
                await asgi.more(send, part)
                count += 1
                if die_after is not None and count >= die_after:
                    raise SystemError("the agent dies")
        await asgi.end(send)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {POD_TOKEN}", "x-tenure-cut-turns": str(self.cut_turns)}


class World:
    """The sidecar under test and all that is around it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = Scripted(says("Hello there friend"))
        self.agent: Agent | Scripted = Agent()
        self.tools = FakeTools()
        self.source: Source | None = None
        """What the session begins with, from the next start on."""
        self.config: SessionConfig
        self.settings: Settings
        self.model_port = self.agent_port = self.proxy_port = self.metrics_port = 0
        self.http = httpx.AsyncClient(verify=False, trust_env=False)
        self.skipped = 0.0
        """Seconds by which the sidecar's clock has moved beyond the time that has passed."""
        self.generation = 0
        self.name = "shop/one"
        self._sidecar: AsyncExitStack | None = None

    @property
    def container(self) -> Agent:
        """The agent, when it is the scripted one."""
        assert isinstance(self.agent, Agent)
        return self.agent

    async def agents(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever is the agent at the moment."""
        await self.agent(scope, receive, send)

    async def start(self, identity: str = SESSION) -> None:
        """Start the sidecar, as after its end or its death."""
        self._sidecar = AsyncExitStack()
        self.settings = Settings(
            identity=identity,
            session=self.name,
            source=self.source,
            generation=self.generation,
            data=self.directory / "data",
            key=self.directory / "key",
            config=self.directory / "config",
            credentials=self.directory / "credentials",
            host="127.0.0.1",
            control_port=0,
            proxy_port=0,
            metrics_port=0,
            runtime_port=self.agent_port,
        )
        client = Client()
        clock = SteadyClock(elapsed=lambda: time.monotonic() + self.skipped)
        self.session, doors, sockets = build(self.settings, client, lambda _: self.tools, clock)
        control, self.proxy_port, self.metrics_port = (listener.getsockname()[1] for listener in sockets)
        if isinstance(self.agent, Agent):
            self.agent.proxy_port = self.proxy_port
        self.http.base_url = httpx.URL(f"http://127.0.0.1:{control}")
        await self._sidecar.enter_async_context(hosting(doors, *sockets))
        working = asyncio.create_task(self.session.run())

        async def stop() -> None:
            working.cancel()
            await asyncio.wait((working,))
            await self.session.release()
            await client.close()

        self._sidecar.push_async_callback(stop)

    async def stop(self) -> None:
        """End the sidecar in the middle of whatever it does."""
        if self._sidecar is not None:
            await self._sidecar.aclose()
            self._sidecar = None

    async def ready(self) -> None:
        await until(lambda: self.session.unready is None)

    def token(self, issuer: str = "gateway", uid: str = SESSION) -> dict[str, str]:
        key = {"gateway": GATEWAY, "operator": OPERATOR}[issuer]
        signer = Signer(issuer, key)  # type: ignore[arg-type]
        return {"authorization": f"Bearer {signer.token(uid, time.time())}"}

    async def get(self, path: str, issuer: str = "gateway") -> httpx.Response:
        return await self.http.get(path, headers=self.token(issuer))

    async def report(self) -> Json:
        found: Json = (await self.get("/v1/report", "operator")).json()
        return found

    async def push(self, config: SessionConfig) -> httpx.Response:
        body = config.model_dump_json(by_alias=True)
        return await self.http.put("/v1/config", content=body, headers=self.token("operator"))

    async def turn(self, text: str = "hello", turn: str | None = None, previous: str | None = None) -> list[Json]:
        """Take a turn to its end; its events."""
        return await self.send(a_turn(text, turn, previous))

    async def send(self, request: TurnRequest) -> list[Json]:
        body = request.model_dump_json(by_alias=True)
        answer = await self.http.post("/v1/turns", content=body, headers=self.token(), timeout=20)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    async def refused(self, request: TurnRequest) -> tuple[int, str]:
        body = request.model_dump_json(by_alias=True)
        answer = await self.http.post("/v1/turns", content=body, headers=self.token(), timeout=20)
        return answer.status_code, answer.json()["code"]

    async def listen(self, request: TurnRequest) -> AsyncGenerator[Json]:
        """The events of a turn as they come."""
        body = request.model_dump_json(by_alias=True)
        async with self.http.stream("POST", "/v1/turns", content=body, headers=self.token(), timeout=20) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                yield json.loads(line)

    async def texts(self) -> list[str]:
        """What the conversation holds."""
        page = (await self.get("/v1/items?order=asc&limit=100")).json()
        return [item["text"] for item in page["data"]]

    async def ask(self, body: Json, token: str = POD_TOKEN, path: str = "/chat/completions") -> httpx.Response:
        """Call the model proxy."""
        url = f"http://127.0.0.1:{self.proxy_port}/v1{path}"
        return await self.http.post(url, json=body, headers={"authorization": f"Bearer {token}"}, timeout=20)


def text_of(events: list[Json]) -> str:
    """What a client has after all events."""
    text = ""
    for event in events:
        if event["type"] == "attempt":
            text = text[: event["offset"]]
        text += event.get("text", "")
    return text


@asynccontextmanager
async def a_world(
    directory: Path, agent: Agent | Scripted | None = None, source: Source | None = None
) -> AsyncIterator[World]:
    """A sidecar that is ready, or that waits for its source, with its surroundings."""
    world = World(directory)
    world.source = source
    if agent is not None:
        world.agent = agent
    for name in ("data", "key", "config", "credentials/model"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "key/data-key").write_bytes(KEY)
    (directory / "key/pod-token").write_text(POD_TOKEN)
    (directory / "credentials/model/api-key").write_text(CREDENTIAL + "\n")
    (directory / "config/operator.pub").write_text(public_key(OPERATOR))
    (directory / "config/gateway.pub").write_text(public_key(GATEWAY))
    async with serving(world.model) as model_port, serving(world.agents) as agent_port:
        world.model_port, world.agent_port = model_port, agent_port
        target = ModelTarget(name="m", base_url=f"http://127.0.0.1:{model_port}/v1", credential="model/api-key")
        world.config = a_config(a_route(target), instructions="Be brief.")
        (directory / "config" / CONFIG_FILE).write_text(world.config.model_dump_json(by_alias=True))
        await world.start()
        try:
            if source is None:
                await world.ready()
            yield world
        finally:
            await world.stop()
            await world.http.aclose()
