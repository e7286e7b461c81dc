"""The HTTP servers: uvicorn on httptools, with what it lacks: a limit of time and size for the head of a request."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

_MAX_HEAD = 65_536
"""Longest head of a request, in bytes: room for a token of an identity with many groups."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which common load balancers drop an idle connection, so that they do it first."""


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections whose next request does not begin well in time. Subclasses say what time that is."""

    head_seconds = 30.0

    _timer: asyncio.TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the head so far; None once it is complete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._head is not None:
            self._head += len(data)
            if self._head > _MAX_HEAD:
                # Most of it may be body that came with the head: only what is still no request afterwards is too long.
                super().data_received(data)
                if self._head is not None and not self.transport.is_closing():
                    self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if self._head is None:
            self._begin()

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._stop()
        self._head = None
        super().on_headers_complete()

    def _begin(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol(seconds: float) -> type[GuardedProtocol]:
    """The protocol that waits this long for the head of a request."""
    return type("Protocol", (GuardedProtocol,), {"head_seconds": seconds})


class Server(uvicorn.Server):
    """A server that leaves signals to the process, which has more than one server."""

    def __init__(self, app: ASGIApp, port: int, head_seconds: float, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host="",  # every address, IPv4 and IPv6
                port=port,
                http=protocol(head_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, int(drain_seconds)),
                backlog=2048,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
