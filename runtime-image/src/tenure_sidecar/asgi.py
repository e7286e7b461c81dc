"""The little of HTTP that the sidecar's three doors need, straight on ASGI: every request of a turn passes here."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from pydantic import ValidationError

from tenure_api.messages import Wire
from tenure_api.wire import Failure
from tenure_sidecar.errors import RefusedError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"


class Gone(Exception):  # noqa: N818 - not an error: the client has left, and nobody hears an answer
    """The client has closed the connection."""


def header(scope: Scope, name: bytes) -> bytes:
    """A header of the request, empty if it has none of this name."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def bearer(scope: Scope) -> str:
    """The bearer token of the request, empty if it has none."""
    scheme, _, token = header(scope, b"authorization").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body of the request. Raises `RefusedError` if it is longer than `limit` bytes, `Gone` if it never ends."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise RefusedError(413, "request_too_large", f"the request is longer than {limit} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


MessageT = TypeVar("MessageT", bound=Wire)


def parsed(kind: type[MessageT], body: bytes, code: str, lead: str = "") -> MessageT:
    """The message in a body. Raises `RefusedError` with this code, naming what is wrong but quoting nothing of it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(400, code, f"{lead}{where}: {first['msg']}") from None


class Noted:
    """What an answer is sent by, which knows whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send on."""
        self.begun = True
        await self._send(message)


async def begin(send: Send, status: int, content_type: bytes) -> None:
    """Begin an answer whose length is not known."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})


async def more(send: Send, body: bytes) -> None:
    """A part of that answer."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def end(send: Send, body: bytes = b"") -> None:
    """The last part of that answer."""
    await send({"type": "http.response.body", "body": body})


async def respond(send: Send, status: int, body: bytes, content_type: bytes = JSON) -> None:
    """A whole answer."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: RefusedError) -> None:
    """A refusal as `wire.Failure`."""
    failure = Failure(code=error.code, message=error.message)
    await respond(send, error.status, failure.model_dump_json(by_alias=True).encode())
