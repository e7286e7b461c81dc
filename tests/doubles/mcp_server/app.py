"""The server, as an ASGI application; its endpoint is `/mcp`."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

from ..control.effects import Effects
from ..control.inspection import routes

KEY = "tenure.dev/idempotency-key"
"""Key of the `_meta` of a call, by which a repetition is known."""


class Desk:
    """The tools."""

    def __init__(self, secret: str) -> None:
        """`secret` is what `authorized` wants in the header X-Api-Key."""
        self.effects = Effects()
        self._secret = secret

    async def look(self, at: str, context: Context[Any, Any], tag: str = "") -> str:
        """Looks at something."""
        await self.effects.take(tag, _key(context))
        return f"looked at {at}"

    async def note(self, text: str, context: Context[Any, Any], tag: str = "") -> str:
        """Writes a note down; the same note only once."""
        await self.effects.take(tag, _key(context), once=True)
        return f"noted {text}"

    async def charge(self, amount: int, context: Context[Any, Any], tag: str = "") -> str:
        """Takes money."""
        await self.effects.take(tag, _key(context))
        return f"charged {amount}"

    async def authorized(self, context: Context[Any, Any]) -> bool:
        """Tells whether the caller has shown the secret in the header X-Api-Key."""
        shown = (context.headers or {}).get("x-api-key", "")
        return hmac.compare_digest(shown.encode(), self._secret.encode())

    async def slow(self, seconds: float, context: Context[Any, Any], tag: str = "") -> str:
        """Answers after some seconds."""
        await asyncio.sleep(seconds)
        await self.effects.take(tag, _key(context))
        return "slow"

    async def fail(self, context: Context[Any, Any], tag: str = "") -> str:
        """Fails, after it has taken effect."""
        await self.effects.take(tag, _key(context))
        raise ValueError("it failed")

    async def large(self, size: int) -> str:
        """Answers with that many characters."""
        return "x" * size


def application(secret: str) -> Starlette:
    """The server with its inspection endpoints. Its lifespan must be run."""
    desk = Desk(secret)
    server = MCPServer("desk")
    reads, repeatable = ToolAnnotations(read_only_hint=True), ToolAnnotations(idempotent_hint=True)
    tools: list[tuple[Callable[..., Any], ToolAnnotations | None]] = [
        (desk.look, reads),
        (desk.authorized, reads),
        (desk.large, reads),
        (desk.slow, reads),
        (desk.note, repeatable),
        (desk.charge, None),
        (desk.fail, None),
    ]
    for tool, hints in tools:
        server.add_tool(tool, annotations=hints)
    # It is reached by the name of its Service, which the SDK's protection of local servers would refuse.
    anyone = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(transport_security=anyone)
    app.router.routes += routes(desk.effects)
    app.state.effects = desk.effects
    return app


def _key(context: Context[Any, Any]) -> str | None:
    key = dict(context.request_context.meta or {}).get(KEY)
    return key if isinstance(key, str) else None
