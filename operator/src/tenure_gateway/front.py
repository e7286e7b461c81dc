"""The outermost layer of the API: what holds for every request, whatever its route.

Each answer has an `x-request-id`. The body is read here, within its limits of size and time, before the route is asked,
except for files that are uploaded.
When the client goes away, the work for it is cancelled. What nobody expected becomes a 500 and a traceback in the log.
"""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pydantic_core
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenure_gateway.faults import Fault
from tenure_gateway.metrics import Metrics
from tenure_gateway.openai.errors import ApiError, Json
from tenure_gateway.upload import MAX_FILE

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})
_UNMATCHED = "unmatched"
_CLOSE = {"connection": "close"}
_UPLOADS = re.compile(r"/v1/(containers/[^/]+/files|tenure/sessions/[^/]+/[^/]+/bundle)")
"""Where files and bundles are uploaded: those bodies are longer, and are not held here."""
_THROWN_AWAY = 16
"""Times the limit: so much of a body that is too long is read all the same. A client that is still sending when the
connection is closed sees it break and never the answer."""


def json_response(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(pydantic_core.to_json(body), status, headers, "application/json")


def error_response(error: ApiError) -> Response:
    """An answer in OpenAI's error shape."""
    return json_response(error.body(), error.status, error.headers)


class EventStream(Response):
    """An answer of server-sent events. `closed` is called once, however it ends."""

    def __init__(self, events: AsyncGenerator[bytes, None], closed: Callable[[], None]) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._events = events
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events as they come."""
        try:
            async with aclosing(self._events):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for data in self._events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._closed()


class Download(Response):
    """A file as it comes. If that breaks off, so does the connection: the client is not to take it for the whole."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file."""
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for data in self._chunks:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except Fault as fault:
                log.warning("a file breaks off: %s", fault)
                return  # without an end, so the server closes the connection
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _DisconnectedError(Exception):
    """The client went away before its request was complete."""


def _late() -> ApiError:
    return ApiError(408, "request_timeout", "The body did not come in time.", headers=_CLOSE)


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send, request_id: str, last: bool) -> None:
        self._receive = receive
        self._send = send
        self._headers = [(b"x-request-id", request_id.encode())]
        if last:
            self._headers.append((b"connection", b"close"))
        self.status = 0
        """Status of the answer; 0 before there is one."""
        self.complete = False
        """Whether the whole answer has been sent."""

    async def send(self, message: Message) -> None:
        """Sends a piece of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._headers]
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    async def run_uploading(self, app: ASGIApp, scope: Scope, seconds: float, most: int) -> None:
        """Has the application answer, which reads the body itself: each bit within `seconds`.

        Where it answers before it has read all, the rest is read first, up to `most` bytes and for so long: a client
        that is still sending when the connection is closed sees it break and never the answer.
        """
        more, size = True, 0

        async def receive() -> Message:
            nonlocal more, size
            try:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
            except TimeoutError:
                more = False
                raise _late() from None
            if message["type"] == "http.disconnect":
                more = False
                raise _DisconnectedError
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            return message

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while more and size <= most:
                            await receive()
            await self.send(message)

        await app(scope, receive, send)

    async def run(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        """Has the application answer, and cancels that when the client goes away."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI server runs every request in a task
        bodies = iter((body,))
        gone = False

        async def receive_body() -> Message:
            for data in bodies:
                return {"type": "http.request", "body": data, "more_body": False}
            await asyncio.Event().wait()  # the disconnect is looked after here
            raise AssertionError

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            # Servers also say so when the answer is complete.
            if not self.complete:
                gone = True
                task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await app(scope, receive_body, self.send)
        except asyncio.CancelledError:
            if not gone or task.uncancel() > 0:
                raise
        finally:
            watcher.cancel()


class Front:
    """The layer itself. `templates` are the routes' paths by endpoint, for the metrics."""

    def __init__(
        self,
        app: ASGIApp,
        templates: Mapping[Any, str],
        metrics: Metrics,
        max_body: int,
        receive_seconds: float,
    ) -> None:
        self._app = app
        self._templates = templates
        self._metrics = metrics
        self._max_body = max_body
        self._receive_seconds = receive_seconds
        self.draining = False
        """Whether clients are told to take their next request elsewhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        request_id = f"req_{secrets.token_hex(12)}"
        exchange = _Exchange(receive, send, request_id, self.draining)
        self._metrics.in_flight.inc()
        try:
            if scope["method"] == "POST" and _UPLOADS.fullmatch(scope["path"]):
                await exchange.run_uploading(self._app, scope, self._receive_seconds, 2 * MAX_FILE)
            else:
                await exchange.run(self._app, scope, await self._body(scope, receive))
        except _DisconnectedError:
            pass
        except ApiError as error:
            await error_response(error)(scope, receive, exchange.send)
        except Exception:
            log.exception("request %s failed", request_id)
            if not exchange.complete:
                raise  # the server breaks the connection, so that the client does not take it for the end
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(
                self._templates.get(scope.get("endpoint"), _UNMATCHED),
                scope["method"] if scope["method"] in _METHODS else "other",
                f"{exchange.status // 100}xx" if exchange.status else "disconnected",
            ).inc()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises `ApiError` if it is too long or late, or `_DisconnectedError`."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > _THROWN_AWAY * self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._receive_seconds):
                more = True
                while more and size <= _THROWN_AWAY * self._max_body:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _DisconnectedError
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= self._max_body:
                        parts.append(part)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise _late() from None
        if size > self._max_body:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(413, "request_too_large", f"The body is longer than {self._max_body} bytes.", headers=_CLOSE)
