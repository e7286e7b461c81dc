"""Many sessions in one process: each has its own history, and costs nothing while it is idle."""

import asyncio
import os
import threading
from pathlib import Path

from tenure_sidecar.shared.host import Room
from unit.sidecar.shared.world import HOST, HostWorld, a_host
from unit.sidecar.support import a_config, turn_id, until


async def test_every_session_sees_its_own_history_and_no_other(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    await world.turn(ada, "ada-1")
    await world.turn(bob, "bob-1")
    assert (await world.turn(ada, "ada-2"))["text"] == "ada-2 (1 before: ada-1)"
    assert (await world.turn(bob, "bob-2"))["text"] == "bob-2 (1 before: bob-1)"
    assert (await world.texts(ada))[::2] == ["ada-1", "ada-2"]
    assert (await world.texts(bob))[::2] == ["bob-1", "bob-2"]


async def test_the_same_turn_id_is_another_turn_in_another_session(world: HostWorld) -> None:
    ada, bob, turn = await world.register("ada"), await world.register("bob"), turn_id()
    assert (await world.turn(ada, "one", turn))["text"].startswith("one")
    assert (await world.turn(bob, "two", turn))["text"].startswith("two")
    assert (await world.turn(ada, "one", turn))["text"].startswith("one"), "asked again, it is not run again"
    assert len(world.agent.requests) == 2


async def test_a_hundred_sessions_talk_at_once_and_none_gets_the_answer_of_another(world: HostWorld) -> None:
    uids = [await world.register(f"s{n}") for n in range(100)]

    async def converse(uid: str) -> list[str]:
        return [(await world.turn(uid, f"{uid[:8]}-{n}"))["text"] for n in range(3)]

    for uid, said in zip(uids, await asyncio.gather(*map(converse, uids)), strict=True):
        name = uid[:8]
        assert said == [
            f"{name}-0 (0 before: )",
            f"{name}-1 (1 before: {name}-0)",
            f"{name}-2 (2 before: {name}-0, {name}-1)",
        ]


async def test_an_idle_session_has_no_open_file_no_thread_and_no_task(world: HostWorld) -> None:
    uids = [await world.register(f"s{n}") for n in range(20)]

    async def cost() -> tuple[int, int, int]:
        files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        journals = sum(thread.name == "journal" for thread in threading.enumerate())
        sessions = sum(task.get_name().startswith("session ") for task in asyncio.all_tasks())
        return sum("/sessions/" in file for file in files), journals, sessions

    await asyncio.gather(*(world.turn(uid) for uid in uids))
    await world.closed(*uids)
    assert await cost() == (0, 0, 0)
    assert (await world.turn(uids[3], "again"))["text"] == "again (1 before: hello)"


def _is_open(descriptor: str) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").is_symlink()


async def test_a_closed_session_is_reported_without_being_opened(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid)
    opened = await world.report(uid)
    await world.closed(uid)
    closed = await world.report(uid)
    assert world.of(uid).work is None
    for report in (opened, closed):
        assert (report["identity"], report["journal"], report["turns"]) == (uid, "Open", 1)
        assert report["configDigest"] == world.config.digest()
    assert closed["sequence"] == opened["sequence"] > 0
    assert closed["lastActivity"] == opened["lastActivity"]


async def test_a_report_is_the_same_after_a_restart(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid)
    await world.closed(uid)
    before = await world.report(uid)
    await world.again()
    after = await world.report(uid)
    assert world.of(uid).work is None, "it was closed cleanly, and need not be looked at"
    known = ("sequence", "turns", "lastActivity", "journal", "suspended", "unknown")
    assert [after.get(field) for field in known] == [before.get(field) for field in known]


async def test_the_host_says_which_sessions_it_keeps(world: HostWorld) -> None:
    uids = sorted([await world.register(), await world.register()])
    assert (await world.report())["sessions"] == uids
    await world.again()
    assert (await world.report())["sessions"] == uids


async def test_to_keep_a_session_twice_is_to_keep_it_once(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid, "first")
    assert (await world.keep(uid)).status_code == 200
    assert (await world.turn(uid, "second"))["text"] == "second (1 before: first)"


async def test_a_token_opens_only_the_session_that_it_is_for(world: HostWorld) -> None:
    uid = await world.register()
    stranger = "0c000000-0000-4000-8000-00000000000f"
    assert (await world.get(stranger, "/v1/items")).status_code == 401
    assert (await world.get(HOST, "/v1/items")).status_code == 403
    assert (await world.http.get("/v1/items")).status_code == 401
    assert (await world.http.get("/v1/items", headers=world.token(uid, "operator"))).status_code == 403
    assert (await world.http.delete(f"/v1/sessions/{uid}", headers=world.token(uid, "operator"))).status_code == 404
    assert (await world.http.delete(f"/v1/sessions/{uid}", headers=world.token(HOST, "gateway"))).status_code == 403


async def test_what_is_no_uid_is_not_kept(world: HostWorld) -> None:
    for uid in ("..", "A", "a/b", "%2e%2e"):
        answer = await world.keep(uid)
        assert answer.status_code >= 400, uid
    assert (await world.report())["sessions"] == []


async def test_files_of_a_session_are_its_own(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    await world.http.put("/v1/files/notes.txt", content=b"mine", headers=world.token(ada))
    assert (await world.get(ada, "/v1/files/notes.txt")).content == b"mine"
    assert (await world.get(bob, "/v1/files/notes.txt")).status_code == 404
    assert (await world.get(bob, f"/v1/files/..%2f{ada}%2fnotes.txt")).status_code in (400, 404)


async def test_a_long_turn_of_one_session_holds_up_no_other(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.turn(ada, "slowly"))
    await until(lambda: world.agent.requests)
    assert (await world.turn(bob, "quickly"))["status"] == "completed"
    assert not slow.done()
    world.agent.hold.set()
    assert (await slow)["status"] == "completed"


async def test_who_finds_no_place_waits_for_one_and_gets_the_place_of_the_longest_idle(tmp_path: Path) -> None:
    def small(world: HostWorld) -> None:
        world.room = Room(open=2, idle_seconds=3_600)

    async with a_host(tmp_path, small) as world:
        uids = [await world.register(f"s{n}") for n in range(6)]
        for uid in uids:
            await world.turn(uid)
        open_now = [uid for uid in uids if world.of(uid).work is not None]
        assert open_now == uids[-2:]
        told = await asyncio.gather(*(world.turn(uid, "again") for uid in uids))
        assert {turn["text"] for turn in told} == {"again (1 before: hello)"}


async def test_when_all_places_are_taken_by_running_turns_the_caller_is_told_to_come_later(tmp_path: Path) -> None:
    def small(world: HostWorld) -> None:
        world.room = Room(open=1, patience_seconds=0.05)

    async with a_host(tmp_path, small) as world:
        ada, bob = await world.register("ada"), await world.register("bob")
        world.agent.hold = asyncio.Event()
        slow = asyncio.create_task(world.turn(ada, "slowly"))
        await until(lambda: world.agent.requests)
        refused = await world.get(bob, "/v1/items")
        assert (refused.status_code, refused.json()["code"]) == (503, "host_busy")
        assert (await world.report(bob))["journal"] == "Open", "a report needs no place"
        world.agent.hold.set()
        assert (await slow)["status"] == "completed"
        assert (await world.turn(bob))["status"] == "completed"


async def test_a_configuration_holds_for_all_and_outlives_the_process(world: HostWorld) -> None:
    uid = await world.register()
    config = a_config(world.config.model, generation=7, instructions="Be kind.")
    assert (await world.push(config)).json()["agentGeneration"] == 7
    assert (await world.report(uid))["agentGeneration"] == 7
    await world.again()
    assert (await world.report(uid))["configDigest"] == config.digest()
    await world.turn(uid)
    assert world.agent.requests[-1]["messages"][0] == {"role": "system", "content": "Be kind."}


async def test_a_drained_host_takes_no_turns_but_is_drained_only_when_idle(world: HostWorld) -> None:
    uid = await world.register()
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.turn(uid, "slowly"))
    await until(lambda: world.agent.requests)

    async def drain() -> tuple[int, str]:
        answer = await world.http.post("/v1/drain", json={}, headers=world.token(HOST, "operator"))
        return answer.status_code, answer.json().get("code", "")

    assert await drain() == (409, "busy")
    world.agent.hold.set()
    await slow
    assert await drain() == (200, "")
    assert (await world.report())["draining"]
    answer = await world.http.post(
        "/v1/turns", json={"turn": turn_id(), "input": [{"role": "user", "text": "x"}]}, headers=world.token(uid)
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")


async def test_a_pod_that_ends_takes_no_new_turn_and_lets_those_that_run_end(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.turn(ada, "slowly"))
    await until(lambda: world.agent.requests)
    hook = asyncio.create_task(world.http.get("/drained", timeout=30))
    body = {"turn": turn_id(), "input": [{"role": "user", "text": "x"}]}
    while (answer := await world.http.post("/v1/turns", json=body, headers=world.token(bob))).status_code == 200:
        body["turn"] = turn_id()
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert not hook.done()
    world.agent.hold.set()
    assert (await slow)["status"] == "completed"
    assert (await hook).status_code == 200


async def test_a_session_can_be_carried_away(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid)
    await world.closed(uid)
    answer = await world.get(uid, "/v1/bundle")
    assert answer.status_code == 200
    assert answer.content[:2] == b"\x1f\x8b"
