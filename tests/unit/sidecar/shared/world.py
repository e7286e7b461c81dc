"""A host of sessions with its surroundings over real loopback sockets."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tenure_api.configuration import ModelTarget, SessionConfig
from tenure_api.report import Binding
from tenure_api.tokens import Signer, public_key
from tenure_api.wire import RUN_HEADER
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.config import CONFIG_FILE
from tenure_sidecar.http_client import Client
from tenure_sidecar.main import build_host
from tenure_sidecar.settings import Settings
from tenure_sidecar.shared.host import Room
from tenure_sidecar.turn.workflow import Pace
from unit.sidecar.support import KEY, a_config, a_route, a_turn, hosting, serving, until
from unit.sidecar.toolbox import FakeTools
from unit.sidecar.world import CREDENTIAL, GATEWAY, OPERATOR, POD_TOKEN, Json, Scripted, says, text_of

HOST = "c1a17000-0000-4000-8000-000000000001"
FAST = Pace(first=0.01, longest=0.02, diverged=0.5, quiet=0.01)


def _client() -> httpx.AsyncClient:
    # Connections are given up well before the servers of these tests do it, after 5 s: a request must not meet that.
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=500, keepalive_expiry=2)
    return httpx.AsyncClient(verify=False, trust_env=False, limits=limits, timeout=60)


class Agent:
    """The agent container: calls the tools that the input names, then asks the model; and says which run it is for."""

    def __init__(self) -> None:
        self.proxy_port = 0
        self.http = _client()
        self.runs: list[str] = []
        self.requests: list[Json] = []
        self.hold: asyncio.Event | None = None
        """While it is there and not set, runs for inputs with `slowly` wait for it."""
        self.arguments: Json | None = None
        """What it calls tools with."""
        self.lie: str | None = None
        """What it says to be its run."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = json.loads(await asgi.read_body(receive, 1 << 30))
        run = asgi.header(scope, RUN_HEADER.lower().encode()).decode()
        self.runs.append(run)
        self.requests.append(request)
        said = str(request["messages"][-1]["content"])
        if "slowly" in said and self.hold is not None:
            await self.hold.wait()
        headers = {"authorization": f"Bearer {POD_TOKEN}", RUN_HEADER: self.lie if self.lie is not None else run}
        base = f"http://127.0.0.1:{self.proxy_port}/v1"
        outputs = []
        for n, name in enumerate(word[5:] for word in said.split() if word.startswith("call:")):
            body = {"callId": f"c{n}", "name": name, "arguments": json.dumps(self.arguments or {"of": said})}
            answer = await self.http.post(f"{base}/tools/call", json=body, headers=headers)
            outputs.append(answer.json().get("output", answer.text))
        asked = {**request, "stream": False, "messages": [*request["messages"]]}
        answer = await self.http.post(f"{base}/chat/completions", json=asked, headers=headers)
        if answer.status_code != 200:
            await asgi.respond(send, answer.status_code, answer.content)
            return
        text = answer.json()["choices"][0]["message"]["content"] + "".join(f" [{output}]" for output in outputs)
        message = {"role": "assistant", "content": text}
        whole = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        await asgi.respond(send, 200, json.dumps(whole).encode())


