"""The HTTP face of the runtime: `POST /v1/chat/completions` and `GET /healthz`."""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tenure_api.wire import RUN_HEADER
from tenure_runtime import run
from tenure_runtime.errors import BadRequestError, FaultError
from tenure_runtime.loop import AgentLoop

_log = logging.getLogger(__name__)

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
_DOCUMENT = [(b"content-type", b"application/json")]


def application(loop: AgentLoop, token: str) -> Starlette:
    """The app. `token` is what callers must present as bearer token."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", ChatCompletions(loop, token), methods=["POST"]),
            Route("/healthz", _healthz),
        ]
    )


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok")


class ChatCompletions:
    """`POST /v1/chat/completions` as an ASGI application of its own.

    Not a Starlette endpoint, because the model call must be cancelled as soon as the client is gone, also while
    nothing can be sent yet.
    """

    def __init__(self, loop: AgentLoop, token: str) -> None:
        self._loop = loop
        self._authorization = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        presented = Headers(scope=scope).get("authorization", "").encode()
        if not hmac.compare_digest(presented, self._authorization):
            refusal = BadRequestError("the bearer token is not the one of this pod", status=401, code="invalid_api_key")
            await JSONResponse(refusal.body, refusal.status)(scope, receive, send)
            return
        body = await _body(receive)
        if body is not None:
            await _until_gone(receive, lambda: self._serve(body, scope, receive, send))

    async def _serve(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        run.enter(Headers(scope=scope).get(RUN_HEADER, ""))
        started = streams = False
        try:
            request = _parsed(body)
            streams = bool(request.get("stream"))
            async with aclosing(self._loop.answer(request)) as pieces:
                async for piece in pieces:
                    if not started:
                        headers = _EVENTS if streams else _DOCUMENT
                        await send({"type": "http.response.start", "status": 200, "headers": headers})
                        started = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except FaultError as fault:
            _log.warning("a request failed with status %d, code %s", fault.status, fault.error.get("code"))
            if not started:
                await JSONResponse(fault.body, fault.status)(scope, receive, send)
                return
            # The status is out already: the error ends the stream, and `[DONE]` never comes.
            await send({"type": "http.response.body", "body": _event(fault.body), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError:
        raise BadRequestError("the body is not valid JSON") from None
    if not isinstance(request, dict):
        raise BadRequestError("the body must be a JSON object")
    return request


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if the client went away before it had sent it."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _until_gone(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Does the work, and cancels it when the client goes away."""
    working = asyncio.ensure_future(work())
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
