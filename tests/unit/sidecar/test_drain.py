"""Going to sleep: how long nothing has happened, what stands against it, and that nothing begins once it is decided."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenure_api.report import DRAIN_SECONDS
from unit.sidecar.looping import LoopingAgent, crash, decide, plays, state
from unit.sidecar.support import a_turn, until
from unit.sidecar.world import World, a_world, says


@pytest.fixture
async def looping(tmp_path: Path) -> AsyncGenerator[World]:
    async with a_world(tmp_path, LoopingAgent()) as made:
        yield made


async def idle(world: World) -> float | None:
    found: float | None = (await world.report())["idleSeconds"]
    return found


async def at_rest(world: World) -> None:
    """The answer has come; wait for the sidecar to notice that it has been heard."""
    await until(lambda: world.session.activity.idle_seconds is not None)


async def drain(world: World, idle_seconds: float = 0.0) -> tuple[int, Any]:
    answer = await world.http.post("/v1/drain", json={"idleSeconds": idle_seconds}, headers=world.token("operator"))
    return answer.status_code, answer.json()


async def put(world: World, path: str = "a.txt") -> httpx.Response:
    return await world.http.put(f"/v1/files/{path}", content=b"x", headers=world.token())


async def test_idle_counts_from_the_start_and_from_the_last_turn(world: World) -> None:
    world.skipped += 100
    assert 100 <= (await idle(world) or 0) < 110
    await world.turn()
    await at_rest(world)
    assert (await idle(world) or 0) < 10
    world.skipped += 50
    assert 50 <= (await idle(world) or 0) < 60
    await crash(world)
    assert (await idle(world) or 0) < 10


async def test_what_only_looks_does_not_keep_it_awake(world: World) -> None:
    request = a_turn()
    await world.send(request)
    assert (await put(world)).status_code == 200
    await at_rest(world)
    world.skipped += 100
    for path in ("/v1/items", "/v1/files", f"/v1/turns/{request.turn}"):
        assert (await world.get(path)).status_code == 200
    await world.push(world.config)
    await world.http.get("/readyz")
    assert (await idle(world) or 0) >= 100


@pytest.mark.parametrize("act", ["put", "get", "delete", "listen"])
async def test_files_and_listeners_are_something_that_happens(world: World, act: str) -> None:
    request = a_turn()
    await world.send(request)
    await put(world)
    await at_rest(world)
    world.skipped += 100
    match act:
        case "put":
            await put(world)
        case "get":
            await world.get("/v1/files/a.txt")
        case "delete":
            await world.http.delete("/v1/files/a.txt", headers=world.token())
        case "listen":
            await world.get(f"/v1/turns/{request.turn}/events")
    await at_rest(world)
    assert (await idle(world) or 0) < 10


async def test_a_turn_that_runs_or_is_queued_stands_against_sleep(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause), says("three"))
    first = asyncio.create_task(world.turn("first"))
    await until(lambda: world.model.requests)
    second = asyncio.create_task(world.turn("second"))
    assert await idle(world) is None
    assert (await drain(world))[0] == 409
    pause.set()
    await asyncio.gather(first, second)
    await at_rest(world)
    assert (await drain(world))[0] == 200


async def test_a_turn_that_waits_for_a_person_lets_it_sleep_unless_somebody_listens(looping: World) -> None:
    looping.tools.add("pay", approval=True)
    looping.model.now(*plays(["pay"], "paid"))
    request = a_turn("pay")
    approval = (await looping.send(request))[-1]["turn"]["output"][-1]["approval"]["id"]
    await at_rest(looping)
    looping.skipped += 100
    status, report = await drain(looping, 60)
    assert (status, report["draining"]) == (200, True)
    assert report["suspended"]["turn"] == request.turn
    status, failure = await decide(looping, request.turn, approval)
    assert (status, failure["code"]) == (503, "draining")
    assert (await state(looping, request.turn))["status"] == "awaiting_approval"
    await crash(looping)
    assert (await decide(looping, request.turn, approval))[0] == 200
    await until(lambda: looping.tools.made("pay"))


async def test_a_turn_that_waits_for_a_time_is_not_put_to_sleep_when_that_is_near_or_heard(looping: World) -> None:
    looping.tools.add_wait()
    looping.model.now(*plays([("wait_until", '{"seconds": 600}')], "morning"))
    request = a_turn("wake me")
    asked = asyncio.create_task(looping.send(request))
    await until(lambda: looping.session.turns.suspension())
    assert await idle(looping) is None, "somebody listens"
    await looping.http.aclose()
    asked.cancel()
    looping.http = httpx.AsyncClient(base_url=looping.http.base_url)
    await at_rest(looping)
    looping.skipped += 590
    assert (await drain(looping))[0] == 409
    looping.skipped -= 100
    assert (await drain(looping))[0] == 200
    await crash(looping)


async def test_it_is_refused_unless_nothing_has_happened_for_so_long(world: World) -> None:
    world.skipped += 50
    status, failure = await drain(world, 60)
    assert (status, failure["code"]) == (409, "busy")
    assert not (await world.report())["draining"]
    await world.turn()


async def test_a_drained_sidecar_begins_nothing_but_answers_what_is_asked(world: World) -> None:
    before = a_turn("before")
    await world.send(before)
    await put(world)
    await at_rest(world)
    status, report = await drain(world)
    assert (status, report["draining"]) == (200, True)
    assert await world.refused(a_turn("late")) == (503, "draining")
    assert (await put(world)).json()["code"] == "draining"
    assert (await world.http.delete("/v1/files/a.txt", headers=world.token())).status_code == 503
    assert (await world.send(before))[-1]["type"] == "ended", "a turn that was taken before is only told"
    assert (await world.get("/v1/files/a.txt")).content == b"x"
    assert await world.texts() == ["before", "Hello there friend"]
    assert (await world.http.get("/readyz")).status_code == 200


async def test_it_goes_on_working_if_nobody_ends_it(world: World) -> None:
    assert (await drain(world))[0] == 200
    world.skipped += DRAIN_SECONDS - 5
    assert (await drain(world))[0] == 200, "again is fine, and renews it"
    world.skipped += DRAIN_SECONDS - 5
    assert await world.refused(a_turn("late")) == (503, "draining")
    world.skipped += 6
    assert not (await world.report())["draining"]
    await world.turn()


async def test_nothing_is_left_in_the_log_of_the_journal(world: World) -> None:
    await world.turn()
    await at_rest(world)
    assert (world.settings.state / "journal.db-wal").stat().st_size > 0
    assert (await drain(world))[0] == 200
    assert (world.settings.state / "journal.db-wal").stat().st_size == 0


async def test_the_hook_before_the_end_is_answered_when_the_turn_has_ended_and_changes_nothing(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause), says("three"))
    first = asyncio.create_task(world.turn("first"))
    await until(lambda: world.model.requests)
    hook = asyncio.create_task(world.http.get("/drained", timeout=20))
    second = asyncio.create_task(world.turn("second"))
    await asyncio.sleep(0.2)
    assert not hook.done()
    pause.set()
    assert (await hook).status_code == 200
    await asyncio.gather(first, second)
    assert await world.texts() == ["first", "one two", "second", "three"]
    await at_rest(world)
    assert (await world.report())["draining"] is False


async def test_the_hook_does_not_wait_for_people(looping: World) -> None:
    looping.tools.add("pay", approval=True)
    looping.model.now(*plays(["pay"], "paid"))
    await looping.send(a_turn("pay"))
    assert (await looping.http.get("/drained", timeout=5)).status_code == 200


async def test_the_hook_gives_up_after_a_while(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause))
    asked = asyncio.create_task(world.turn("first"))
    await until(lambda: world.model.requests)
    hook = asyncio.create_task(world.http.get("/drained", timeout=20))
    await asyncio.sleep(0.1)
    world.skipped += 60
    assert (await hook).status_code == 200
    pause.set()
    await asked
