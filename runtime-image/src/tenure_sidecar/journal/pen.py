"""Writes what must be written before anything else can happen."""

import asyncio
import logging
from collections.abc import Callable

from tenure_sidecar.errors import JournalError, VolumeFullError
from tenure_sidecar.journal.records import Entry
from tenure_sidecar.journal.store import Journal, Record

log = logging.getLogger(__name__)


class Pen:
    """Writes records of turns, as often as it takes: a full volume can be mended."""

    def __init__(
        self,
        journal: Journal,
        seconds: float,
        make_room: Callable[[], bool] = lambda: False,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """`seconds` pass between two attempts; `make_room` gives up a reserve, and says if there was one.

        `written` is told of every record.
        """
        self._journal = journal
        self._seconds = seconds
        self._make_room = make_room
        self._written = written

    async def write(self, turn: str, step: int, entry: Entry) -> Record:
        """Write a record; done when it is on disk. Raises `JournalError` only if the journal is broken."""
        while True:
            try:
                return await self.hold(turn, step, entry)
            except JournalError:
                if self._journal.broken:
                    raise
                log.warning("%s of turn %s cannot be written yet", entry.kind, turn)
                await asyncio.sleep(self._seconds)

    async def hold(self, turn: str, step: int, entry: Entry) -> Record:
        """Write a record of a turn that is under way. Raises `JournalError` if there is no room, and no reserve."""
        try:
            return await self.once(turn, step, entry)
        except VolumeFullError:
            if not self._make_room():
                raise
        return await self.once(turn, step, entry)

    async def once(self, turn: str, step: int, entry: Entry) -> Record:
        """Write a record that need not be written. Raises `JournalError` if it could not be."""
        record = await self._journal.append(turn, step, entry.kind, entry.payload())
        self._written()
        return record

    async def replace(self, entry: Entry) -> Record:
        """Write the only record of a kind that belongs to no turn, in place of the one before.

        Raises `JournalError` if that cannot be, also without the reserve.
        """
        try:
            return await self._journal.replace(entry.kind, entry.payload())
        except VolumeFullError:
            if not self._make_room():
                raise
        return await self._journal.replace(entry.kind, entry.payload())
