"""Talks to the sidecars of sessions: signed tokens, kept-alive connections, streams of turn events.

The client is aiohttp's, which is there for the Kubernetes client anyway: one streamed turn costs it 0.16 ms of CPU
where httpx takes 1.6 ms and httpx2 0.9 ms (measured on two cores, 20 deltas).
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

import aiohttp
from pydantic import ValidationError
from yarl import URL

from tenure_api.messages import Wire
from tenure_api.tokens import LIFETIME_SECONDS, Signer
from tenure_api.wire import Decisions, Failure, ItemPage, Turn, sidecar_url
from tenure_gateway.events import Event, LanguageError, decode
from tenure_gateway.faults import TurnRefused

M = TypeVar("M", bound=Wire)

REUSE_SECONDS = LIFETIME_SECONDS / 2
"""How long a signed token is used again: the other half of its life is for the way and for clocks that disagree."""
_MAX_TOKENS = 10_000
_CONNECT_SECONDS = 2.0
"""Pods of one cluster answer in less than a millisecond; a pod that is gone may not answer at all."""
_READ_SECONDS = 10.0
"""For a page of items or a recorded turn: the sidecar reads them from its disk."""
_CANCEL_SECONDS = 30.0
"""For the end of a turn that is cancelled: calls of tools that are on the way are settled first."""
_UNREACHABLE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
"""What is raised when a connection breaks."""
_KEEP_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000),
)
"""A model may think for minutes without a byte, so silence proves nothing. A node that died is noticed after 11 s: by
probes of an idle connection, and where something was sent, by the time that it may go unacknowledged."""


class BrokenError(Exception):
    """The sidecar could not be reached, went away, or is not ready; asking again may help."""


class UnreachableError(BrokenError):
    """Nothing was taken.

    Nobody answers at the address, or somebody else does, for it is another session's by now; or the session is about to
    fall asleep.
    """


class Ask(NamedTuple):
    """A call whose answer is the stream of a turn."""

    method: str
    path: str
    body: bytes | None = None


class Target(NamedTuple):
    """A session's sidecar, and for whom it is called."""

    identity: str
    """What tokens for it are made out to."""
    address: str
    """IP address of its pod."""
    subject: str
    generation: int
    """Of the session's lease: that of its pod."""

    def url(self, path: str) -> str:
        """Where a call goes."""
        return sidecar_url(self.address, path)


