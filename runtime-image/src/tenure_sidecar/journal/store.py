"""The journal of a session: append, read, erase.

One thread writes. It takes all appends that have come in meanwhile, writes them in one transaction and tells their
callers after its commit, so that concurrent appends share one fsync (group commit) and none is acknowledged before it
is on disk. A record is named by (turn, step, kind): appended again, the existing one is returned.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import apsw

from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import JournalError, SupersededError, UnreadableError, VolumeFullError
from tenure_sidecar.journal import erasure, schema
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.lock import Lock
from tenure_sidecar.journal.restoration import Restoration
from tenure_sidecar.journal.sealing import Head, SealBrokenError, Sealer

LOCK = "lock"
_MOST_IN_A_COMMIT = 512
_MOST_GIVEN_BACK = 512
"""Pages that are moved in one go: so much of the log they need, and so long others wait."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether a later run of the session wants the journal, when nothing is written."""
_SELECT = "SELECT sequence, turn, step, kind, at, sealed FROM record"

log = logging.getLogger(__name__)

T = TypeVar("T")


class Record(NamedTuple):
    """A record with its payload in the clear. `at` is in microseconds since the epoch."""

    sequence: int
    turn: str
    step: int
    kind: str
    at: int
    payload: bytes


@dataclass(slots=True)
class _Append:
    turn: str
    step: int
    kind: str
    payload: bytes
    replaces: bool
    done: asyncio.Future[Record]


