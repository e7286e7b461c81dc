"""Serves the stand-in on `PORT` (8000), for all addresses. `API_SECRET` sets what `/private` wants."""

import os

import uvicorn

from .app import application

if __name__ == "__main__":
    uvicorn.run(
        application(os.environ.get("API_SECRET", "open-sesame")),
        host="0.0.0.0",
        port=int(os.environ.get("PORT", "8000")),
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