class Echo(Scripted):
    """A model that says what it was told last, and how much it was told before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await asgi.read_body(receive, 1 << 30)
        if scope["method"] == "GET":
            await self.listed(scope, send)
            return
        request = json.loads(body)
        said = [m["content"] for m in request["messages"] if m["role"] == "user"]
        text = f"{said[-1]} ({len(said) - 1} before: {', '.join(said[:-1])})"
        message = {"role": "assistant", "content": text}
        whole = {
            "id": "c1",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        await asgi.respond(send, 200, json.dumps(whole).encode())


class HostWorld:
    """The host under test and all that is around it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = Echo(says("unused"))
        self.agent = Agent()
        self.tools = FakeTools()
        self.config: SessionConfig
        self.clock: SteadyClock | None = None
        self.generation = 0
        self.room = Room(idle_seconds=0.2)
        self.agent_port = self.proxy_port = 0
        self.http = _client()
        self._running: AsyncExitStack | None = None
        self.ended: asyncio.Task[None] | None = None

    async def agents(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.agent(scope, receive, send)

    async def start(self) -> None:
        """Start the host, as after its end or its death."""
        self._running = AsyncExitStack()
        settings = Settings(
            identity=HOST,
            generation=self.generation,
            shared=True,
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
        self.host, doors, sockets = build_host(settings, client, lambda _: self.tools, self.clock, FAST, self.room)
        control, self.proxy_port, _ = (listener.getsockname()[1] for listener in sockets)
        self.agent.proxy_port = self.proxy_port
        self.http.base_url = httpx.URL(f"http://127.0.0.1:{control}")
        await self._running.enter_async_context(hosting(doors, *sockets))
        host = self.host
        working = self.ended = asyncio.create_task(host.run())

        async def stop() -> None:
            working.cancel()
            await asyncio.wait((working,))
            await host.release()
            await client.close()

        self._running.push_async_callback(stop)

    async def stop(self) -> None:
        """End the host in the middle of whatever it does."""
        if self._running is not None:
            await self._running.aclose()
            self._running = None

    async def again(self) -> None:
        """End it and start it anew."""
        await self.stop()
        await self.start()
        await self.ready()

    async def ready(self) -> None:
        await until(lambda: self.host.unready is None)

    def token(self, identity: str, issuer: str = "gateway", subject: str | None = None) -> dict[str, str]:
        key = {"gateway": GATEWAY, "operator": OPERATOR}[issuer]
        signer = Signer(issuer, key)  # type: ignore[arg-type]
        return {"authorization": f"Bearer {signer.token(identity, time.time(), subject)}"}

    # --- the operator ---

    async def register(self, name: str = "one") -> str:
        """A session that the host keeps from now on; its UID."""
        uid = str(uuid.uuid4())
        answer = await self.keep(uid, name)
        assert answer.status_code == 200, answer.text
        return uid

    async def keep(self, uid: str, name: str = "one") -> httpx.Response:
        body = Binding(session=f"shop/{name}", uid=uid).model_dump_json(by_alias=True)
        headers = self.token(HOST, "operator")
        return await self.http.put(f"/v1/sessions/{uid}", content=body, headers=headers)

    async def erase(self, uid: str) -> int:
        answer = await self.http.delete(f"/v1/sessions/{uid}", headers=self.token(HOST, "operator"))
        return answer.status_code

    async def report(self, identity: str = HOST) -> Json:
        answer = await self.http.get("/v1/report", headers=self.token(identity, "operator"))
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def push(self, config: SessionConfig, identity: str = HOST) -> httpx.Response:
        body = config.model_dump_json(by_alias=True)
        return await self.http.put("/v1/config", content=body, headers=self.token(identity, "operator"))

    # --- the gateway ---

    async def turn(self, uid: str, text: str = "hello", turn: str | None = None) -> Json:
        """Take a turn to its end; the turn, and in `text` what was said."""
        events = await self.send(uid, text, turn)
        ended: Json = {**events[-1]["turn"], "text": text_of(events)}
        return ended

    async def send(self, uid: str, text: str, turn: str | None = None) -> list[Json]:
        body = a_turn(text, turn).model_dump_json(by_alias=True)
        answer = await self.http.post("/v1/turns", content=body, headers=self.token(uid), timeout=30)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    async def get(self, uid: str, path: str) -> httpx.Response:
        return await self.http.get(path, headers=self.token(uid))

    async def texts(self, uid: str) -> list[str]:
        page = (await self.get(uid, "/v1/items?order=asc&limit=100")).json()
        return [item["text"] for item in page["data"]]

    async def decide(self, uid: str, turn: str, approval: str) -> httpx.Response:
        body = {"decisions": [{"approval": approval, "approve": True}]}
        headers = self.token(uid, subject="ada")
        return await self.http.post(f"/v1/turns/{turn}/approvals", json=body, headers=headers, timeout=20)

    # --- what it costs ---

    async def closed(self, *uids: str) -> None:
        """Wait until these sessions are closed."""
        await until(lambda: all(self.of(uid).is_closed for uid in uids))

    def of(self, uid: str) -> Any:
        return self.host.find(uid)

    def files(self, uid: str) -> list[Path]:
        """All that the volume has of a session."""
        return [path for path in (self.directory / "data").rglob("*") if uid in str(path)]


@asynccontextmanager
async def a_host(directory: Path, prepare: Callable[[HostWorld], None] = lambda _: None) -> AsyncIterator[HostWorld]:
    """A host that is ready, with its surroundings."""
    world = HostWorld(directory)
    for name in ("data", "key", "config", "credentials/model"):
        (directory / name).mkdir(parents=True)
    (directory / "key/data-key").write_bytes(KEY)
    (directory / "key/pod-token").write_text(POD_TOKEN)
    (directory / "credentials/model/api-key").write_text(CREDENTIAL + "\n")
    (directory / "config/operator.pub").write_text(public_key(OPERATOR))
    (directory / "config/gateway.pub").write_text(public_key(GATEWAY))
    async with serving(world.model) as model_port, serving(world.agents) as agent_port:
        world.agent_port = agent_port
        target = ModelTarget(name="m", base_url=f"http://127.0.0.1:{model_port}/v1", credential="model/api-key")
        world.config = a_config(a_route(target))
        (directory / "config" / CONFIG_FILE).write_text(world.config.model_dump_json(by_alias=True))
        prepare(world)
        await world.start()
        try:
            await world.ready()
            yield world
        finally:
            await world.stop()
            await world.http.aclose()
            await world.agent.http.aclose()
