"""The HTTP client of the sidecar: aiohttp, with what the sidecar expects of every server that it calls.

It follows no redirects, keeps no cookies, takes no proxy from the environment, asks for no compression, and lets the
caller bound size and time. Two hops of every turn go through it, to the agent container and to the model; aiohttp costs
about a fifth of httpx's CPU time there.
"""

import asyncio
from types import SimpleNamespace

import aiohttp
import yarl

from tenure_sidecar.errors import BrokenError, ConnectError, GarbageError, HttpError

_IDLE_SECONDS = 30
_LINGER_SECONDS = 1.0
"""How long an answer that is over for its reader may take to end its transfer, for its connection to be kept."""
_LINGER_LIMIT = 64 * 1024
_CONNECT_SECONDS = 30
_UNASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add by itself."""

Headers = list[tuple[bytes, bytes]]


class Response:
    """An answer whose headers have come. It must be closed."""

    def __init__(self, response: aiohttp.ClientResponse, lingering: set[asyncio.Task[None]]) -> None:
        self._response = response
        self._lingering = lingering
        self.status = response.status

    @property
    def content_type(self) -> bytes:
        """Media type, without parameters, in lower case; empty if there is none."""
        return self.header("content-type").partition(b";")[0].strip().lower()

    def header(self, name: str) -> bytes:
        """A header, empty if it is not there."""
        return self._response.headers.get(name, "").encode("utf-8", "surrogateescape")

    async def read(self) -> bytes:
        """The next part of the body; empty at its end. Raises `HttpError`."""
        try:
            return await self._response.content.readany()
        except aiohttp.ClientError as error:
            raise _read_error(error) from error
        except OSError as error:
            raise BrokenError("the connection ended before the answer did") from error

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body. Raises `HttpError`, also if it is longer than `limit` bytes."""
        parts, size = [], 0
        while part := await self.read():
            size += len(part)
            if size > limit:
                raise GarbageError(f"the answer is longer than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def close(self, ended: bool = False) -> None:
        """Keep the connection if the answer was read to its end, else end it.

        `ended` says that the answer is over for its reader, who did not wait for the end of its transfer: the
        connection is kept if that comes soon.
        """
        if self._response.content.at_eof():
            self._response.release()
        elif ended:
            task = asyncio.ensure_future(self._linger())
            self._lingering.add(task)
            task.add_done_callback(self._lingering.discard)
        else:
            self._response.close()

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.read_all(_LINGER_LIMIT)
        except (HttpError, TimeoutError):
            pass
        finally:
            # Gives the connection back only if all of the answer was read; otherwise it is ended.
            self._response.release()


class Once:
    """For a request that must not be sent twice, and of which one wants to know how far it came."""

    def __init__(self) -> None:
        self.sent = False
        """Whether the server may have got some of it."""


class Client:
    """Sends requests. Belongs to one event loop, which must be running when the first request is sent."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None
        self._lingering: set[asyncio.Task[None]] = set()

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes = b"", once: Once | None = None
    ) -> Response:
        """Send a request and wait for the headers of its answer. Raises `HttpError`.

        A kept connection may be closed by the server at the moment of its use; if it ends before the first byte of an
        answer, the request is sent again, once. With `once`, it gets a connection of its own and is never sent again.
        """
        used = SimpleNamespace(kept=False, once=once)
        try:
            return await self._send(method, url, headers, body, used)
        except BrokenError:
            if not used.kept:
                raise
        return await self._send(method, url, headers, body, used)

    async def close(self) -> None:
        """End all connections."""
        for task in self._lingering:
            task.cancel()
        for session in (self._session, self._single):
            if session is not None:
                await session.close()

    async def _send(self, method: str, url: str, headers: Headers, body: bytes, used: SimpleNamespace) -> Response:
        used.kept = False
        texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            response = await self._session_for(used.once).request(
                method,
                _exact(url),
                headers=texts,
                data=body,
                allow_redirects=False,
                trace_request_ctx=used,
                middlewares=(_never_again,) if used.once is not None else (),
            )
        except aiohttp.ClientConnectorError as error:
            raise ConnectError(f"cannot connect to {error.host}:{error.port}: {error.strerror or error}") from error
        except (aiohttp.ServerTimeoutError, TimeoutError) as error:
            raise ConnectError(f"cannot connect within {_CONNECT_SECONDS} s") from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise ConnectError("cannot connect: the URL has no proper host") from error
        except aiohttp.ClientError as error:
            raise _read_error(error) from error
        except OSError as error:
            raise BrokenError("the connection ended before the answer did") from error
        return Response(response, self._lingering)

    def _session_for(self, once: Once | None) -> aiohttp.ClientSession:
        if once is not None:
            self._single = self._single or _session(aiohttp.TCPConnector(limit=0, force_close=True))
            return self._single
        self._session = self._session or _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS))
        return self._session


def _exact(url: str) -> yarl.URL | str:
    """A URL that is encoded already, as it is: else yarl decodes what it thinks needs no code."""
    return yarl.URL(url, encoded=True) if url.isascii() and url.isprintable() and " " not in url else url


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_kept)
    tracing.on_connection_create_end.append(_note_connected)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_UNASKED,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        trace_configs=[tracing],
    )


async def _note_kept(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.kept = True


async def _note_connected(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    if context.trace_request_ctx.once is not None:
        context.trace_request_ctx.once.sent = True


async def _never_again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide a broken connection from aiohttp, which by itself sends a request of an idempotent method again."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise BrokenError("the connection ended before the answer did") from error


def _read_error(error: aiohttp.ClientError) -> HttpError:
    """What a failure of aiohttp means for us; its own text may quote what the server sent, so it is not passed on."""
    if isinstance(error, aiohttp.ClientResponseError):
        return GarbageError("the answer is not HTTP")
    return BrokenError("the connection ended before the answer did")
