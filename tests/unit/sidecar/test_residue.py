"""What is deleted is gone from every byte of every file."""

import asyncio
import random
from pathlib import Path

import pytest

from tenure_sidecar.journal import erasure
from tenure_sidecar.journal.store import Journal
from unit.sidecar.support import files_of, open_journal

PIECE = 16
SIZES = (40, 300, 1000, 6000)


def sealed(journal: Journal, turns: list[str]) -> list[bytes]:
    """The ciphertext of all records of these turns."""
    marks = ",".join("?" * len(turns))
    return [blob for (blob,) in journal._db.execute(f"SELECT sealed FROM record WHERE turn IN ({marks})", turns)]


def pieces(blobs: list[bytes]) -> list[bytes]:
    """Of each the beginning, which has the nonce, and pieces from all of its length."""
    return [blob[start : start + PIECE] for blob in blobs for start in range(0, len(blob) - PIECE + 1, 5 * PIECE)]


def left(directory: Path, wanted: list[bytes]) -> list[tuple[str, int]]:
    """Where pieces of deleted ciphertext, or of names of deleted turns, still are."""
    return [
        (name, content.find(piece))
        for name, content in files_of(directory).items()
        for piece in wanted
        if piece in content
    ]


async def fill(journal: Journal, turns: int, chance: random.Random, sizes: tuple[int, ...] = SIZES) -> list[str]:
    names, appends = [], []
    for _ in range(turns):
        names.append(chance.randbytes(16).hex())
        appends += [
            journal.append(names[-1], 0, kind, chance.randbytes(chance.choice(sizes)))
            for kind in ("turn.start", "model.intent", "model.result", "turn.end")
        ]
    await asyncio.gather(*appends)
    return names


@pytest.mark.parametrize("seed", range(6))
async def test_no_byte_of_deleted_records_is_left_in_any_file(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    journal = open_journal(tmp_path)
    turns: list[str] = []
    for _ in range(5):
        turns += await fill(journal, chance.randint(5, 20), chance)
        doomed = turns[: chance.randint(1, 12)] if seed % 2 else chance.sample(turns, min(9, len(turns)))
        traces = pieces(sealed(journal, doomed)) + [turn.encode() for turn in doomed]
        turns = [turn for turn in turns if turn not in doomed]
        erased = await journal.erase(doomed)
        assert erased.residue == 0
        assert left(tmp_path, traces) == []
        assert journal._db.pragma("integrity_check") == "ok"
    assert {record.turn for record in journal.records()} == set(turns)
    await journal.close()


async def test_secure_delete_alone_would_leave_traces(tmp_path: Path) -> None:
    """Why the files are looked at: a deletion moves cells, and what stays of them is not overwritten by the next."""
    found = 0
    for seed in range(4):
        directory = tmp_path / str(seed)
        directory.mkdir()
        journal = open_journal(directory)
        turns = await fill(journal, 80, random.Random(seed), (40, 1000))
        traces = pieces(sealed(journal, turns[:40]))
        for turn in turns[:40]:
            erasure.delete(journal._db, [turn], journal.sequence, journal.last_at)
        assert erasure.empty_log(journal._db, directory)
        found += len(left(directory, traces))
        erased = await journal.erase([])
        assert (erased.residue, left(directory, traces)) == (0, [])
        await journal.close()
    assert found > 0


async def test_traces_that_a_kill_has_left_are_found_without_knowing_of_it(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    journal = open_journal(tmp_path / "before")
    turns = await fill(journal, 40, random.Random(2))
    traces = pieces(sealed(journal, turns[:21]))
    erasure.delete(journal._db, turns[:21], journal.sequence, journal.last_at)
    for name, content in files_of(tmp_path / "before").items():  # as a kill between deleting and cleaning leaves them
        (tmp_path / "after" / name).write_bytes(content)
    await journal.close()
    assert left(tmp_path / "after", traces)
    again = open_journal(tmp_path / "after")
    assert (await again.erase([])).residue == 0
    assert left(tmp_path / "after", traces) == []
    assert len(list(again.records())) == 19 * 4
    await again.close()


async def test_a_clean_journal_is_not_touched(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await fill(journal, 20, random.Random(3))
    await journal.erase([])
    before = files_of(tmp_path)
    erased = await journal.erase([])
    assert (erased.records, erased.scrubbed, erased.residue) == (0, 0, 0)
    assert files_of(tmp_path) == before
    await journal.close()
