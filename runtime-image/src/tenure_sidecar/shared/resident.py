"""A session that a host keeps: closed while nothing happens, open from the first call until it has been idle."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from tenure_sidecar import asgi
from tenure_sidecar.errors import JournalError, RefusedError, SupersededError
from tenure_sidecar.shared.places import Place
from tenure_sidecar.shared.seats import Seats
from tenure_sidecar.shared.summary import Summary
from tenure_sidecar.shared.work import Means, Work

RETRY_SECONDS = 5.0
"""How soon a session whose turn has not ended is opened again after it broke or could not be opened."""

NAME: ContextVar[str] = ContextVar("session", default="")
"""`namespace/name` of the session that a task works for, for logs."""

log = logging.getLogger(__name__)


class Resident:
    """One session."""

    __slots__ = (
        "_lock",
        "_means",
        "_place",
        "_seats",
        "_superseded",
        "_task",
        "_unclean",
        "_users",
        "_work",
        "erased",
        "name",
        "problem",
        "summary",
        "used_at",
        "wake_at",
    )

    def __init__(
        self, place: Place, name: str, means: Means, seats: Seats, superseded: Callable[[SupersededError], None]
    ) -> None:
        """`name` is `namespace/name`; `superseded` is told when a later run of the host has the volume."""
        self.name = name
        self.summary = Summary()
        self.problem: JournalError | None = None
        self.wake_at: float | None = None
        """When it must be opened by itself, in seconds since the epoch."""
        self.used_at = 0.0
        """When it was last used, by the event loop's clock."""
        self.erased = False
        self._place = place
        self._means = means
        self._seats = seats
        self._superseded = superseded
        self._unclean = False
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._users: set[asyncio.Task[object]] = set()
        self._lock: asyncio.Lock | None = None

    def recall(self) -> None:
        """What an earlier process left; blocks. Raises `UnreadableError`."""
        if self._place.was_open:
            self._unclean = True
            self.wake_at = 0.0
        if (kept := self._place.summary.read()) is not None:
            self.summary = Summary.model_validate_json(kept)
            self.wake_at = self.summary.wake_at if self.wake_at is None else self.wake_at

    @property
    def uid(self) -> str:
        """UID of the AgentSession."""
        return self._place.uid

    @property
    def work(self) -> Work | None:
        """What it works with, if it is open."""
        return self._work

    @property
    def is_closed(self) -> bool:
        """Whether nothing of it is open, nor is being closed."""
        return self._task is None

    @property
    def busy(self) -> bool:
        """Whether somebody uses it, or a turn is being answered."""
        return bool(self._users) or (self._work is not None and not self._work.resting)

    def known(self) -> Summary:
        """What is known of it now."""
        return self._work.summary() if self._work is not None else self.summary

    @property
    def is_due(self) -> bool:
        """Whether it holds something that may not be kept any longer."""
        return self.known().is_due(self._means.policy(), self._means.clock.now())

    # --- use -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Work]:
        """The open session, for as long as it is used. Raises `JournalError`, `RefusedError`, `Gone` if it breaks."""
        while (work := self._work) is None:
            # Whoever asked for it may leave meanwhile: it is opened or not, but never half.
            await asyncio.shield(self._means.aside(self._ensure()))
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        NAME.set(self.name)
        self._users.add(task)
        try:
            with _ending_with(task, lambda: self._work is not work):
                yield work
        finally:
            self._users.discard(task)
            self.used_at = asyncio.get_running_loop().time()

    async def close_if_idle(self) -> None:
        """Close it unless it is busy."""
        async with self._exclusive():
            if not self.busy:
                await self._close()

    async def end(self, seconds: float) -> None:
        """Close it whatever goes on, having given the running turn this long."""
        if self._work is not None:
            await self._work.wind_up(seconds)
        async with self._exclusive():
            await self._close()

    async def erase(self) -> None:
        """Take no more calls, and end all that goes on."""
        self.erased = True
        async with self._exclusive():
            await self._close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _exclusive(self) -> asyncio.Lock:
        """Made when it is needed first: most sessions sleep."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def _ensure(self) -> None:
        """Open it if it is not open. Raises `JournalError` or `RefusedError`."""
        NAME.set(self.name)
        async with self._exclusive():
            if self.erased:
                raise RefusedError(404, "session_not_found", "the session has been deleted")
            if self._work is None:
                await self._seats.take()
                try:
                    await self._open()
                except BaseException:
                    self._seats.give_back()
                    raise

    async def _open(self) -> None:
        try:
            work = await asyncio.to_thread(self._opened)
        except JournalError as error:
            self._failed(error)
            raise
        work.start()
        self.problem = self.wake_at = None
        self.used_at = asyncio.get_running_loop().time()
        self._work = work
        self._task = asyncio.create_task(self._run(work), name=f"session {self.uid}")

    def _opened(self) -> Work:
        unclean = self._unclean or self._place.was_open or self.summary.unclean
        try:
            self._place.mark_open()
        except JournalError as error:  # on a full volume, what there is can be read all the same
            log.warning("that session %s is open cannot be noted: %s", self.uid, error)
        return Work(self._place, self.name, self._means, unclean)

    async def _run(self, work: Work) -> None:
        try:
            await work.run()
        except* JournalError as group:
            for error in group.exceptions:
                log.warning("the journal of session %s is closed: %s", self.uid, error)
                if isinstance(error, JournalError):
                    self._failed(error)
        except* Exception:
            log.exception("a bug ended the work on session %s", self.uid)
        self._means.aside(self._broke(work))  # not in this task, for whose end closing waits

    async def _broke(self, work: Work) -> None:
        async with self._exclusive():
            if self._work is work:
                await self._close()
                self._try_again()

    def _failed(self, error: JournalError) -> None:
        self.problem = error
        if isinstance(error, SupersededError):
            self._superseded(error)
        self._try_again()

    def _try_again(self) -> None:
        """Whatever the journal holds must be brought to its end."""
        self._unclean = True
        self.wake_at = self._means.clock.now() + RETRY_SECONDS

    async def _close(self) -> None:
        """Close it if it is open; the caller has it for itself."""
        work, task = self._work, self._task
        if work is None or task is None:
            return
        self.summary = work.summary()
        self._work = None  # who calls now waits until it is closed, and has it opened again
        for user in self._users:
            user.cancel()
        await work.wind_up(0)
        task.cancel()
        await asyncio.wait((task,))
        await work.journal.close()
        self._seats.give_back()
        self.wake_at = self.summary.wake_at
        self._unclean = work.journal.broken is not None
        if not self.erased and not self._unclean:
            await asyncio.to_thread(self._keep, work.transcript.open_turn() is not None)
        self._task = None

    def _keep(self, unended: bool) -> None:
        try:
            self._place.summary.write(self.summary.model_dump_json(by_alias=True).encode())
            if not unended:
                self._place.mark_closed()
        except (JournalError, OSError) as error:
            log.warning("what is known of session %s is kept in memory only: %s", self.uid, error)


@contextmanager
def _ending_with(task: asyncio.Task[object], ended: Callable[[], bool]) -> Iterator[None]:
    """While a session is used: if it is closed under the user, the user is gone."""
    try:
        yield
    except asyncio.CancelledError:
        if not ended() or task.uncancel() != 0:
            raise
        raise asgi.Gone from None
