"""Runs the stand-in: as a process, and inside a test's own process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

Application = Callable[..., Awaitable[None]]
"""An ASGI application."""


def config(app: Application, host: str, port: int) -> uvicorn.Config:
    """How it is served."""
    # A scripted cut looks to the server like an application that forgot to end its answer.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[str]:
    """Serves the stand-in, or what a test puts before it, on a free port of the loopback while the block runs.

    Gives the base URL, which ends in `/v1`. There is no `uvicorn.Server` here: it takes the signals of the test
    process, and a tenth of a second to end.
    """
    settings = config(app, "127.0.0.1", 0)
    settings.load()
    protocol: Any = settings.http_protocol_class
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=settings, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.shutdown()
