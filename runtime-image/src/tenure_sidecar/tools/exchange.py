"""One HTTP exchange with a tool, and what its answer means for the call."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from tenure_api.configuration import HeaderSource
from tenure_sidecar.errors import ConnectError, GarbageError, HttpError
from tenure_sidecar.http_client import Client, Headers, Once, Response
from tenure_sidecar.proxy.credentials import CredentialError, Credentials
from tenure_sidecar.proxy.failure import redact
from tenure_sidecar.tools.failure import BusyError, DownError, ToolFailedError, UnansweredError
from tenure_sidecar.tools.tool import Outcome

ANSWER_LIMIT = 16 * 1024 * 1024
"""Most bytes of one answer."""
_ERROR_LIMIT = 4_096
"""Most characters of an error's body that the model is shown."""
_SHORTEST_SECRET = 4
"""A header's value that is shorter is no secret, and would be found everywhere."""
_LONGEST_PAUSE = 60.0
_MEANINGLESS = frozenset({500, 502, 503, 504, 429})
"""Statuses after which the same request may succeed. 501 and 505 are no such."""


@dataclass(frozen=True)
class Request:
    """A request to a tool."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def with_headers(self, more: Sequence[tuple[str, str]]) -> "Request":
        """With more headers."""
        return Request(self.method, self.url, (*self.headers, *more), self.body)


@dataclass(frozen=True)
class Secrets:
    """The headers of a tool that come from Secrets, as they are at this moment."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, sources: Sequence[HeaderSource], credentials: Credentials) -> "Secrets":
        """Read them. Raises `CredentialError`."""
        found = []
        for source in sources:
            try:
                found.append((source.name, credentials.at(source.credential)))
            except CredentialError as error:
                raise CredentialError(f"there is no value for the header {source.name}: {error}") from error
        return cls(tuple(found))

    def redact(self, text: str) -> str:
        """The text without the values, and without what comes after their scheme."""
        for _, value in self.headers:
            for secret in (value, value.partition(" ")[2]):
                if len(secret) >= _SHORTEST_SECRET:
                    text = redact(text, secret)
        return text


def secrets_for_call(sources: Sequence[HeaderSource], credentials: Credentials) -> Secrets:
    """As `Secrets.of`, for a call. Raises `ToolFailedError`."""
    try:
        return Secrets.of(sources, credentials)
    except CredentialError as error:
        raise DownError(f"The tool cannot be called: {error}. Only the user can mend this.") from error


async def exchange(client: Client, request: Request, secrets: Secrets, once: Once | None) -> Outcome:
    """Send a request; its answer as an outcome. Raises `ToolFailedError`."""
    response = await sent(client, request.with_headers(secrets.headers), once)
    try:
        try:
            body = await response.read_all(ANSWER_LIMIT)
        except GarbageError:
            return Outcome(f"{_status(response)}, but the answer is longer than {ANSWER_LIMIT} bytes.", is_error=True)
        except HttpError as error:
            raise UnansweredError(f"The tool's answer broke off: {error}.") from error
    finally:
        response.close()
    return _meaning(response, body, secrets)


async def sent(client: Client, request: Request, once: Once | None) -> Response:
    """Send a request and wait for the headers of its answer. Raises `ToolFailedError`."""
    headers: Headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    try:
        return await client.send(request.method, request.url, headers, request.body, once)
    except ConnectError as error:
        raise DownError(f"The tool is down: {error}.") from error
    except HttpError as error:
        raise UnansweredError(f"The tool did not answer: {error}.") from error


def _meaning(response: Response, body: bytes, secrets: Secrets) -> Outcome:
    text = secrets.redact(_text(response, body))
    if 200 <= response.status < 300:
        return Outcome(text or f"{_status(response)}; the answer is empty.")
    if 300 <= response.status < 400:
        return Outcome(f"{_status(response)}: it redirects, which is not followed.", is_error=True)
    shown = text if len(text) <= _ERROR_LIMIT else text[:_ERROR_LIMIT] + "…"
    failed = f"{_status(response)}: {shown or 'the answer is empty'}"
    if response.status in _MEANINGLESS:
        raise BusyError(failed, _pause(response))
    return Outcome(failed, is_error=True)


def _status(response: Response) -> str:
    with contextlib.suppress(ValueError):
        return f"The tool answered with status {response.status} ({HTTPStatus(response.status).phrase})"
    return f"The tool answered with status {response.status}"


def _pause(response: Response) -> float | None:
    """What `Retry-After` asks for, if it gives seconds."""
    value = response.header("retry-after")
    return min(float(value), _LONGEST_PAUSE) if value.isdigit() else None


def _text(response: Response, body: bytes) -> str:
    """The body as text; of one that is none, what it is."""
    kind = response.content_type.decode("latin-1")[:100] or "of no type"
    encoding = response.header("content-encoding").lower()
    if encoding in (b"", b"identity") and b"\0" not in body:
        for charset in ("utf-8-sig", _charset(response)):
            with contextlib.suppress(UnicodeDecodeError, LookupError):
                return body.decode(charset)
    return f"(The answer is binary, {kind}, {len(body)} bytes; it cannot be shown.)"


def _charset(response: Response) -> str:
    """The charset that the media type names; a name that is none if there is none."""
    _, _, parameters = response.header("content-type").partition(b";")
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name.lower() == b"charset":
            return value.strip(b"\"' ").decode("latin-1")
    return "no charset"


async def fetched(client: Client, url: str, secrets: Secrets, limit: int, seconds: float) -> bytes:
    """The body of a document. Raises `ToolFailedError`."""
    headers = (("accept", "application/json, application/yaml, */*"), *secrets.headers)
    try:
        async with asyncio.timeout(seconds):
            response = await sent(client, Request("GET", url, headers), None)
            try:
                if response.status != 200:
                    raise ToolFailedError(f"{url} answered {response.status}")
                return await response.read_all(limit)
            finally:
                response.close()
    except HttpError as error:
        raise ToolFailedError(f"{url}: {error}") from error
    except TimeoutError:
        raise DownError(f"{url} did not answer within {seconds:g} s") from None
