"""Puts the parts together and serves them."""

import gc
import logging
import socket

import uvicorn

from tenure_runtime.app import application
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import ChatCompletionsModel, ResponsesModel, client
from tenure_runtime.settings import Settings
from tenure_runtime.tools import SidecarTools

DRAIN_SECONDS = 5
"""How long running answers may take to end after SIGTERM. The pod has 10 s, and the sidecar needs its part of them."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the sidecar keeps an idle connection, so that it is always the sidecar that closes it."""


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves on a socket that listens already, until SIGTERM or SIGINT."""
    for chatty in ("httpx2", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sidecar = client(settings)
    speaks_chat = settings.api == "ChatCompletions"
    model = (ChatCompletionsModel if speaks_chat else ResponsesModel)(sidecar)
    app = application(AgentLoop(model, SidecarTools(sidecar), settings.window), settings.api_key)
    gc.freeze()  # what is loaded now stays: no collection need look at it again
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])
