"""The process `tenure-gateway`: its settings, its servers, and its end.

On SIGTERM `/readyz` turns to 503, while requests are served on for the drain delay, because endpoints lag behind;
answers then close their connections. After that the port is closed and requests in flight may end in the drain time.
"""

import asyncio
import gc
import logging
import os
import signal
import sys

import uvloop

from tenure_api.environment import InvalidSettingsError
from tenure_gateway import api_client, operations, sidecar
from tenure_gateway.gateway import Gateway, assemble
from tenure_gateway.server import Server
from tenure_gateway.settings import Settings, from_environment

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 5.0
"""For the deletion of throwaway sessions at the very end; their time of expiry is the backstop."""


class StoppedError(Exception):
    """A part that should run for ever has ended."""


async def serve(settings: Settings, signing_key: str) -> None:
    """Serves until the process is told to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = await api_client.connect()
    try:
        async with sidecar.client() as http:
            await _run(settings, assemble(settings, signing_key, cluster, http), stop)
    finally:
        await cluster.close()


async def _run(settings: Settings, gateway: Gateway, stop: asyncio.Event) -> None:
    api = Server(gateway.front, settings.port, settings.receive_timeout_seconds, settings.drain_seconds)
    probes = operations.application(gateway.metrics, gateway.unready)
    side = Server(probes, settings.metrics_port, settings.receive_timeout_seconds, 0)
    following = asyncio.create_task(gateway.follow())
    serving = [asyncio.create_task(server.serve()) for server in (api, side)]
    stopping = asyncio.create_task(stop.wait())
    # What lives from here on lives long: the collector need not look at all of it again and again.
    gc.collect()
    gc.freeze()
    done, _ = await asyncio.wait({following, stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
    if stopping not in done:
        for task in done:
            task.result()
        raise StoppedError("a server has ended by itself")
    log.info("draining")
    gateway.front.draining = True
    await asyncio.sleep(settings.drain_delay_seconds)
    api.should_exit = True
    await serving[0]
    try:
        await asyncio.wait_for(gateway.sessions.settle(), _SETTLE_SECONDS)
    except TimeoutError:
        log.warning("some throwaway sessions are left to expire")
    side.should_exit = True
    await serving[1]
    following.cancel()
    log.info("ended")


def main() -> None:
    """Entry point. Exits with a sentence where the settings are wrong."""
    try:
        settings = from_environment(os.environ)
        signing_key = settings.signing_key_file.read_text()
        settings.trusted_keys()
    except (InvalidSettingsError, OSError) as error:
        sys.exit(f"tenure-gateway: {error}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvloop.run(serve(settings, signing_key))
