"""The sidecar's HTTP client under the MCP SDK.

It adds the headers from Secrets to each request, so that the SDK knows none of them; sends a call at most once; and
says exactly what went wrong, where the SDK would end the whole session or tell no more than that something did. The SDK
follows redirects only within the server's origin, so that no header goes elsewhere.
"""

import asyncio
import json
import secrets as random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2

from tenure_api.configuration import HeaderSource
from tenure_sidecar.codec import decode
from tenure_sidecar.errors import HttpError
from tenure_sidecar.http_client import Client, Once, Response
from tenure_sidecar.proxy.credentials import CredentialError, Credentials
from tenure_sidecar.tools.exchange import ANSWER_LIMIT, Request, Secrets, sent
from tenure_sidecar.tools.failure import BusyError, DownError, ForgottenError, ToolFailedError, UnansweredError

_CODE = -32099
"""Of JSON-RPC's range for implementations. What it means is in `data`."""
_FAILURE = "tenure.dev/failure"
_MOST_FAILURES = 64
_CLOSE_SECONDS = 1.0
_ERROR_LIMIT = 2_000
_OURS = frozenset({"host", "connection", "accept-encoding", "content-length", "user-agent", "transfer-encoding"})
_SESSION = "mcp-session-id"


class RefusedByServerError(ToolFailedError):
    """The server answered with an error of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Bridge(httpx2.AsyncBaseTransport):
    """A transport for `httpx2`. Belongs to one server."""

    def __init__(self, client: Client, headers: Sequence[HeaderSource], credentials: Credentials) -> None:
        """Raises `CredentialError`."""
        self._client = client
        self._headers = headers
        self._credentials = credentials
        self._failures: dict[str, ToolFailedError] = {}
        self.secrets = Secrets.of(headers, credentials)
        """As they were for the latest request."""

    def failure_of(self, data: Any) -> ToolFailedError | None:
        """What went wrong with a request, by the data of the error that came of it."""
        token = data.get(_FAILURE) if isinstance(data, dict) else None
        return self._failures.pop(token, None) if isinstance(token, str) else None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the SDK."""
        content = await request.aread()
        message = _request_in(content)
        seconds = _CLOSE_SECONDS if request.method == "DELETE" else None
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(request, content, message)
        except CredentialError as error:
            return self._failed(message, DownError(f"The tool cannot be called: {error}."))
        except TimeoutError:
            return self._failed(message, UnansweredError("The tool did not answer in time."))
        except ToolFailedError as failure:
            return self._failed(message, failure)

    async def _answer(self, request: httpx2.Request, content: bytes, message: dict[str, Any]) -> httpx2.Response:
        self.secrets = Secrets.of(self._headers, self._credentials)
        headers = tuple((name, value) for name, value in request.headers.items() if name.lower() not in _OURS)
        once = Once() if message.get("method") == "tools/call" else None
        wanted = Request(request.method, str(request.url), headers, content).with_headers(self.secrets.headers)
        response = await sent(self._client, wanted, once)
        names = ("content-type", "location", _SESSION)
        kept = {name: value.decode("latin-1") for name in names if (value := response.header(name))}
        if response.status == 200 and response.content_type == b"text/event-stream":
            return httpx2.Response(200, headers=kept, stream=_Stream(response))
        try:
            body = await response.read_all(ANSWER_LIMIT)
        except HttpError as error:
            raise UnansweredError(f"The tool's answer broke off: {error}.") from error
        finally:
            response.close()
        if response.status == 404 and _SESSION in request.headers:
            raise ForgottenError("The tool's server has forgotten the session.")
        if response.status >= 400 and not _is_error(response, body):
            raise self._refused(response.status, body)
        return httpx2.Response(response.status, headers=kept, content=body)

    def _refused(self, status: int, body: bytes) -> ToolFailedError:
        said = self.secrets.redact(body[:_ERROR_LIMIT].decode(errors="replace")).strip()
        told = f"The tool's server answered with status {status}: {said or 'no more is said'}"
        return BusyError(told) if status == 429 or status >= 500 else RefusedByServerError(status, told)

    def _failed(self, message: dict[str, Any], failure: ToolFailedError) -> httpx2.Response:
        """The failure as an answer that the SDK gives to whoever asked."""
        while len(self._failures) >= _MOST_FAILURES:
            del self._failures[next(iter(self._failures))]
        token = random.token_hex(8)
        self._failures[token] = failure
        error = {"code": _CODE, "message": "the request failed", "data": {_FAILURE: token}}
        content = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "error": error}).encode()
        return httpx2.Response(502, headers={"content-type": "application/json"}, content=content)


class _Stream(httpx2.AsyncByteStream):
    """The body of an answer that comes bit by bit."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while part := await self._response.read():
                yield part
        except HttpError as error:
            raise httpx2.ReadError(str(error)) from error

    async def aclose(self) -> None:
        """Nothing more is read."""
        self._response.close()


def _request_in(content: bytes) -> dict[str, Any]:
    """The JSON-RPC request of a body; empty if it is none."""
    try:
        message = decode(content) if content else None
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _is_error(response: Response, body: bytes) -> bool:
    """Whether an answer is an error in terms of JSON-RPC, which tells more than its status."""
    return response.content_type == b"application/json" and isinstance(_request_in(body).get("error"), dict)
