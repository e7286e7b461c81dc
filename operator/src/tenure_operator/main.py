"""The operator's process: settings, signing keys, the Lease, and kopf while this process leads."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import uvloop

from tenure_api.environment import InvalidSettingsError
from tenure_operator import watch
from tenure_operator.api_client import ApiClient
from tenure_operator.assembly import VISITS_AT_A_TIME, Operator, patiently
from tenure_operator.errors import LostLeaseError, OperatorError
from tenure_operator.health import Health
from tenure_operator.leader import Leader
from tenure_operator.metrics import Metrics
from tenure_operator.settings import Settings, from_environment
from tenure_operator.signing import SigningKeys, signing_keys

KEPT_OPEN = 256
"""Connections to sidecars that are kept for the next call."""
KEPT_OPEN_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Process:
    """One run of the operator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._health = Health(self._metrics.text)
        self._starting = False
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Stands by, leads, and ends on SIGTERM. Raises `LostLeaseError` when another leads."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        self._health.ready.append(lambda: "not all objects are known yet" if self._starting else None)
        async with AsyncExitStack() as stack:
            api = await ApiClient.connect(self._metrics.wrote)
            stack.push_async_callback(api.close)
            runner = await self._health.serve(self._settings.port)
            stack.push_async_callback(runner.cleanup)
            leader = Leader(api, self._settings.namespace, self._settings.pod_name)
            if not await self._unless_stopped(leader.acquire()):
                return
            stack.push_async_callback(leader.release)
            await self._lead(api, leader, stack)

    async def _lead(self, api: ApiClient, leader: Leader, stack: AsyncExitStack) -> None:
        self._metrics.leads(True)
        self._starting = True
        keeping = asyncio.create_task(leader.keep())
        limits = httpx.Limits(
            max_connections=KEPT_OPEN + 2 * VISITS_AT_A_TIME,
            max_keepalive_connections=KEPT_OPEN,
            keepalive_expiry=KEPT_OPEN_SECONDS,
        )
        client = await stack.enter_async_context(httpx.AsyncClient(limits=limits, trust_env=False))
        leading = asyncio.create_task(self._work(api, client))
        try:
            await self._unless_stopped(keeping, leading)
        finally:
            await _end(leading, keeping)

    async def _work(self, api: ApiClient, client: httpx.AsyncClient) -> None:
        keys = await self._keys(api)
        operator = Operator(self._settings, api, keys, client, self._metrics)
        self._health.alive.append(operator.watches.stale)
        await patiently("not ready to begin", operator.prepare)
        self._starting = False
        gc.collect()
        gc.freeze()  # what is known by now lives long; looked at by each collection it would hold up claims and wakes
        working = asyncio.create_task(operator.run())
        await asyncio.sleep(0.1)  # the workers must run before kopf does, which ends all tasks that begin after it
        watching = asyncio.create_task(watch.watch(operator.told))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in (working, watching):
                if task.done():
                    task.result()
        finally:
            await _end(working, watching)

    async def _keys(self, api: ApiClient) -> SigningKeys:
        found: list[SigningKeys] = []

        async def attempt() -> None:
            found.append(await signing_keys(api, self._settings.namespace))

        await patiently("no signing keys", attempt)
        return found[0]

    async def _unless_stopped(self, *work: Awaitable[Any]) -> bool:
        """Waits for the first piece of work; False if the process was told to stop before."""
        stopping = asyncio.ensure_future(self._stop.wait())
        tasks = [asyncio.ensure_future(each) for each in work]
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not (finished := [task for task in tasks if task in done]):
            await _end(*tasks)
        for task in finished:
            task.result()
        return bool(finished)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks and waits for their end; their failures have been seen or do not matter any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Runs the operator. Exits with 1 when the Lease is lost, with 2 when it cannot start."""
    try:
        settings = from_environment(os.environ)
    except InvalidSettingsError as error:
        sys.exit(f"tenure-operator: {error}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("kopf", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    async def run() -> None:
        await Process(settings).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except LostLeaseError as error:
        sys.exit(f"tenure-operator: {error}")
    except OperatorError as error:
        logger.error("cannot go on: %s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
