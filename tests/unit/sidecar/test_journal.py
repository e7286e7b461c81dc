"""The journal: what is acknowledged is on disk, once, in order; and only its own key opens it."""

import asyncio
from pathlib import Path

import apsw
import pytest

from tenure_sidecar.errors import JournalError, KeyMismatchError, LockedError, UnreadableError
from tenure_sidecar.journal.schema import DATABASE
from unit.sidecar.support import HandClock, files_of, open_journal

A, B = "a" * 32, "b" * 32


async def test_records_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    written = [await journal.append(A, step, "kind", b"text %d" % step) for step in range(5)]
    await journal.close()
    again = open_journal(tmp_path)
    assert list(again.records()) == written
    assert [record.sequence for record in written] == [1, 2, 3, 4, 5]
    await again.close()


async def test_a_record_appended_again_is_the_one_that_is_there(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    first = await journal.append(A, 0, "turn.start", b"said first")
    again = await journal.append(A, 0, "turn.start", b"said later")
    assert again == first
    assert journal.sequence == 1
    await journal.close()


async def test_the_same_record_twice_in_one_commit_is_written_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    records = await asyncio.gather(*(journal.append(A, 0, "kind", b"%d" % n) for n in range(50)))
    assert {record.sequence for record in records} == {1}
    assert [record.payload for record in journal.records()] == [records[0].payload]
    await journal.close()


async def test_concurrent_appends_are_numbered_without_gaps(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    records = await asyncio.gather(*(journal.append(A, n, "kind", b"x") for n in range(1200)))
    assert sorted(record.sequence for record in records) == list(range(1, 1201))
    await journal.close()


async def test_time_never_runs_backwards(tmp_path: Path) -> None:
    clock = HandClock()
    journal = open_journal(tmp_path, clock=clock)
    first = await journal.append(A, 0, "kind", b"")
    clock.advance(-3600)
    second = await journal.append(A, 1, "kind", b"")
    await journal.erase([A])
    await journal.close()
    again = open_journal(tmp_path, clock=clock)
    third = await again.append(B, 0, "kind", b"")
    assert first.at <= second.at <= third.at
    await again.close()


async def test_a_number_is_never_given_twice_even_after_a_deletion(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for step in range(3):
        await journal.append(A, step, "kind", b"")
    await journal.erase([A])
    await journal.close()
    again = open_journal(tmp_path)
    assert (await again.append(B, 0, "kind", b"")).sequence == 4
    await again.close()


async def test_a_replaced_record_is_the_only_one_of_its_kind(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.replace("config", b"old")
    await journal.replace("config", b"new")
    assert [record.payload for record in journal.records(("config",))] == [b"new"]
    assert journal.sequence == 2
    await journal.close()


async def test_records_of_one_turn_and_of_some_kinds(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for turn in (A, B):
        for kind in ("turn.start", "turn.end"):
            await journal.append(turn, 0, kind, b"")
    assert [record.kind for record in journal.records(turn=B)] == ["turn.start", "turn.end"]
    assert [record.turn for record in journal.records(("turn.end",))] == [A, B]
    await journal.close()


async def test_nothing_said_is_readable_in_the_files(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.append(A, 0, "turn.start", b"a canary sings")
    for content in files_of(tmp_path).values():
        assert b"canary" not in content
    await journal.close()
    for content in files_of(tmp_path).values():
        assert b"canary" not in content


async def test_another_key_is_recognised_and_nothing_is_written(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.append(A, 0, "kind", b"text")
    await journal.close()
    before = files_of(tmp_path)
    with pytest.raises(KeyMismatchError, match="restore"):
        open_journal(tmp_path, key=bytes(32))
    after = files_of(tmp_path)
    assert {name: after[name] for name in before} == before
    again = open_journal(tmp_path)
    assert [record.payload for record in again.records()] == [b"text"]
    await again.close()


async def test_another_session_s_journal_is_refused(tmp_path: Path) -> None:
    await open_journal(tmp_path).close()
    with pytest.raises(UnreadableError, match="another session"):
        open_journal(tmp_path, session="another")


async def test_a_journal_is_open_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(LockedError):
        open_journal(tmp_path)
    await journal.close()
    await open_journal(tmp_path).close()


async def test_a_creation_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    journal = open_journal(tmp_path)
    await journal.append(A, 0, "kind", b"")
    await journal.close()


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_journal_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(UnreadableError):
        open_journal(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == content


async def test_a_record_that_was_tampered_with_is_unreadable(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.append(A, 0, "kind", b"text")
    await journal.close()
    db = apsw.Connection(str(tmp_path / DATABASE))
    db.execute("UPDATE record SET at = at + 1")
    db.close()
    again = open_journal(tmp_path)
    with pytest.raises(UnreadableError, match="does not open"):
        list(again.records())
    await again.close()


async def test_a_journal_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    await open_journal(tmp_path).close()
    db = apsw.Connection(str(tmp_path / DATABASE))
    db.pragma("user_version", 99)
    db.close()
    with pytest.raises(UnreadableError, match="format 99"):
        open_journal(tmp_path)


async def test_a_full_volume_fails_the_append_and_not_the_journal(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal._db.pragma("max_page_count", 8)
    appends = (journal.append(A, step, "kind", bytes(4000)) for step in range(100))
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert any(isinstance(result, JournalError) for result in results)
    held = journal.sequence
    journal._db.pragma("max_page_count", 100_000)
    assert (await journal.append(B, 0, "kind", b"")).sequence == held + 1
    assert journal.broken is None
    await journal.close()


async def test_a_failed_write_of_another_sort_takes_the_journal_out_of_use(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.append(A, 0, "kind", b"")
    journal._db.execute("DROP TABLE record")
    with pytest.raises(JournalError):
        await journal.append(A, 1, "kind", b"")
    with pytest.raises(JournalError):
        await journal.append(A, 2, "kind", b"")
    async with asyncio.timeout(5):
        with pytest.raises(JournalError):
            await journal.until_broken()
    await journal.close()


async def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await journal.close()
    with pytest.raises(JournalError, match="closed"):
        await journal.append(A, 0, "kind", b"")
