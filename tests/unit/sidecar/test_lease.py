"""The lease: of two runs of a session only the later one writes, whatever became of the other."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.errors import JournalError, LockedError, SupersededError, UnreadableError
from tenure_sidecar.journal.lease import GENERATION, Lease
from tenure_sidecar.journal.lock import Lock
from tenure_sidecar.journal.store import Journal
from unit.sidecar.support import open_journal

A = "a" * 32
ROOT = Path(__file__).parents[3]

WRITER = """
import asyncio, os, sys
from pathlib import Path
from unit.sidecar.support import open_journal

async def main():
    journal = open_journal(Path(sys.argv[1]), generation=int(sys.argv[2]))
    os.write(1, b"open\\n")
    for step in range(10**9):
        record = await journal.append("b" * 32, step, "kind", sys.argv[2].encode())
        os.write(1, b"%d\\n" % record.sequence)

asyncio.run(main())
"""


def a_writer(directory: Path, generation: int) -> subprocess.Popen[bytes]:
    """A process that writes as fast as it can."""
    paths = [str(ROOT / part) for part in ("operator/src", "runtime-image/src", "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", WRITER, str(directory), str(generation)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def opened_in_the_end(directory: Path, generation: int) -> Journal:
    """The journal, as soon as those who have it have let go."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncio.to_thread(open_journal, directory, generation=generation)
            except LockedError:
                await asyncio.sleep(0.01)


async def test_a_process_that_was_frozen_finds_itself_superseded_and_does_not_write_again(tmp_path: Path) -> None:
    with a_writer(tmp_path, 1) as first:
        assert first.stdout is not None and first.stderr is not None  # noqa: PT018
        assert first.stdout.readline() == b"open\n"
        for _ in range(20):
            first.stdout.readline()
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(LockedError):
            open_journal(tmp_path, generation=2)
        first.send_signal(signal.SIGCONT)
        second = await opened_in_the_end(tmp_path, 2)
        record = await second.append(A, 0, "kind", b"2")
        _, said = first.communicate()
        assert first.returncode != 0
        assert b"SupersededError" in said
    by = [record.payload for record in second.records()]
    assert by == [b"1"] * (record.sequence - 1) + [b"2"]
    assert record.sequence > 20
    await second.close()


async def test_a_run_that_writes_nothing_lets_go_too(tmp_path: Path) -> None:
    first = open_journal(tmp_path, generation=1)
    waiting = asyncio.create_task(first.until_broken())
    second = await opened_in_the_end(tmp_path, 2)
    with pytest.raises(SupersededError):
        await waiting
    await first.close()
    await second.close()


async def test_a_write_after_a_later_run_has_come_is_undone(tmp_path: Path) -> None:
    first = open_journal(tmp_path, generation=3)
    kept = await first.append(A, 0, "kind", b"kept")
    Lease(tmp_path, 4).announce()
    with pytest.raises(SupersededError, match="run 4 of the session has the journal; this is run 3"):
        await first.append(A, 1, "kind", b"lost")
    assert isinstance(first.broken, SupersededError)
    with pytest.raises(SupersededError):
        await first.erase([A])
    second = await opened_in_the_end(tmp_path, 4)
    assert list(second.records()) == [kept]
    await first.close()
    await second.close()


async def test_whoever_waits_for_the_end_hears_of_it_though_the_thread_left_with_the_refused_commit(
    tmp_path: Path,
) -> None:
    """A look that stands in the queue behind that commit is never taken: a process that was frozen stayed for ever."""
    journal = open_journal(tmp_path, generation=1)
    Lease(tmp_path, 2).announce()
    waiting = asyncio.create_task(journal.until_broken())
    writes = [journal.append("t", number, "turn.run", b"{}") for number in range(600)]
    await asyncio.sleep(0)
    outcomes = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)
    assert all(isinstance(outcome, JournalError) for outcome in outcomes)
    with pytest.raises(SupersededError):
        await asyncio.wait_for(waiting, 10)
    await journal.close()


async def test_nothing_is_erased_after_a_later_run_has_come(tmp_path: Path) -> None:
    first = open_journal(tmp_path, generation=1)
    kept = await first.append(A, 0, "kind", b"kept")
    Lease(tmp_path, 2).announce()
    with pytest.raises(SupersededError):
        await first.erase([A])
    second = await opened_in_the_end(tmp_path, 2)
    assert list(second.records()) == [kept]
    await first.close()
    await second.close()


async def test_an_earlier_run_does_not_open_the_journal_again(tmp_path: Path) -> None:
    await open_journal(tmp_path, generation=12).close()
    before = (tmp_path / "journal.db").read_bytes()
    for _ in range(2):
        with pytest.raises(SupersededError):
            open_journal(tmp_path, generation=11)
    assert (tmp_path / "journal.db").read_bytes() == before
    assert (tmp_path / GENERATION).read_text() == "12\n"


async def test_a_restart_of_the_same_run_opens_it_again(tmp_path: Path) -> None:
    for _ in range(2):
        journal = open_journal(tmp_path, generation=7)
        await journal.close()


def test_two_runs_that_announce_themselves_at_once_cannot_undo_each_other(tmp_path: Path) -> None:
    turnstile = Lock(tmp_path / f"{GENERATION}.lock")
    with pytest.raises(LockedError):
        Lease(tmp_path, 2).announce()
    turnstile.release()
    Lease(tmp_path, 2).announce()
    with pytest.raises(SupersededError):
        Lease(tmp_path, 1).announce()


def test_a_file_that_holds_no_number_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / GENERATION).write_text("much")
    with pytest.raises(UnreadableError):
        Lease(tmp_path, 2).announce()


def test_on_a_full_volume_the_number_goes_into_the_place_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lease(tmp_path, 9).announce()
    real = os.open

    def full(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_TRUNC:
            raise OSError(28, "No space left on device")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", full)
    Lease(tmp_path, 10).announce()
    assert (tmp_path / GENERATION).read_text() == "10\n"
    assert [path.name for path in tmp_path.glob("*.new")] == []


acts = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(["open", "write", "write", "erase", "leave"])), max_size=40
)


@given(acts)
def test_no_earlier_run_ever_writes_after_a_later_one(plan: list[tuple[int, str]]) -> None:
    async def play(directory: Path) -> list[int]:
        runs: dict[int, Journal] = {}
        written: list[int] = []
        for step, (generation, act) in enumerate(plan):
            journal = runs.get(generation)
            try:
                if journal is None:
                    runs[generation] = await asyncio.to_thread(open_journal, directory, generation=generation)
                elif act == "write":
                    await journal.append(A, step, "kind", json.dumps(generation).encode())
                    written.append(generation)
                elif act == "erase":
                    await journal.erase(["c" * 32])
                elif act == "leave":
                    await runs.pop(generation).close()
            except JournalError:
                if journal is not None and journal.broken is not None:
                    await runs.pop(generation).close()
        for journal in runs.values():
            await journal.close()
        last = open_journal(directory, generation=6)
        found = [json.loads(record.payload) for record in last.records()]
        await last.close()
        assert found == written
        return found

    with tempfile.TemporaryDirectory() as directory:
        generations = asyncio.run(play(Path(directory)))
    assert generations == sorted(generations)
