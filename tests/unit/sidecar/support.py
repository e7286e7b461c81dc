"""Arrangements that the tests of the sidecar share."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from tenure_api.configuration import EffectivePolicy, ModelRoute, ModelTarget, SessionConfig
from tenure_api.wire import Message, Role, TurnRequest
from tenure_sidecar.asgi import App
from tenure_sidecar.clock import Clock
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import Journal

KEY = bytes(range(32))
SESSION = "7f6d2a0e-0000-4000-8000-000000000001"
NOON = 1_800_000_000.0


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


def open_journal(
    directory: Path, key: bytes = KEY, clock: Clock | None = None, session: str = SESSION, generation: int = 0
) -> Journal:
    lease = Lease(directory, generation)
    return Journal(directory, Sealer(key, session), session, clock or HandClock(), lease)


def turn_id() -> str:
    return secrets.token_hex(16)


def a_turn(text: str = "hello", turn: str | None = None, previous: str | None = None) -> TurnRequest:
    said = [Message(role=Role.USER, text=text)]
    return TurnRequest(turn=turn or turn_id(), input=said, previous_turn=previous)


def a_policy(
    age: int | None = None, count: int | None = None, generation: int = 1, uid: str = "p1", interval: int = 60
) -> EffectivePolicy:
    return EffectivePolicy(
        name="policy",
        uid=uid,
        generation=generation,
        transcript_max_age_seconds=age,
        transcript_max_count=count,
        interval_seconds=interval,
    )


def a_route(*targets: ModelTarget, api: str = "ChatCompletions", seconds: int = 5) -> ModelRoute:
    return ModelRoute.model_validate({"api": api, "targets": targets, "first_token_timeout_seconds": seconds})


def a_config(
    route: ModelRoute | None = None,
    generation: int = 1,
    policy: EffectivePolicy | None = None,
    uid: str = "a1",
    instructions: str = "",
) -> SessionConfig:
    return SessionConfig(
        agent="bot",
        agent_uid=uid,
        agent_generation=generation,
        instructions=instructions,
        model=route or a_route(ModelTarget(name="m", base_url="http://127.0.0.1:9/v1")),
        policy=policy,
    )


def files_of(directory: Path) -> dict[str, bytes]:
    """The raw bytes of every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@asynccontextmanager
async def hosting(app: App, *listeners: socket.socket) -> AsyncIterator[None]:
    """The application behind these sockets, by uvicorn's protocol but without its server, whose end takes its time."""
    config = uvicorn.Config(app, interface="asgi3", http="httptools", ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def protocol() -> asyncio.Protocol:
        made: asyncio.Protocol = config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]
        return made

    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(protocol, sock=listener) for listener in listeners]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(app: App, port: int = 0) -> AsyncIterator[int]:
    """The application on a loopback socket; its port."""
    listener = socket.create_server(("127.0.0.1", port))
    async with hosting(app, listener):
        yield listener.getsockname()[1]


@asynccontextmanager
async def speaking(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server that speaks raw bytes; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has come about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the things waited for have no event
            await asyncio.sleep(0.002)
