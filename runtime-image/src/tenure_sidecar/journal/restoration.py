"""Fills an empty journal with the records of another, all of them or none."""

import contextlib
from collections.abc import Callable

import apsw

from tenure_sidecar.journal.sealing import Head, Sealer


class ClashError(Exception):
    """There is a record of this number, or of this turn, step and kind, already."""


class Restoration:
    """A transaction on a journal that nobody writes in yet. Its calls block, and come one after the other."""

    def __init__(self, db: apsw.Connection, sealer: Sealer, may_write: Callable[[], None]) -> None:
        """`may_write` raises `JournalError` if a later run of the session has the journal."""
        self._db = db
        self._sealer = sealer
        self._may_write = may_write
        db.execute("BEGIN IMMEDIATE")

    def add(self, head: Head, payload: bytes) -> None:
        """Take up a record as it was numbered and timed. Raises `ClashError`; `apsw.FullError` if there is no room."""
        row = (*head, self._sealer.seal(head, payload))
        try:
            self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", row)
        except apsw.ConstraintError:
            raise ClashError from None

    def commit(self) -> None:
        """All of them are there; done when they are on disk."""
        self._may_write()
        self._db.execute("COMMIT")

    def abort(self) -> None:
        """None of them is there, unless they were committed."""
        with contextlib.suppress(apsw.ConnectionClosedError):  # that has undone them too
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
