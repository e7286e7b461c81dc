"""The process `tenure-runtime`."""

import gc
import logging
import os
import sys

import uvicorn

from tenure_runtime.app import application
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import ChatCompletionsModel, ResponsesModel, client
from tenure_runtime.settings import Settings, SettingsError

DRAIN_SECONDS = 5
"""How long running answers may take to end after SIGTERM. The pod has 10 s, and the sidecar needs its part of them."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the sidecar keeps an idle connection, so that it is always the sidecar that closes it."""


def main() -> None:
    """Serves until it is told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("httpx2", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        sys.exit(f"tenure-runtime: {error}")
    speaks_chat = settings.api == "ChatCompletions"
    model = (ChatCompletionsModel if speaks_chat else ResponsesModel)(client(settings))
    app = application(AgentLoop(model, settings.window), settings.api_key)
    gc.freeze()  # what is loaded now stays: no collection need look at it again
    uvicorn.run(
        app,
        host="0.0.0.0",  # noqa: S104 - the kubelet's probe comes from outside; the NetworkPolicy and the token guard it
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


if __name__ == "__main__":
    main()
