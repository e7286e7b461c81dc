"""One session with an MCP server, by the SDK. Only `mcp` imports this module, and only when it is needed."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx2
import mcp_types as types
from mcp import Client as Sdk
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from tenure_api.conditions import Reason
from tenure_api.configuration import McpConfig
from tenure_api.names import VERSION
from tenure_sidecar.http_client import Client
from tenure_sidecar.proxy.credentials import CredentialError, Credentials
from tenure_sidecar.tools.exchange import ANSWER_LIMIT
from tenure_sidecar.tools.failure import DownError, ForgottenError, SourceError, ToolFailedError, UnansweredError
from tenure_sidecar.tools.mcp_transport import Bridge, RefusedByServerError
from tenure_sidecar.tools.tool import Json, Outcome

KEY = "tenure.dev/idempotency-key"
"""Key of the `_meta` of a call; its value is the same whenever the call is made again."""
_MOST_PAGES = 100
_MOST_TOOLS = 10_000
_ERROR_LIMIT = 2_000
_FAILED = (MCPError, ValidationError, RuntimeError)
"""What the SDK raises when a server does not do its part."""
_TALKATIVE = ("mcp", "client", "httpx2", "httpcore2")
"""Loggers of the SDK, which writes session ids and pieces of answers into its logs."""

_Error = TypeVar("_Error", bound=Exception)

for _name in _TALKATIVE:
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class McpSession:
    """A session that is open."""

    def __init__(self, sdk: Sdk, bridge: Bridge, changed: asyncio.Event) -> None:
        self._sdk = sdk
        self._bridge = bridge
        self.changed = changed
        """Set when the server says that its list of tools has changed."""
        self.lost = asyncio.Event()
        """Set when the session is over and a new one is needed."""

    async def tools(self) -> list[Any]:
        """All tools that the server lists. Raises `SourceError`."""
        found: list[Any] = []
        cursor: str | None = None
        try:
            for _ in range(_MOST_PAGES):
                page = await self._sdk.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None or len(found) > _MOST_TOOLS:
                    break
        except _FAILED as error:
            raise _not_listed(self._bridge, error) from error
        return found

    async def call(self, name: str, arguments: Json, key: str) -> Outcome:
        """Call a tool once. Raises `ToolFailedError`."""
        try:
            meta: Any = {KEY: key}
            result = await self._sdk.call_tool(name, arguments, meta=meta)
        except MCPError as error:
            raise_failure(self._failure(error))
            said = self._bridge.secrets.redact(error.message)[:_ERROR_LIMIT]
            return Outcome(f"The tool answered with error {error.code}: {said}", is_error=True)
        except (ValidationError, RuntimeError):
            return Outcome(
                "The tool was called, but its answer is not what the protocol or its own schema says.", is_error=True
            )
        return Outcome(self._bridge.secrets.redact(text_of(result)), is_error=bool(result.is_error))

    async def follow(self) -> None:
        """Hear of changes of the list, if the server tells them in a stream of their own."""
        tools = self._sdk.server_capabilities.tools
        if tools is None or not tools.list_changed or self._sdk.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return
        try:
            async with self._sdk.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self.changed.set()
        except Exception as error:  # noqa: BLE001 - the list is refreshed from time to time anyway
            logging.getLogger(__name__).info("an MCP server does not tell changes: %s", type(error).__name__)

    def _failure(self, error: MCPError) -> ToolFailedError | None:
        """What an error that is none of the server's own means."""
        failure = self._bridge.failure_of(error.data)
        if isinstance(failure, ForgottenError):
            self.lost.set()
        if failure is None and error.code == types.CONNECTION_CLOSED:
            self.lost.set()
            return UnansweredError("The connection to the tool ended before its answer came.")
        return failure


def raise_failure(failure: ToolFailedError | None) -> None:
    """Raise it if there is one."""
    if failure is not None:
        raise failure


@asynccontextmanager
async def connected(
    config: McpConfig, client: Client, credentials: Credentials, seconds: float
) -> AsyncIterator[McpSession]:
    """A session with a server. Raises `SourceError`, also from the block when the connection breaks down."""
    changed = asyncio.Event()

    async def heard(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    try:
        bridge = Bridge(client, config.headers, credentials)
    except CredentialError as error:
        raise SourceError(Reason.CREDENTIAL_MISSING, str(error)) from error
    failed: SourceError | None = None
    try:
        async with (
            httpx2.AsyncClient(transport=bridge, timeout=None) as http,
            asyncio.timeout(seconds) as limit,
            Sdk(
                streamable_http_client(config.url, http_client=http, max_sse_event_size=ANSWER_LIMIT),
                message_handler=heard,
                client_info=types.Implementation(name="tenure", version=VERSION),
                cache=None,
            ) as sdk,
        ):
            limit.reschedule(None)
            session = McpSession(sdk, bridge, changed)
            following = asyncio.create_task(session.follow())
            try:
                yield session
            finally:
                following.cancel()
    except* SourceError as errors:
        failed = _first(errors)
    except* TimeoutError:
        failed = SourceError(Reason.UNREACHABLE, f"{config.url} does not answer in time")
    except* (*_FAILED, httpx2.HTTPError, anyio.BrokenResourceError, anyio.ClosedResourceError) as errors:
        failed = _not_listed(bridge, _first(errors))
    if failed is not None:
        raise failed


def _first(errors: BaseExceptionGroup[_Error]) -> _Error:
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _not_listed(bridge: Bridge, error: Exception) -> SourceError:
    """Why there is no session or no list."""
    failure = bridge.failure_of(error.data) if isinstance(error, MCPError) else None
    if isinstance(failure, RefusedByServerError) and failure.status in (401, 403):
        return SourceError(Reason.UNAUTHORIZED, str(failure))
    if isinstance(failure, DownError | UnansweredError):
        return SourceError(Reason.UNREACHABLE, str(failure))
    if failure is not None:
        return SourceError(Reason.INVALID_RESPONSE, str(failure))
    if isinstance(error, MCPError):
        said = bridge.secrets.redact(error.message)[:_ERROR_LIMIT]
        return SourceError(Reason.INVALID_RESPONSE, f"the server answered with error {error.code}: {said}")
    if isinstance(error, ValidationError | RuntimeError):
        return SourceError(Reason.INVALID_RESPONSE, "the server's answer is not what the protocol says")
    return SourceError(Reason.UNREACHABLE, "the connection to the server broke")


def text_of(result: Any) -> str:
    """What a model can read of a result."""
    parts = [_part(part) for part in result.content]
    if (
        not any(isinstance(part, types.TextContent) for part in result.content)
        and result.structured_content is not None
    ):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts) or "(The tool answered with nothing.)"


def _part(part: Any) -> str:
    match part:
        case types.TextContent():
            return part.text
        case types.ImageContent() | types.AudioContent():
            return f"({part.type}, {part.mime_type}, about {len(part.data) * 3 // 4} bytes; it cannot be shown)"
        case types.ResourceLink():
            return f"(resource {part.name}: {part.uri})"
        case types.EmbeddedResource(resource=types.TextResourceContents() as inner):
            return f"(resource {inner.uri})\n{inner.text}"
        case types.EmbeddedResource(resource=types.BlobResourceContents() as inner):
            return (
                f"(resource {inner.uri}, {inner.mime_type}, about {len(inner.blob) * 3 // 4} bytes; it cannot be shown)"
            )
    return f"(a part of the kind {str(getattr(part, 'type', 'unknown'))[:32]}; it cannot be shown)"
