"""Restarts, waits and broken journals: what was under way goes on, and only what was is opened."""

import asyncio
import time
from pathlib import Path

from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.errors import SupersededError, UnreadableError
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.tools.tool import Attempt, Outcome
from unit.sidecar.shared.world import HOST, HostWorld, a_host
from unit.sidecar.support import turn_id, until


async def test_only_the_session_whose_turn_was_under_way_is_opened_at_a_start_and_its_turn_goes_on(
    world: HostWorld,
) -> None:
    idle = [await world.register(f"idle-{n}") for n in range(5)]
    await asyncio.gather(*(world.turn(uid) for uid in idle))
    await world.closed(*idle)
    ada, turn = await world.register("ada"), turn_id()
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.send(ada, "slowly", turn))
    await until(lambda: len(world.agent.requests) == 6)
    await world.stop()
    await asyncio.gather(slow, return_exceptions=True)
    await world.start()
    await world.ready()
    await until(lambda: len(world.agent.requests) == 7)
    assert [uid for uid in idle if world.of(uid).work is not None] == []
    world.agent.hold.set()
    await until(lambda: world.of(ada).work.active is None)
    assert (await world.get(ada, f"/v1/turns/{turn}")).json()["status"] == "completed"
    assert len(await world.texts(ada)) == 2


async def test_a_turn_that_waits_for_a_person_needs_no_open_session(world: HostWorld) -> None:
    world.tools.add("pay", approval=True)
    uid, turn = await world.register(), turn_id()
    events = await world.send(uid, "call:pay", turn)
    assert events[-1]["type"] == "suspended"
    await world.closed(uid)
    (asked,) = (await world.report(uid))["suspended"]["approvals"]
    await world.again()
    await until(lambda: world.of(uid).work is not None)
    await world.closed(uid)
    assert (await world.report(uid))["suspended"]["approvals"] == [asked]
    assert (await world.decide(uid, turn, asked["id"])).status_code == 200
    await until(lambda: world.of(uid).work.active is None)
    ended = (await world.get(uid, f"/v1/turns/{turn}")).json()
    assert ended["status"] == "completed"
    assert len(world.tools.made("pay")) == 1
    assert (await world.report(uid)).get("suspended") is None


async def test_a_wait_for_a_time_ends_in_time_though_the_session_is_closed(tmp_path: Path) -> None:
    ahead = 0.0

    def movable(world: HostWorld) -> None:
        world.clock = SteadyClock(elapsed=lambda: time.monotonic() + ahead)

    async with a_host(tmp_path, movable) as world:
        world.tools.add_wait("rest")
        uid, turn = await world.register(), turn_id()
        world.agent.arguments = {"seconds": 1000}
        waiting = asyncio.create_task(world.send(uid, "call:rest", turn))
        await until(lambda: world.of(uid).known().suspended is not None)
        waiting.cancel()
        await world.closed(uid)
        assert world.of(uid).wake_at is not None
        await asyncio.sleep(0.05)
        assert world.of(uid).work is None
        ahead = 1001.0
        await until(lambda: world.of(uid).known().completed == 1)
        assert (await world.get(uid, f"/v1/turns/{turn}")).json()["status"] == "completed"


async def test_a_call_that_is_made_once_is_made_once_also_across_a_restart(world: HostWorld) -> None:
    begun = asyncio.Event()

    async def slow(arguments: str, attempt: Attempt) -> Outcome:
        begun.set()
        await asyncio.sleep(3600)
        return Outcome("never")

    world.tools.add("pay", slow)
    uid, turn = await world.register(), turn_id()
    sending = asyncio.create_task(world.send(uid, "call:pay", turn))
    await begun.wait()
    await world.stop()
    await asyncio.gather(sending, return_exceptions=True)
    await world.start()
    await world.ready()
    await until(lambda: world.of(uid).known().completed == 1)
    assert len(world.tools.made("pay")) == 1
    assert (await world.report(uid))["unknown"]["turn"] == turn


async def test_a_journal_that_breaks_takes_only_its_own_session_with_it(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    await world.turn(ada, "ada-1")
    await world.turn(bob, "bob-1")
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.send(ada, "slowly"))
    await until(lambda: len(world.agent.requests) == 3)
    journal = world.of(ada).work.journal
    journal._broken = UnreadableError("the disk is gone")
    journal._out_of_use.set()
    (failed,) = await asyncio.gather(slow, return_exceptions=True)
    assert isinstance(failed, Exception), "who listens is let go"
    assert (await world.turn(bob, "bob-2"))["text"] == "bob-2 (1 before: bob-1)"
    world.agent.hold.set()
    await world.closed(ada)
    assert (await world.turn(ada, "ada-2"))["text"] == "ada-2 (2 before: ada-1, slowly)"
    assert (await world.report(ada))["journal"] == "Open"


async def test_a_session_whose_journal_is_damaged_says_so_and_the_others_work(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    await world.turn(ada)
    await world.closed(ada)
    (journal,) = (path for path in world.files(ada) if path.name == "journal.db")
    journal.write_bytes(b"garbage" * 1000)
    answer = await world.get(ada, "/v1/items")
    assert (answer.status_code, answer.json()["code"]) == (503, "journal_unavailable")
    assert (await world.report(ada))["journal"] == "Unreadable"
    assert (await world.turn(bob))["status"] == "completed"


async def test_a_host_that_a_later_run_has_followed_writes_nothing_more_and_leaves(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid)
    await world.closed(uid)
    Lease(world.directory / "data/state", world.generation + 1).announce()
    answer = await world.get(uid, "/v1/items")
    assert answer.status_code in (200, 503)
    assert world.ended is not None
    await asyncio.wait((world.ended,))
    error = world.ended.exception()
    assert isinstance(error, BaseExceptionGroup)
    assert error.subgroup(SupersededError)


async def test_a_host_with_another_key_keeps_its_hands_off(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid, "first")
    await world.closed(uid)
    await world.stop()
    key = world.directory / "key/data-key"
    right = key.read_bytes()
    key.write_bytes(bytes(32))
    await world.start()
    assert (await world.report())["journal"] in ("KeyMismatch", "Unreadable")
    assert (await world.get(uid, "/v1/items")).status_code == 503, "not 401: the session may well be here"
    await world.stop()
    key.write_bytes(right)
    await world.start()
    await world.ready()
    assert (await world.turn(uid, "second"))["text"] == "second (1 before: first)"


async def test_two_processes_never_have_one_volume(world: HostWorld) -> None:
    first, ended = world.host, world.ended
    running, world._running = world._running, None
    await world.start()
    report = await world.report()
    assert report["journal"] == "Locked"
    assert report["identity"] == HOST
    assert first.unready is None
    assert ended is not None
    assert running is not None
    await running.aclose()
    await world.ready()
