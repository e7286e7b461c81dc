"""A real MCP server, and a door before it that can spoil what passes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp.server.mcpserver import Context, MCPServer

from tenure_sidecar import asgi
from tenure_sidecar.asgi import App, Receive, Scope, Send
from unit.sidecar.support import serving
from unit.sidecar.tools.support import SECRET

Json = dict[str, Any]


class Orders:
    """An MCP server, and what it was asked."""

    def __init__(self) -> None:
        self.server = MCPServer("orders")
        self.called: list[tuple[str, Json]] = []
        hints = types.ToolAnnotations
        self.server.add_tool(self.add, annotations=hints(read_only_hint=True))
        self.server.add_tool(self.note, annotations=hints(idempotent_hint=True))
        for tool in (self.charge, self.fail, self.picture, self.table):
            self.server.add_tool(tool)

    def add(self, a: int, b: int) -> int:
        """Adds two numbers."""
        self.called.append(("add", {}))
        return a + b

    def note(self, text: str, context: Context[Any, Any]) -> str:
        self.called.append(("note", dict(context.request_context.meta or {})))
        return text

    def charge(self, context: Context[Any, Any]) -> str:
        self.called.append(("charge", dict(context.request_context.meta or {})))
        return "charged"

    def fail(self) -> str:
        raise ValueError("secret of the server")

    def picture(self) -> list[types.ContentBlock]:
        linked = types.ResourceLink(name="order 1", uri="orders://1")
        inner = types.TextResourceContents(uri="orders://2", text="in full")
        return [
            types.TextContent(text="two parts"),
            types.ImageContent(data="AAAA", mime_type="image/png"),
            linked,
            types.EmbeddedResource(resource=inner),
        ]

    def table(self) -> types.CallToolResult:
        return types.CallToolResult(content=[], structured_content={"rows": [1, 2]})


class Door:
    """What is between client and server: looks at each message, and may spoil what it is about."""

    def __init__(self, app: App, legacy: bool) -> None:
        self.app = app
        self._legacy = legacy
        self.spoilt: dict[str, Any] = {}
        self.messages: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await asgi.read_body(receive, 1 << 30) if scope["method"] == "POST" else b""
        method = json.loads(body)["method"] if body else scope["method"]
        self.messages.append(method)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self._legacy and method == "server/discover":
            await asgi.respond(send, 404, b"what?", b"text/plain")
            return
        deed = self.spoilt.get(method)
        if deed is not None:
            await deed(send)
            return
        told = False

        async def once() -> Any:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self.app(scope, once, send)


def status(code: int) -> Any:
    async def deed(send: Send) -> None:
        await asgi.respond(send, code, f"no, {SECRET}".encode(), b"text/plain")

    return deed


async def breaks(send: Send) -> None:
    headers = [(b"content-type", asgi.JSON), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    raise ConnectionAbortedError


async def breaks_in_the_middle(send: Send) -> None:
    await asgi.begin(send, 200, asgi.SSE)
    await asgi.more(send, b"event: message\ndata: {")
    raise ConnectionAbortedError


async def babbles(send: Send) -> None:
    await asgi.respond(send, 200, b"<html>", b"text/html")


async def hangs(send: Send) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def opened(
    orders: Orders, port: int = 0, legacy: bool = False, **options: Any
) -> AsyncIterator[tuple[Door, int]]:
    """The server behind its door; the door and its port."""
    app = orders.server.streamable_http_app(**options)
    door = Door(app, legacy)
    async with app.router.lifespan_context(app), serving(door, port) as found:
        yield door, found
