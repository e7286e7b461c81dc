"""The process: three doors, one event loop.

Control server for gateway, operator and kubelet; model proxy on the pod's loopback; metrics. One uvicorn server listens
on all three and tells them by the port.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import uvicorn
import uvloop

from tenure_api.configuration import SessionConfig
from tenure_sidecar import asgi, logs
from tenure_sidecar.asgi import App, Receive, Scope, Send
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.control import Control, Gate
from tenure_sidecar.errors import JournalError
from tenure_sidecar.http_client import Client
from tenure_sidecar.metrics import CONTENT_TYPE, Metrics
from tenure_sidecar.proxy.app import ModelProxy
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.proxy.upstream import Upstream
from tenure_sidecar.session import Session
from tenure_sidecar.settings import Settings, from_environment
from tenure_sidecar.shared.door import HostDoor
from tenure_sidecar.shared.host import Host, Room
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.tools.toolbox import Surroundings, Tools
from tenure_sidecar.turn.workflow import Pace

_CLOSE_SECONDS = 6
"""How long a running turn may take to end at shutdown. The hook before the agent's end has given it most of the pod's
grace period already, see `GET /drained`; a turn that still runs goes on in the next pod."""
_KEEP_ALIVE_SECONDS = 75
_SWITCH_SECONDS = 0.0005
"""How long the event loop may keep the interpreter from the journal's thread, whose answer a turn waits for."""

_PACE, _ROOM = Pace(), Room()

log = logging.getLogger(__name__)


class Doors:
    """Gives each request to the application whose port it came to."""

    def __init__(self, by_port: dict[int, App]) -> None:
        self._by_port = by_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._by_port[scope["server"][1]](scope, receive, send)


class Exposition:
    """The metrics as an ASGI application."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = (scope["method"], scope["path"]) == ("GET", "/metrics")
        body = self._metrics.text() if found else b"GET /metrics\n"
        await asgi.respond(send, 200 if found else 404, body, CONTENT_TYPE)


class Server(uvicorn.Server):
    """Leaves the signals to us: a turn is brought to its end before the server stops.

    And does nothing while nothing is asked: uvicorn's own looks ten times a second whether it is to stop, and that in
    every session of a node.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._over = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until the end."""
        await self._over.wait()

    def end(self) -> None:
        """Stop as soon as what was asked is answered, within a second."""
        self.should_exit = True
        self._over.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), backlog=512)


class Owner(Protocol):
    """Whose tools they are: a session, or the host of many."""

    @property
    def config(self) -> SessionConfig | None:
        """The configuration that holds."""

    @property
    def credentials(self) -> Credentials:
        """The credentials of models and tools."""

    def remembered(self) -> dict[str, bytes]:
        """The functions of tools as they were last remembered, by tool."""

    async def remember(self, tool: str, functions: bytes) -> None:
        """Keep the functions of a tool. Raises `JournalError`."""


ToolboxOf = Callable[[Owner], Toolbox]


def build(
    settings: Settings, client: Client, toolbox: ToolboxOf, clock: SteadyClock | None = None
) -> tuple[Session, Doors, list[socket.socket]]:
    """The parts of the process, and the sockets that it listens on."""
    metrics = Metrics()
    session = Session(settings, clock or SteadyClock(), metrics, client, toolbox)
    control = Control(session, Gate(settings.identity, settings.config, time.time))
    upstream = Upstream(client, session.credentials, session.health)
    proxy = ModelProxy(session.pod_token, lambda: session.config, lambda _: session.underway, upstream, metrics)
    return session, *_doors(settings, control, proxy, metrics)


def build_host(
    settings: Settings,
    client: Client,
    toolbox: ToolboxOf,
    clock: SteadyClock | None = None,
    pace: Pace = _PACE,
    room: Room = _ROOM,
) -> tuple[Host, Doors, list[socket.socket]]:
    """The same for a process with many sessions."""
    metrics = Metrics()
    host = Host(settings, clock or SteadyClock(), metrics, client, toolbox, pace, room)
    control = HostDoor(host, Gate(None, settings.config, time.time))
    upstream = Upstream(client, host.credentials, host.health)
    proxy = ModelProxy(host.pod_token, lambda: host.config, host.runs.find, upstream, metrics)
    return host, *_doors(settings, control, proxy, metrics)


def _doors(settings: Settings, control: App, proxy: App, metrics: Metrics) -> tuple[Doors, list[socket.socket]]:
    listeners: list[tuple[socket.socket, App]] = [
        (_listen(settings.host, settings.control_port), control),
        (_listen("127.0.0.1", settings.proxy_port), proxy),
        (_listen(settings.host, settings.metrics_port), Exposition(metrics)),
    ]
    doors = Doors({listener.getsockname()[1]: app for listener, app in listeners})
    return doors, [listener for listener, _ in listeners]


def tools_of(settings: Settings, client: Client) -> ToolboxOf:
    """What makes the tools."""

    def make(owner: Owner) -> Tools:
        around = Surroundings(
            config=lambda: owner.config,
            credentials=owner.credentials,
            client=client,
            executor=settings.exec_socket,
            gateway_token=settings.gateway_token,
            remember=owner.remember,
            remembered=owner.remembered,
        )
        return Tools(around)

    return make


def server_of(doors: Doors) -> Server:
    """The HTTP server, which writes no logs of its own and leaves idle connections to its clients."""
    return Server(
        uvicorn.Config(
            doors,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
    )


async def serve(settings: Settings) -> int:
    """Run until a signal, or until the journal breaks; the exit status."""
    client = Client()
    make = build_host if settings.shared else build
    session, doors, sockets = make(settings, client, tools_of(settings, client))
    logs.configure(lambda: session.name)
    gc.freeze()  # what lives as long as the process need not be looked at by every collection
    server = server_of(doors)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(server.serve(sockets))
    working = asyncio.create_task(session.run())
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, working, stop), return_when=asyncio.FIRST_COMPLETED)
    status = _outcome(working)
    await session.close(_CLOSE_SECONDS if status == 0 else 0)
    working.cancel()
    await asyncio.wait((working,))
    server.end()
    await asyncio.gather(serving, session.release())  # the next process waits for the journal
    await client.close()
    return status


def _outcome(working: asyncio.Task[None]) -> int:
    """0 while the session works, else 1, and the reason in the log."""
    if not working.done():
        return 0
    error = working.exception()
    broken, others = error, None
    if isinstance(error, BaseExceptionGroup):
        broken, others = error.split(JournalError)
    if isinstance(broken, JournalError) or (broken is not None and others is None):
        log.critical("the journal cannot be used any more; the process starts afresh")
    else:
        log.critical("a bug ended the session", exc_info=error)
    return 1


def main() -> None:
    """The command `tenure-sidecar`."""
    try:
        settings = from_environment()
    except ValueError as error:
        sys.exit(str(error))
    logs.configure(lambda: settings.session)
    os.umask(0o077)
    sys.setswitchinterval(_SWITCH_SECONDS)
    sys.exit(uvloop.run(serve(settings)))