class Line:
    """One call to a sidecar, which can be cut from outside when its pod is known to be gone."""

    def __init__(self) -> None:
        self._dialling: asyncio.Timeout | None = None
        self._answer: aiohttp.ClientResponse | None = None
        self._is_cut = False

    def cut(self) -> None:
        """Breaks the call off, as if the connection had broken."""
        self._is_cut = True
        if self._answer is not None:
            self._answer.close()
        elif self._dialling is not None:
            self._dialling.reschedule(0)

    async def dial(self, request: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        """The answer to a request, as soon as it begins. Raises `TimeoutError` when the line is cut before."""
        try:
            async with asyncio.timeout(0 if self._is_cut else None) as self._dialling:
                self._answer = await request
        finally:
            self._dialling = None
        if self._is_cut:
            # Cut after the answer came and before this task ran: a time-out is not raised once its block is left.
            self._answer.close()
            raise TimeoutError
        return self._answer


class Tokens:
    """Signed tokens for sidecars, used again for half of their life. `clock` is in seconds since the epoch."""

    def __init__(self, signer: Signer, clock: Callable[[], float]) -> None:
        self._signer = signer
        self._clock = clock
        self._signed: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def token(self, identity: str, subject: str) -> str:
        """A token for the sidecar that is bound to this identity."""
        now = self._clock()
        known = self._signed.get((identity, subject))
        if known is not None and abs(now - known[0]) < REUSE_SECONDS:
            return known[1]
        token = self._signer.token(identity, now, subject)
        self._signed[identity, subject] = (now, token)
        self._signed.move_to_end((identity, subject))
        if len(self._signed) > _MAX_TOKENS:
            self._signed.popitem(last=False)
        return token


def _socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    for option in _KEEP_ALIVE:
        made.setsockopt(*option)
    return made


def client() -> aiohttp.ClientSession:
    """The connections to all sidecars: as many as there are turns, kept for a minute."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=_socket, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


class Sidecars:
    """The calls of `wire` that the gateway makes."""

    def __init__(self, http: aiohttp.ClientSession, tokens: Tokens) -> None:
        self._http = http
        self._tokens = tokens

    async def turn(self, target: Target, ask: Ask, seconds: float, line: Line) -> AsyncGenerator[list[Event], None]:
        """Follows a turn to the end of its stream: to its own end, or until it waits for approvals.

        Raises `BrokenError` when the stream breaks or takes longer than `seconds`, or `TurnRefused`.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with await line.dial(self._send(target, ask.method, ask.path, ask.body, timeout)) as response:
                if response.status != 200:
                    raise refusal(response.status, await response.read())
                rest = b""
                async for data in response.content.iter_any():
                    lines = (rest + data).split(b"\n")
                    rest = lines.pop()
                    if lines and (events := decode(lines)):
                        yield events
        except LanguageError as error:
            raise BrokenError(str(error)) from None
        except _UNREACHABLE as error:
            raise UnreachableError(type(error).__name__) from None
        except BROKEN as error:
            raise BrokenError(type(error).__name__) from None

    async def recorded_turn(self, target: Target, turn: str) -> Turn | None:
        """A turn as recorded, or as it is by now; None if there is none. Raises `BrokenError` or `TurnRefused`."""
        status, data = await self.call(target, "GET", f"/v1/turns/{turn}")
        return None if status == 404 else checked(Turn, status, data)

    async def cancel(self, target: Target, turn: str) -> Turn | None:
        """Cancels a turn; None if there is none. Raises `BrokenError` or `TurnRefused`."""
        status, data = await self.call(target, "POST", f"/v1/turns/{turn}/cancel", seconds=_CANCEL_SECONDS)
        return None if status == 404 else checked(Turn, status, data)

    async def decide(self, target: Target, turn: str, decisions: Decisions) -> Turn:
        """Hands on what a person has decided. Raises `BrokenError` or `TurnRefused`."""
        body = decisions.model_dump_json(by_alias=True).encode()
        return checked(Turn, *await self.call(target, "POST", f"/v1/turns/{turn}/approvals", body=body))

    async def items(self, target: Target, query: dict[str, str]) -> ItemPage:
        """A page of the transcript. Raises `BrokenError` or `TurnRefused`."""
        return checked(ItemPage, *await self.call(target, "GET", f"/v1/items?{urlencode(query)}"))

    async def call(
        self,
        target: Target,
        method: str,
        path: str,
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        seconds: float = _READ_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a call; `path` is encoded as in a URL. Raises `BrokenError`."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._send(target, method, path, body, timeout, headers) as response:
                return response.status, await response.read()
        except _UNREACHABLE as error:
            raise UnreachableError(type(error).__name__) from None
        except BROKEN as error:
            raise BrokenError(type(error).__name__) from None

    async def open(
        self, target: Target, path: str, headers: Mapping[str, str] | None = None, seconds: float = _READ_SECONDS
    ) -> aiohttp.ClientResponse:
        """An answer whose body the caller reads and closes; each bit comes within `seconds`. Raises `BrokenError`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=seconds)
        try:
            return await self._send(target, "GET", path, None, timeout, headers)
        except _UNREACHABLE as error:
            raise UnreachableError(type(error).__name__) from None
        except BROKEN as error:
            raise BrokenError(type(error).__name__) from None

    def _send(
        self,
        target: Target,
        method: str,
        path: str,
        body: bytes | AsyncIterable[bytes] | None,
        timeout: aiohttp.ClientTimeout,
        more: Mapping[str, str] | None = None,
    ) -> aiohttp.client._RequestContextManager:
        token = self._tokens.token(target.identity, target.subject)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", **(more or {})}
        url = URL(target.url(path), encoded=True)
        # What comes bit by bit can be sent but once: not before the sidecar says that it takes it.
        streamed = body is not None and not isinstance(body, bytes)
        return self._http.request(method, url, data=body, headers=headers, timeout=timeout, expect100=streamed)


def refusal(status: int, data: bytes) -> Exception:
    """What an answer other than success means."""
    if status in (401, 421):
        return UnreachableError("the address belongs to another session")
    try:
        failure = Failure.model_validate_json(data)
    except ValidationError:
        failure = Failure(code="invalid_response", message=f"The session's sidecar answered {status} without a reason.")
    if failure.code == "draining":
        return UnreachableError("the session is about to fall asleep")
    if status in (502, 503, 504):
        return BrokenError(f"the sidecar answers {status}")
    return TurnRefused(status, failure.code, failure.message)


def checked(model: type[M], status: int, data: bytes) -> M:
    """The message in an answer. Raises `BrokenError` or `TurnRefused`."""
    if status != 200:
        raise refusal(status, data)
    try:
        return model.model_validate_json(data)
    except ValidationError:
        raise BrokenError("the sidecar speaks another language") from None