@dataclass(slots=True)
class _Alone:
    """Work on the database that is done outside of a batch."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]


class Journal:
    """An open journal. Reads are for the time before the first append; then one thread owns the database."""

    def __init__(self, directory: Path, sealer: Sealer, identity: str, clock: Clock, lease: Lease) -> None:
        """Open the journal of a session, or make it; blocks. Raises `JournalError`."""
        self._directory = directory
        self._lease = lease
        self._sealer = sealer
        self._identity = identity
        self._clock = clock
        lease.announce()
        self._lock = Lock(directory / LOCK)
        try:
            lease.check()  # a later run may have come and gone meanwhile
            self._db = schema.connect(directory, identity, sealer.fingerprint)
            self._sequence, self._at = self._last()
        except BaseException:
            self._lock.release()
            raise
        self._jobs: SimpleQueue[_Append | _Alone | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="journal", daemon=True)
        self._closed = False
        self._broken: JournalError | None = None
        self._out_of_use = asyncio.Event()
        self._thread.start()

    @property
    def sequence(self) -> int:
        """Number of the last record ever written."""
        return self._sequence

    @property
    def last_at(self) -> int:
        """Time of the last record ever written, in microseconds since the epoch; 0 if there is none."""
        return self._at

    @property
    def broken(self) -> JournalError | None:
        """Why nothing can be written any more: a write failed so that the state of the disk is not known."""
        return self._broken

    async def until_broken(self) -> None:
        """Wait until nothing can be written any more, then raise why."""
        while not self._out_of_use.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._out_of_use.wait()
            if not self._out_of_use.is_set():
                # Not awaited: its failure is told here, and a thread that has left answers nothing any more.
                looked = self._ask(_Alone(self._lease.check, asyncio.get_running_loop().create_future()))
                looked.add_done_callback(_seen)
        if self._broken is not None:
            raise self._broken

    def records(self, kinds: tuple[str, ...] = (), turn: str | None = None) -> Iterator[Record]:
        """Records in order, of the given kinds and turn if given; blocks. Raises `UnreadableError`."""
        where = ["1"]
        bindings: list[str] = []
        if kinds:
            where.append(f"kind IN ({','.join('?' * len(kinds))})")
            bindings += kinds
        if turn is not None:
            where.append("turn = ?")
            bindings.append(turn)
        query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY sequence"
        try:
            for *head, sealed in self._db.execute(query, tuple(bindings)):
                yield self._opened(Head(*head), sealed)
        except (apsw.Error, SealBrokenError) as error:
            raise UnreadableError(f"the journal is damaged: {error}") from error

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Read in the thread that owns the database, which writes nothing meanwhile: so it must not take long."""
        found: T = await self._ask(_Alone(lambda: work(self._db), asyncio.get_running_loop().create_future()))
        return found

    def opened(self, head: Head, sealed: bytes) -> Record:
        """A record that was read as it is in the database. Raises `UnreadableError`."""
        try:
            return self._opened(head, sealed)
        except SealBrokenError as error:
            raise UnreadableError(f"the journal is damaged: {error}") from error

    def restoration(self) -> Restoration:
        """Fill the journal, before the first append, with records of another one. `restored` must follow a commit."""
        return Restoration(self._db, self._sealer, self._lease.check)

    def restored(self) -> None:
        """Records were restored: numbers and times go on from the last one."""
        self._sequence, self._at = self._last()

    def append(self, turn: str, step: int, kind: str, payload: bytes) -> Awaitable[Record]:
        """Write a record; done when it is on disk. Raises `JournalError` if it could not be written.

        If there is a record of this turn, step and kind, that one is returned and nothing is written.
        """
        return self._ask(_Append(turn, step, kind, payload, False, asyncio.get_running_loop().create_future()))

    def replace(self, kind: str, payload: bytes) -> Awaitable[Record]:
        """Write the only record of a kind that belongs to no turn, in place of the one before."""
        return self._ask(_Append("", 0, kind, payload, True, asyncio.get_running_loop().create_future()))

    async def erase(self, turns: list[str]) -> erasure.Erased:
        """Delete all records of these turns and every trace of them in the files; then look again.

        Without turns, only traces that a crash has left are looked for.
        """
        job = _Alone(partial(self._erase, turns), asyncio.get_running_loop().create_future())
        erased: erasure.Erased = await self._ask(job)
        return erased

    async def flush(self) -> None:
        """Move the log into the database, so that there is little to do at the end. Raises `JournalError`."""
        loop = asyncio.get_running_loop()
        await self._ask(_Alone(lambda: erasure.empty_log(self._db, self._directory), loop.create_future()))

    async def shrink(self) -> bool:
        """Give some of what was deleted back to the volume; whether there may be more. Raises `JournalError`."""
        more: bool = await self._ask(_Alone(self._shrink, asyncio.get_running_loop().create_future()))
        return more

    async def close(self) -> None:
        """Write what was asked for, then close and let the next process in."""
        if not self._closed:
            await asyncio.to_thread(self.abandon)

    def abandon(self) -> None:
        """Close without an event loop to wait in; blocks."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _ask(self, job: _Append | _Alone) -> asyncio.Future[Any]:
        if self._closed:
            job.done.set_exception(UnreadableError("the journal is closed"))
        elif self._broken is not None:
            job.done.set_exception(self._broken)
        else:
            self._jobs.put(job)
        return job.done

    def _last(self) -> tuple[int, int]:
        try:
            row = self._db.execute(
                "SELECT max(sequence_floor, ifnull((SELECT max(sequence) FROM record), 0)),"
                " max(at_floor, ifnull((SELECT at FROM record ORDER BY sequence DESC LIMIT 1), 0)) FROM journal"
            ).fetchone()
        except apsw.Error as error:
            raise UnreadableError(f"the journal is damaged: {error}") from error
        if row is None:
            raise UnreadableError("the journal is damaged: the row about itself is missing")
        return int(row[0]), int(row[1])

    def _opened(self, head: Head, sealed: bytes) -> Record:
        return Record(*head, self._sealer.open(head, sealed))

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if isinstance(job, _Alone):
                    self._do_alone(job)
                elif not self._do_batch(job):
                    break
                if isinstance(self._broken, SupersededError):
                    self._refuse_the_rest(self._broken)
                    break  # the later run waits for the lock
        finally:
            try:
                self._db.close()
            except apsw.Error:
                log.exception("the journal did not close cleanly; the next start recovers it")
            self._lock.release()

    def _do_batch(self, first: _Append) -> bool:
        """Write `first` and all that waits behind it. False if the journal is to be closed."""
        batch, then = [first], None
        while not self._jobs.empty() and len(batch) < _MOST_IN_A_COMMIT:
            job = self._jobs.get()
            if not isinstance(job, _Append):
                then = job
                closing = job is None
                break
            batch.append(job)
        else:
            closing = False
        self._commit(batch)
        if then is not None:
            self._do_alone(then)
        return not closing

    def _commit(self, batch: list[_Append]) -> None:
        before = self._sequence, self._at
        loop = batch[0].done.get_loop()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            written = [(job.done, self._write(job)) for job in batch]
            self._lease.check()
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            self._sequence, self._at = before
            failure = self._failed(error)
            loop.call_soon_threadsafe(self._tell, [job.done for job in batch], failure)
        else:
            loop.call_soon_threadsafe(_settle, written)

    def _write(self, job: _Append) -> Record:
        if job.replaces:
            self._db.execute("DELETE FROM record WHERE turn = '' AND step = 0 AND kind = ?", (job.kind,))
        head = Head(self._sequence + 1, job.turn, job.step, job.kind, max(self._at, int(self._clock.now() * 1e6)))
        self._db.execute(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (turn, step, kind) DO NOTHING",
            (*head, self._sealer.seal(head, job.payload)),
        )
        if self._db.changes() == 0:
            named = (job.turn, job.step, job.kind)
            (*found, sealed), *_ = self._db.execute(f"{_SELECT} WHERE turn = ? AND step = ? AND kind = ?", named)
            return self._opened(Head(*found), sealed)
        self._sequence, self._at = head.sequence, head.at
        return Record(*head, job.payload)

    def _erase(self, turns: list[str]) -> erasure.Erased:
        self._lease.check()
        records = self._delete(turns) if turns else 0
        emptied = erasure.empty_log(self._db, self._directory)
        found = erasure.residue(self._db)
        if not found:
            return erasure.Erased(records, 0, int(not emptied))
        self._db.close()
        erasure.overwrite(self._directory, found)
        self._db = schema.connect(self._directory, self._identity, self._sealer.fingerprint)
        return erasure.Erased(records, len(found), len(erasure.residue(self._db)))

    def _delete(self, turns: list[str]) -> int:
        erasure.empty_log(self._db, self._directory)  # else what little room there is goes to what is undone after all
        try:
            return erasure.delete(self._db, turns, self._sequence, self._at)
        except apsw.FullError:
            self._roll_back()
        return erasure.delete_in_steps(self._db, self._directory, turns, self._sequence, self._at, self._lease.check)

    def _shrink(self) -> bool:
        self._lease.check()
        return erasure.shrink(self._db, self._directory, _MOST_GIVEN_BACK)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _do_alone(self, job: _Alone) -> None:
        loop = job.done.get_loop()
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            loop.call_soon_threadsafe(self._tell, [job.done], self._failed(error))
        else:
            loop.call_soon_threadsafe(_settle, [(job.done, result)])

    def _refuse_the_rest(self, why: JournalError) -> None:
        """Answer what still waits for a thread that leaves."""
        while not self._jobs.empty():
            if (job := self._jobs.get()) is not None:
                job.done.get_loop().call_soon_threadsafe(self._tell, [job.done], why)

    def _failed(self, error: Exception) -> JournalError:
        """Undo, and judge what failed. A full volume can be mended while we run; all else needs a fresh start."""
        try:
            self._roll_back()
        except apsw.Error:
            log.exception("the failed write could not be undone")
        if isinstance(error, SupersededError):
            log.warning("the journal is given up: %s", error)
            self._broken = error
            return error
        if isinstance(error, apsw.FullError):
            return VolumeFullError()
        log.error("the journal is out of use", exc_info=error)
        self._broken = UnreadableError(f"the journal cannot be written: {type(error).__name__}: {error}")
        return self._broken

    def _tell(self, waiting: list[asyncio.Future[Any]], failure: JournalError) -> None:
        for done in waiting:
            if not done.done():
                done.set_exception(failure)
        if self._broken is not None:
            self._out_of_use.set()


def _seen(done: asyncio.Future[Any]) -> None:
    """Have the outcome count as looked at."""
    if not done.cancelled():
        done.exception()


def _settle(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, result in results:
        if not done.done():
            done.set_result(result)
