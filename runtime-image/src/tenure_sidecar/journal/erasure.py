"""Deletion without residue, and the proof of it.

Deleting rows leaves traces. The write-ahead log still holds them; and while `secure_delete` overwrites what is deleted,
it does not reach the copies that stay in the unallocated space of a page when a merge or split moves cells to another
page. So after a deletion the log is emptied, and every byte of the database that belongs to no live cell is looked at.
What is not zero is overwritten in the file while SQLite has it closed, since SQLite offers no way to do so short of
copying the whole database; then all is looked at again.

Unallocated space has no meaning to SQLite, so a crash at any point leaves a valid database; the look after the next
start finds what is left. File format: https://www.sqlite.org/fileformat2.html.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import apsw

from tenure_sidecar.journal.records import TURN_KINDS
from tenure_sidecar.journal.schema import DATABASE

_INTERIOR = (2, 5)
_LEAVES = (10, 13)
_FILE_HEADER = 100
_LOCK_BYTE = 1 << 30
_MOST_BINDINGS = 500


class Span(NamedTuple):
    """Bytes of the database file that belong to nothing and are not zero."""

    offset: int
    length: int


@dataclass(frozen=True)
class Erased:
    """What was done. `residue` counts the places that could not be cleaned; 0 is the proof."""

    records: int
    scrubbed: int
    residue: int


def delete(db: apsw.Connection, turns: list[str], sequence: int, at: int) -> int:
    """Delete all records of these turns; how many. `sequence` and `at` are those of the last record ever written.

    Whoever calls it rolls back what fails: SQLite may have done so already.
    """
    parts = [turns[i : i + _MOST_BINDINGS] for i in range(0, len(turns), _MOST_BINDINGS)]
    records = 0
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE journal SET sequence_floor = ?, at_floor = ?", (sequence, at))
    for part in parts:
        db.execute(f"DELETE FROM record WHERE turn IN ({','.join('?' * len(part))})", part)  # noqa: S608
        records += db.changes()
    db.execute("COMMIT")
    return records


def delete_in_steps(
    db: apsw.Connection, directory: Path, turns: list[str], sequence: int, at: int, check: Callable[[], None]
) -> int:
    """The same with the least room, one record after the other; `check` is called before every commit.

    What has begun and ended a turn goes last and together: after a crash in between it is one that has ended, still.
    """
    records = 0
    empty_log(db, directory)
    for turn in turns:
        kept = ",".join(f"'{kind}'" for kind in TURN_KINDS)
        found = db.execute(f"SELECT sequence FROM record WHERE turn = ? AND kind NOT IN ({kept})", (turn,))  # noqa: S608
        steps = [("sequence = ?", number) for (number,) in found]
        for where, value in [*steps, ("turn = ?", turn)]:
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE journal SET sequence_floor = ?, at_floor = ?", (sequence, at))
            db.execute(f"DELETE FROM record WHERE {where}", (value,))  # noqa: S608
            records += db.changes()
            check()
            db.execute("COMMIT")
            empty_log(db, directory)
    return records


def shrink(db: apsw.Connection, directory: Path, most: int) -> bool:
    """Give free pages of the database back to the volume, at most this many; whether there may be more."""
    before: int = db.pragma("freelist_count")
    db.execute(f"PRAGMA incremental_vacuum({most})").fetchall()
    empty_log(db, directory)
    after: int = db.pragma("freelist_count")
    return 0 < after < before


def empty_log(db: apsw.Connection, directory: Path) -> bool:
    """Move the log into the database and cut its file to nothing. False if that did not succeed."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    try:
        return os.stat(directory / f"{DATABASE}-wal").st_size == 0
    except FileNotFoundError:
        return True


def residue(db: apsw.Connection) -> list[Span]:
    """All bytes that are neither zero nor live. The log must be empty.

    Pages are read through SQLite's own file handle: closing another one would drop its locks (POSIX).
    """
    size = db.pragma("page_size")
    kinds = {
        number: (kind, payload) for number, kind, payload in db.execute("SELECT pageno, pagetype, payload FROM dbstat")
    }
    found = []
    maps = set(_maps(size, db.pragma("page_count"))) if db.pragma("auto_vacuum") else set()
    for number in range(1, db.pragma("page_count") + 1):
        if number in maps:
            continue
        start = (number - 1) * size
        _, page = db.read("main", 0, start, size)
        kind, payload = kinds.get(number, ("free", 0))
        if kind == "overflow":
            spans: Iterator[Span] = iter((Span(4 + payload, size - 4 - payload),))
        elif kind == "free":
            spans = _unallocated_of_free(page)
        else:
            spans = _unallocated_of_tree(page, _FILE_HEADER if number == 1 else 0)
        found += [Span(start + at, length) for at, length in spans if page.count(0, at, at + length) != length]
    return found


def _maps(size: int, pages: int) -> Iterator[int]:
    """The pages that hold nothing but what other pages are for, so that these can be moved."""
    locks = _LOCK_BYTE // size + 1
    for number in range(2, pages + 1, size // 5 + 1):
        yield number + 1 if number == locks else number


def overwrite(directory: Path, spans: list[Span]) -> None:
    """Write zeros over spans of the database file, which nobody may have open."""
    handle = os.open(directory / DATABASE, os.O_WRONLY)
    try:
        for offset, length in spans:
            os.pwrite(handle, bytes(length), offset)
        os.fsync(handle)
    finally:
        os.close(handle)


def _number(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 2], "big")


def _unallocated_of_tree(page: bytes, header: int) -> Iterator[Span]:
    """The gap between the cell pointers and the cells, and the free blocks between cells."""
    kind = page[header]
    if kind not in _INTERIOR + _LEAVES:
        raise apsw.CorruptError(f"a page of a tree has the unknown type {kind}")
    pointers_end = header + (12 if kind in _INTERIOR else 8) + 2 * _number(page, header + 3)
    content = _number(page, header + 5) or 65_536
    yield Span(pointers_end, content - pointers_end)
    block = _number(page, header + 1)
    while block:
        yield Span(block + 4, _number(page, block + 2) - 4)
        block = _number(page, block)


def _unallocated_of_free(page: bytes) -> Iterator[Span]:
    """A free page is empty; one that is a trunk of the list of free pages begins with their numbers."""
    listed = int.from_bytes(page[4:8], "big")
    start = min(8 + 4 * listed, len(page))
    yield Span(start, len(page) - start)
