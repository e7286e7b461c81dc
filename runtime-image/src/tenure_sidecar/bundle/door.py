"""`/v1/bundle`: the session as a bundle, and the bundle that a session begins with."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import parse_qs

from tenure_api.bundle import KEY_HEADER, MEDIA_TYPE, parse_key
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.bundle.beginning import Beginning
from tenure_sidecar.bundle.writer import Writer
from tenure_sidecar.errors import BrokenOffError, JournalError, RefusedError
from tenure_sidecar.workspace.door import refusal
from tenure_sidecar.workspace.files import WorkspaceError

log = logging.getLogger(__name__)

_LONGEST_SUBJECT = 253
_KEY = KEY_HEADER.lower().encode()


class BundleDoor:
    """Bundles over the control API."""

    def __init__(self, beginning: Beginning | None, writer: Callable[[str, bytes | None], Writer]) -> None:
        """`beginning` takes a bundle, if there can be one. `writer` makes one for a subject and a key.

        That raises `JournalError` while the journal is not open.
        """
        self._beginning = beginning
        self._writer = writer
        self._writing = asyncio.Lock()

    async def send_bundle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/bundle`. Raises `RefusedError` or `JournalError`, but nothing once the answer has begun.

        Query: `at`, see `Writer.plan`; `subject`, for the manifest; `end=open` leaves the end of the tar to the caller,
        who signs the bundle.
        """
        query = parse_qs(scope["query_string"].decode("latin-1"), encoding="utf-8")
        at, subject, end = (query.get(name, [""])[-1] for name in ("at", "subject", "end"))
        if at and not (at.isdecimal() and at.isascii() and len(at) <= 15):
            raise RefusedError(400, "invalid_query", "at must be the number of a record")
        if end not in ("", "open"):
            raise RefusedError(400, "invalid_query", "end must be open, or left out")
        key = _key(scope)
        await asgi.read_body(receive, 0)
        async with self._writing:  # one at a time: each takes a core
            writer = self._writer(subject[:_LONGEST_SUBJECT], key)
            try:
                await writer.plan(int(at) if at else None)
            except WorkspaceError as error:
                raise refusal(error) from None
            headers = [(b"content-type", MEDIA_TYPE.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                await _until_gone(receive, _send_all(writer.parts(signed_elsewhere=end == "open"), send))
            except (BrokenOffError, JournalError, WorkspaceError) as error:
                log.warning("a bundle breaks off: %s", error)  # without an end, so the server closes the connection

    async def take_bundle(self, scope: Scope, receive: Receive) -> None:
        """`PUT /v1/bundle`. Raises `RefusedError`, `JournalError` or `Gone`."""
        if self._beginning is None:
            raise RefusedError(409, "not_awaited", "this session does not begin with a bundle")
        await self._beginning.receive(receive, _key(scope))


async def _send_all(parts: AsyncIterator[bytes], send: Send) -> None:
    async for part in parts:
        if part:
            await asgi.more(send, part)
    await asgi.end(send)


async def _until_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Do this for as long as the client is there."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        gone.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, BrokenOffError, JournalError, WorkspaceError):
            await working


def _key(scope: Scope) -> bytes | None:
    try:
        return parse_key(asgi.header(scope, _KEY).decode("latin-1"))
    except ValueError as error:
        raise RefusedError(400, "invalid_bundle_key", str(error)) from None
