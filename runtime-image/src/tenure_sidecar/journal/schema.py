"""The journal's database: one table of records and one row about the journal itself."""

import os
from pathlib import Path

import apsw

from tenure_sidecar.errors import KeyMismatchError, UnreadableError

DATABASE = "journal.db"
VERSION = 2
_APPLICATION_ID = 0x54454E55  # "TENU"

_CREATE = f"""
CREATE TABLE journal (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    identity TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    -- What the last deletion left behind, so that numbers are never given twice and time never runs backwards.
    sequence_floor INTEGER NOT NULL,
    at_floor INTEGER NOT NULL
) STRICT;
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY,
    turn TEXT NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE (turn, step, kind)
) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


def connect(directory: Path, identity: str, fingerprint: bytes) -> apsw.Connection:
    """Open the database of this identity, or make it.

    Nothing is written before it is known that the key is the right one. The caller holds the lock of the directory.
    Raises `KeyMismatchError` or `UnreadableError`.
    """
    path = directory / DATABASE
    try:
        found = path.exists() and path.stat().st_size > 0
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | (0 if found else apsw.SQLITE_OPEN_CREATE))
        try:
            # Before anything is read, else the index of the log is made in a file, for which a full volume has no room.
            db.pragma("locking_mode", "EXCLUSIVE")
            fresh = not (found and _belongs(db, identity, fingerprint))
            if fresh:
                db.pragma("auto_vacuum", "INCREMENTAL")  # can only be chosen now: free pages can be given back
            _configure(db)
            if fresh:
                _create(db, identity, fingerprint)
                _sync(directory)
        except BaseException:
            db.close()
            raise
    except (apsw.Error, OSError) as error:
        raise UnreadableError(f"the journal cannot be opened: {error}") from error
    return db


def _belongs(db: apsw.Connection, identity: str, fingerprint: bytes) -> bool:
    """Whether there is a journal, which then is of this identity and key. Reads only, and changes nothing at its end.

    A file without tables is a creation that was killed; it holds nothing.
    """
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    version = db.pragma("user_version")
    if version == 0 and not list(db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")):
        return False
    if version != VERSION:
        raise UnreadableError(f"the journal has format {version}; this sidecar reads format {VERSION}")
    row = db.execute("SELECT identity, fingerprint FROM journal").fetchone()
    if row is None or row[0] != identity:
        raise UnreadableError("the journal on this volume is another session's")
    if row[1] != fingerprint:
        raise KeyMismatchError("the journal was written with another data key; restore the session's key Secret")
    return True


def _configure(db: apsw.Connection) -> None:
    """The settings of the connection.

    FULL makes a commit an fsync of the log. secure_delete overwrites what is deleted with zeros. Temporary data never
    touches a disk.
    """
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    db.set_busy_timeout(2_000)
    db.pragma("journal_mode", "WAL")
    db.pragma("synchronous", "FULL")
    db.pragma("secure_delete", "ON")
    db.pragma("temp_store", "MEMORY")
    db.pragma("trusted_schema", "OFF")


def _create(db: apsw.Connection, identity: str, fingerprint: bytes) -> None:
    with db:
        db.execute(_CREATE)
        db.execute("INSERT INTO journal VALUES (1, ?, ?, 0, 0)", (identity, fingerprint))


def _sync(directory: Path) -> None:
    """Make the new file's name durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
