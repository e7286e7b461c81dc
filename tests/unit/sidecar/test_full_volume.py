"""A full volume: the session starts, reads, says what is wrong, lets data be deleted, and then goes on by itself."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tenure_sidecar.journal import schema
from tenure_sidecar.journal.erasure import delete_in_steps
from tenure_sidecar.journal.records import TurnEnd, TurnStart
from tenure_sidecar.journal.schema import DATABASE
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.workspace.ballast import NAME, Ballast
from unit.sidecar.looping import crash
from unit.sidecar.support import KEY, SESSION, a_policy, a_turn, open_journal, until
from unit.sidecar.world import World, a_world, says

SIZE = 24 * 1024 * 1024


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of this size."""
    (tmp_path / "data").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path / "data")]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield tmp_path / "data"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "data")], check=True)


@pytest.fixture
async def world(tmp_path: Path, volume: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        await until(lambda: Ballast(volume / "state").held)
        yield made


def fill(directory: Path, name: str = "much") -> None:
    """Leave no byte."""
    with open(directory / name, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def fill_all(world: World) -> None:
    """Leave no byte, and not even the reserve."""
    (world.settings.state / NAME).unlink()
    world.session.pod.ballast.spent = True
    fill(world.settings.workspace)


async def delete(world: World, name: str = "much") -> int:
    answer = await world.http.delete(f"/v1/files/{name}", headers=world.token())
    return answer.status_code


async def test_it_reads_and_refuses_turns_until_files_are_deleted(world: World) -> None:
    request = a_turn("before")
    await world.send(request)
    fill_all(world)
    assert await world.refused(a_turn("late")) == (507, "volume_full")
    written = await world.http.put("/v1/files/a.txt", content=b"x" * 1_000_000, headers=world.token())
    assert (written.status_code, written.json()["code"]) == (507, "volume_full")
    assert await world.texts() == ["before", "Hello there friend"]
    assert (await world.send(request))[-1]["turn"]["status"] == "completed"
    report = await world.report()
    assert report["journal"] == "Open"
    assert (await world.http.get("/readyz")).status_code == 200
    assert await delete(world) == 204
    assert (await world.turn("after"))[-1]["turn"]["status"] == "completed"


async def test_how_full_it_is_can_be_seen(world: World) -> None:
    before = (await world.report())["volume"]
    assert before["capacityBytes"] == SIZE
    assert 0 < before["usedBytes"] < SIZE
    fill(world.settings.workspace)
    world.skipped += 10
    assert (await world.report())["volume"] == {"capacityBytes": SIZE, "usedBytes": SIZE}


async def test_it_starts_as_a_later_run_and_is_mended(world: World) -> None:
    world.generation = 1
    await crash(world)
    await world.turn("before")
    fill_all(world)
    world.generation = 2
    await crash(world)
    assert (await world.report())["generation"] == 2
    assert await world.texts() == ["before", "Hello there friend"]
    await until(lambda: world.session.pod.ballast.spent)
    assert await world.refused(a_turn("late")) == (507, "volume_full")
    assert await delete(world) == 204
    await world.turn("after")


async def test_a_turn_that_is_under_way_ends_from_the_reserve(world: World) -> None:
    await world.turn("before")
    pause = asyncio.Event()
    world.model.now(says("begun " + "x" * 200_000, pause))
    asked = asyncio.create_task(world.turn("long"))
    await until(lambda: world.model.requests[1:])
    fill(world.settings.workspace)
    pause.set()
    assert (await asked)[-1]["turn"]["status"] == "completed"
    assert await world.refused(a_turn("late")) == (507, "volume_full")


async def test_retention_makes_room_in_a_journal_that_has_filled_it(world: World) -> None:
    world.model.now(says("x" * 1_000_000))
    for _ in range(5):
        await world.turn()
    fill(world.settings.state)
    metrics = f"http://127.0.0.1:{world.metrics_port}/metrics"
    answer = await world.push(world.config.model_copy(update={"policy": a_policy(count=1), "agent_generation": 2}))
    assert answer.status_code == 200
    async with asyncio.timeout(10):
        while b"turns_deleted_total 4" not in (await world.http.get(metrics)).content:  # noqa: ASYNC110 - it tells only who asks
            await asyncio.sleep(0.02)
    await world.turn("after")
    assert (world.settings.state / NAME).exists()
    await world.stop()
    journal = open_journal(world.settings.state)
    assert (await journal.erase([])).residue == 0
    assert [record.kind for record in journal.records((TurnEnd.kind,))] == [TurnEnd.kind] * 2
    await journal.close()
    await world.start()


async def test_a_journal_whose_process_was_killed_opens_without_room(volume: Path) -> None:
    first, second = volume / "first", volume / "second"
    first.mkdir()
    journal = open_journal(first)
    record = await journal.append("a" * 32, 0, "kind", b"x" * 100_000)
    shutil.copytree(first, second)
    assert (second / f"{DATABASE}-wal").stat().st_size > 100_000
    fill(volume)
    copied = open_journal(second)
    assert list(copied.records()) == [record]
    for opened in (journal, copied):
        await opened.close()


@pytest.mark.parametrize("commits", range(5))
async def test_a_turn_that_was_half_deleted_when_the_process_died_is_one_that_has_ended(
    tmp_path: Path, commits: int
) -> None:
    journal = open_journal(tmp_path)
    for step, kind in ((0, TurnStart.kind), (1, "model.intent"), (1, "model.result"), (0, TurnEnd.kind)):
        await journal.append("a" * 32, step, kind, b"")
    await journal.close()
    left = iter(range(commits))

    def die() -> None:
        next(left)

    db = schema.connect(tmp_path, SESSION, Sealer(KEY, SESSION).fingerprint)
    with contextlib.suppress(StopIteration):
        delete_in_steps(db, tmp_path, ["a" * 32], 4, 0, die)
    db.close()
    again = open_journal(tmp_path)
    kinds = {record.kind for record in again.records()}
    assert len(kinds) == (4 - commits if commits < 3 else 0)
    assert not kinds or {TurnStart.kind, TurnEnd.kind} <= kinds
    assert again.sequence == 4
    await again.close()
