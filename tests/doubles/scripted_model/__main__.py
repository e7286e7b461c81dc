"""Serves the stand-in on `PORT` (8000), for all addresses. `REQUIRE_API_KEY` sets the key that it wants."""

import os

import uvicorn

from .app import ScriptedModel
from .serving import config

if __name__ == "__main__":
    app = ScriptedModel(os.environ.get("REQUIRE_API_KEY") or None)
    uvicorn.Server(config(app, "0.0.0.0", int(os.environ.get("PORT", "8000")))).run()
