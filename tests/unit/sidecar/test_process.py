"""The process: it comes up, says who it is, and ends when it is told to, with the running turn ended first."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tenure_api.wire import TurnStatus
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.records import TurnEnd
from tenure_sidecar.logs import JsonFormatter
from tenure_sidecar.settings import Settings, from_environment
from unit.sidecar.support import SESSION, a_config, a_turn, open_journal, until
from unit.sidecar.world import World, says

ROOT = Path(__file__).parents[3]


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@asynccontextmanager
async def a_process(world: World, probe: str = "/readyz") -> AsyncIterator[subprocess.Popen[bytes]]:
    """The sidecar of a world as a process of its own, ready; or healthy, if that is what it is probed for."""
    await world.stop()
    control, proxy, metrics = free_ports(3)
    world.proxy_port = world.container.proxy_port = proxy
    world.http.base_url = httpx.URL(f"http://127.0.0.1:{control}")
    paths = [str(ROOT / part) for part in ("operator/src", "runtime-image/src")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TENURE_IDENTITY": SESSION,
        "TENURE_SESSION": world.name,
        "TENURE_GENERATION": str(world.generation),
        "TENURE_DATA_DIR": str(world.settings.data),
        "TENURE_KEY_DIR": str(world.settings.key),
        "TENURE_CONFIG_DIR": str(world.settings.config),
        "TENURE_CREDENTIALS_DIR": str(world.settings.credentials),
        "TENURE_HOST": "127.0.0.1",
        "TENURE_CONTROL_PORT": str(control),
        "TENURE_PROXY_PORT": str(proxy),
        "TENURE_METRICS_PORT": str(metrics),
        "TENURE_RUNTIME_PORT": str(world.agent_port),
    }
    command = [sys.executable, "-c", "from tenure_sidecar.main import main; main()"]
    process = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do meanwhile
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(30):
            while process.poll() is None:
                try:
                    if (await world.http.get(probe)).status_code == 200:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


async def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status and output."""
    output, _ = await asyncio.to_thread(process.communicate)
    return process.returncode, output.decode()


async def test_it_serves_and_ends_cleanly_and_logs_no_word_of_the_conversation(world: World) -> None:
    async with a_process(world) as process:
        events = await world.turn("a canary")
        assert events[-1]["turn"]["status"] == "completed"
        process.send_signal(signal.SIGTERM)
        status, output = await ended(process)
    assert status == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(line["session"] == "shop/one" for line in lines)
    assert "canary" not in output
    assert "Hello there friend" not in output


async def test_it_lets_the_running_turn_end_before_it_ends(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause))
    request = a_turn("count")
    async with a_process(world) as process:
        asked = asyncio.create_task(world.send(request))
        await until(lambda: world.model.requests)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while (await world.http.get("/readyz")).status_code == 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        assert await world.refused(a_turn("late")) == (503, "shutting_down")
        pause.set()
        assert (await asked)[-1]["turn"]["status"] == "completed"
        assert (await ended(process))[0] == 0
    journal = open_journal(world.settings.state)
    ends = [TurnEnd.model_validate_json(record.payload) for record in journal.records(("turn.end",))]
    assert [end.status for end in ends] == [TurnStatus.COMPLETED]
    await journal.close()


async def test_killed_at_any_moment_it_completes_the_turn_after_the_next_start(world: World) -> None:
    world.model.now(says("one two three"))
    request = a_turn("count")
    async with a_process(world) as process:
        asked = asyncio.create_task(world.send(request))
        await until(lambda: world.container.requests)
        process.kill()
        with pytest.raises(httpx.TransportError):
            await asked
    async with a_process(world):
        assert (await world.send(request))[-1]["turn"]["status"] == "completed"
        assert await world.texts() == ["count", "one two three"]


async def test_a_superseded_process_leaves_and_stays_out_when_it_is_started_again(world: World) -> None:
    world.generation = 7
    async with a_process(world) as process:
        await world.turn("before")
        Lease(world.settings.state, 8).announce()
        status, output = await ended(process)
    assert status == 1
    assert "run 8 of the session has the journal" in output
    async with a_process(world, "/healthz") as process:
        journal = open_journal(world.settings.state, generation=8)
        unready = await world.http.get("/readyz")
        assert (unready.status_code, "run 8" in unready.text) == (503, True)
        report = await world.report()
        assert (report["journal"], report["generation"]) == ("Superseded", 8)
        assert await world.refused(a_turn()) == (503, "journal_unavailable")
        written = await world.http.put("/v1/files/a.txt", content=b"x", headers=world.token())
        assert written.status_code == 503
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
        await journal.close()


async def test_a_frozen_process_that_wakes_up_too_late_writes_nothing(world: World) -> None:
    world.generation = 1
    async with a_process(world) as process:
        await world.turn("before")
        process.send_signal(signal.SIGSTOP)
        Lease(world.settings.state, 2).announce()
        late = asyncio.create_task(world.turn("late"))
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        with pytest.raises((httpx.TransportError, AssertionError)):
            await late
        assert (await ended(process))[0] == 1
    world.generation = 2
    async with a_process(world):
        assert await world.texts() == ["before", "Hello there friend"]


async def test_a_process_that_was_started_ahead_logs_the_session_that_it_is_given_to(world: World) -> None:
    world.name = ""
    async with a_process(world) as process:
        body = {"session": "shop/late", "uid": "u"}
        bound = await world.http.put("/v1/binding", json=body, headers=world.token("operator"))
        assert bound.status_code == 200
        await world.push(a_config(generation=9))
        process.send_signal(signal.SIGTERM)
        _, output = await ended(process)
    sessions = [json.loads(line)["session"] for line in output.splitlines()]
    assert (sessions[0], sessions[-1]) == ("", "shop/late")


def test_without_its_identity_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="TENURE_IDENTITY"):
        from_environment({})


def test_the_environment_overrides_the_places_of_a_pod() -> None:
    settings = from_environment({"TENURE_IDENTITY": "u", "TENURE_DATA_DIR": "/elsewhere", "TENURE_PROXY_PORT": "99"})
    assert settings == Settings(identity="u", data=Path("/elsewhere"), proxy_port=99)
    assert settings.state == Path("/elsewhere/state")


def test_a_log_line_is_one_json_object_even_with_a_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "went %s", ("wrong",), sys.exc_info())
    line = JsonFormatter(lambda: "shop/one").format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("error", "went wrong")
    assert "ValueError" in said["traceback"]
    assert abs(time.time() - record.created) < 60
