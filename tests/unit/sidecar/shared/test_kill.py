"""A host as a process of its own that is killed again and again while many sessions talk."""

import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import httpx
import pytest

from unit.sidecar.shared.world import HOST, HostWorld
from unit.sidecar.support import a_turn, turn_id, until
from unit.sidecar.test_process import free_ports

ROOT = Path(__file__).parents[4]
SESSIONS, KILLS = 12, 4


class Process:
    """The process of a host. Its ports stay the same over its deaths."""

    def __init__(self, world: HostWorld) -> None:
        self._world = world
        self._ports = free_ports(3)
        world.agent.proxy_port = self._ports[1]
        world.http.base_url = httpx.URL(f"http://127.0.0.1:{self._ports[0]}")
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0

    async def start(self) -> None:
        self._generation += 1
        directory = self._world.directory
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator/src", "runtime-image/src")),
            "TENURE_SHARED": "true",
            "TENURE_IDENTITY": HOST,
            "TENURE_GENERATION": str(self._generation),
            "TENURE_HOST": "127.0.0.1",
            "TENURE_RUNTIME_PORT": str(self._world.agent_port),
            **{
                f"TENURE_{name.upper()}_DIR": str(directory / name) for name in ("data", "key", "config", "credentials")
            },
            **{
                f"TENURE_{name}_PORT": str(port)
                for name, port in zip(("CONTROL", "PROXY", "METRICS"), self._ports, strict=True)
            },
        }
        command = [sys.executable, "-c", "from tenure_sidecar.main import main; main()"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
        await until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[0]}/readyz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
async def process(world: HostWorld) -> Process:
    await world.stop()
    return Process(world)


async def test_no_turn_is_lost_or_made_twice_however_often_the_host_is_killed(
    world: HostWorld, process: Process
) -> None:
    await process.start()
    uids = [await world.register(f"s{n}") for n in range(SESSIONS)]
    acknowledged: defaultdict[str, list[str]] = defaultdict(list)
    stopping = asyncio.Event()

    async def converse(uid: str) -> None:
        number = 0
        while not stopping.is_set():
            text, turn = f"{uid[:8]}-{number}", turn_id()
            while not await said(uid, text, turn):  # noqa: ASYNC110 - the process has no event for its next life
                await asyncio.sleep(0.05)
            acknowledged[uid].append(text)
            number += 1

    async def said(uid: str, text: str, turn: str) -> bool:
        """Send a turn; whether it has completed. Sent again, it is the same turn."""
        body = a_turn(text, turn).model_dump_json(by_alias=True)
        try:
            answer = await world.http.post("/v1/turns", content=body, headers=world.token(uid), timeout=30)
        except httpx.HTTPError:
            return False
        if answer.status_code != 200:
            return False
        ended = json.loads(answer.text.splitlines()[-1])
        return bool(ended["type"] == "ended" and ended["turn"]["status"] == "completed")

    def further(turns: int) -> bool:
        return sum(map(len, acknowledged.values())) >= turns

    talking = [asyncio.create_task(converse(uid)) for uid in uids]
    try:
        for _ in range(KILLS):
            seen = sum(map(len, acknowledged.values()))
            await until(partial(further, seen + SESSIONS))
            process.kill()
            await process.start()
        stopping.set()
        await asyncio.gather(*talking)
        for uid in uids:
            page = (await world.get(uid, "/v1/items?order=asc&limit=100")).json()
            asked = [item["text"] for item in page["data"] if item["role"] == "user"]
            assert asked == acknowledged[uid][: len(asked)], "all of its turns in order, none of another's, none twice"
            assert len(asked) == min(len(acknowledged[uid]), 50)
    finally:
        stopping.set()
        for task in talking:
            task.cancel()
        process.kill()
