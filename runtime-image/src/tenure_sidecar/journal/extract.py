"""Reads the records of turns that have ended out of a journal that goes on being written.

Records are only ever appended, so those up to some number stay the same however long reading them takes. Only retention
takes away of them: who reads must count, and not be content with less.
"""

from typing import NamedTuple

import apsw

from tenure_sidecar.journal.records import TurnEnd
from tenure_sidecar.journal.sealing import NONCE_BYTES, Head

_TAG_BYTES = 16
_HEADS = 5_000
"""Heads that are read at a time: the journal's thread has turns to write."""
_BYTES = 1_048_576
"""About so many bytes of payloads are read at a time."""
_ROWS = 500
_ENDED = (
    f" FROM record AS r WHERE sequence > ? AND sequence <= ? AND turn != '' AND EXISTS (SELECT 1 FROM record AS e"  # noqa: S608
    f" WHERE e.turn = r.turn AND e.kind = '{TurnEnd.kind}' AND e.sequence <= ?) ORDER BY sequence LIMIT ?"
)


class Sized(NamedTuple):
    """A record, and how long its payload is."""

    head: Head
    length: int


class Sealed(NamedTuple):
    """A record, and its payload as it is in the journal."""

    head: Head
    sealed: bytes


def last(db: apsw.Connection) -> int:
    """Number of the last record that there is."""
    return int(db.execute("SELECT ifnull(max(sequence), 0) FROM record").get)


def sizes(db: apsw.Connection, after: int, upto: int) -> list[Sized]:
    """The next records after one, of turns that had ended at or before another; empty if there are no more."""
    query = f"SELECT sequence, turn, step, kind, at, length(sealed){_ENDED}"
    rows = db.execute(query, (after, upto, upto, _HEADS))
    return [Sized(Head(*head), length - NONCE_BYTES - _TAG_BYTES) for *head, length in rows]


def payloads(db: apsw.Connection, after: int, upto: int) -> list[Sealed]:
    """The same, with their payloads."""
    found: list[Sealed] = []
    size = 0
    for *head, sealed in db.execute(
        f"SELECT sequence, turn, step, kind, at, sealed{_ENDED}", (after, upto, upto, _ROWS)
    ):
        found.append(Sealed(Head(*head), sealed))
        size += len(sealed)
        if size >= _BYTES:
            break
    return found
