"""Arrangements that the tests of the tools share."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tenure_api.configuration import HeaderSource, ModelRoute, ModelTarget, SessionConfig, ToolConfig
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.http_client import Client
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.tools.tool import Attempt, Outcome
from tenure_sidecar.tools.toolbox import Surroundings, Tools

Json = dict[str, Any]
SECRET = "sk-a-real-secret"
HEADERS = [HeaderSource(name="Authorization", credential="orders/token")]
TURN = "0123456789abcdef" * 2
ATTEMPT = Attempt("key-of-this-call", TURN, 7)


class World:
    """A toolbox whose configuration, credentials and memory the test has in its hands."""

    def __init__(self, directory: Path, *tools: ToolConfig) -> None:
        self.directory = directory
        self.kept: dict[str, bytes] = {}
        self.client = Client()
        self.config = self.configured(*tools)
        (directory / "credentials/orders").mkdir(parents=True)
        (directory / "token").write_text("token-of-this-pod\n")
        self.credential = directory / "credentials/orders/token"
        self.credential.write_text(f"Bearer {SECRET}\n")
        self.credentials = Credentials(directory / "credentials")
        self.tools = self.made()

    @staticmethod
    def configured(*tools: ToolConfig, gateway: str = "") -> SessionConfig:
        route = ModelRoute(api="ChatCompletions", targets=[ModelTarget(name="m", base_url="http://127.0.0.1:9/v1")])
        return SessionConfig(
            agent="bot", agent_uid="a1", agent_generation=1, model=route, tools=list(tools), gateway_url=gateway
        )

    def made(self) -> Tools:
        """A toolbox as a new process has it."""
        around = Surroundings(
            config=lambda: self.config,
            credentials=self.credentials,
            client=self.client,
            executor=self.directory / "exec.sock",
            gateway_token=self.directory / "token",
            remember=self._remember,
            remembered=lambda: self.kept,
        )
        return Tools(around)

    async def _remember(self, name: str, what: bytes) -> None:
        self.kept[name] = what

    def now(self, *tools: ToolConfig) -> None:
        """From now on the agent has these tools."""
        self.config = self.configured(*tools)
        self.tools.wake()

    async def call(self, name: str, arguments: Json | str | None = None) -> Outcome:
        """Call a function."""
        function = self.tools.find(name)
        assert function is not None, f"{name} is not offered"
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        return await self.tools.call(function, text, ATTEMPT)

    def names(self) -> list[str]:
        return [function.name for function in self.tools.functions()]


@asynccontextmanager
async def a_world(directory: Path, *tools: ToolConfig) -> AsyncIterator[World]:
    """A toolbox that is at work."""
    world = World(directory, *tools)
    running = asyncio.create_task(world.tools.run())
    try:
        await world.tools.ready()
        yield world
    finally:
        running.cancel()
        await asyncio.wait([running])
        await world.client.close()


Answer = Callable[["Asked", Send], Awaitable[None]]


class Asked:
    """A request that a server got."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.method = scope["method"]
        self.path = scope["raw_path"].decode()
        self.query = scope["query_string"].decode()
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Answers each request with the next of the given answers, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked(scope, await asgi.read_body(receive, 1 << 30))
        self.asked.append(asked)
        await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(asked, send)


def says(body: Json | str | bytes = "done", status: int = 200, kind: bytes = b"", **headers: str) -> Answer:
    """An answer with a whole body."""
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    kind = kind or (b"application/json" if isinstance(body, dict) else b"text/plain; charset=utf-8")

    async def answer(_asked: Asked, send: Send) -> None:
        pairs = [(b"content-type", kind), *((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})

    return answer


async def hangs(_asked: Asked, _send: Send) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def breaks(_asked: Asked, send: Send) -> None:
    """Ends the connection in the middle of an answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise ConnectionAbortedError
