"""Keyed work: deduplicated, one worker for a key at a time, a bounded number in total, backed off on failure."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tenure_operator.errors import RefusedError, WaitingError
from tenure_operator.schedule import Schedule

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0

logger = logging.getLogger(__name__)


def backoff(failures: int, random_: float) -> float:
    """Seconds to wait after that many failures in a row: doubling from 1 s to 5 min, spread by up to half downwards.

    `random_` is in [0, 1).
    """
    longest = min(FIRST_DELAY * 2.0 ** min(failures - 1, 30), LONGEST_DELAY)
    return longest * (1 - random_ / 2)


class Queue(Generic[K]):
    """Does `work(key)` for each key that is asked for, at its time.

    `work` returns the seconds after which it wants the key again, or None. `observe(key, outcome, seconds)` is told of
    each run; outcome is `ok`, `waiting`, `refused` or `bug`.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        workers: int,
        observe: Callable[[K, str, float], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._observe = observe
        self._clock = clock
        self._workers = workers
        self._schedule = Schedule[K]()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Semaphore(workers)
        self._handed: asyncio.Queue[K] = asyncio.Queue()

    def ask(self, key: K, delay: float = 0.0) -> None:
        """Wants the key done in at most `delay` seconds. Never blocks."""
        self._schedule.ask(key, self._clock() + delay)
        self._changed.set()

    def is_waiting(self, key: K) -> bool:
        """Whether the key will be done some time."""
        return self._schedule.is_waiting(key)

    def depth(self) -> int:
        """Keys that are due and not done."""
        return self._schedule.due_by(self._clock())

    async def run(self) -> None:
        """Works until cancelled. A fixed set of tasks, so that a key's work never outlives this call."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())
            group.create_task(self._dispatcher())

    async def _dispatcher(self) -> None:
        while True:
            await self._idle.acquire()  # first: a key that waits for a worker can still be asked for anew
            self._handed.put_nowait(await self._next())

    async def _next(self) -> K:
        while True:
            now = self._clock()
            if (key := self._schedule.take(now)) is not None:
                return key
            self._changed.clear()
            due = self._schedule.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(due - now, 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _worker(self) -> None:
        while True:
            key = await self._handed.get()
            try:
                await self._do(key)
            finally:
                self._schedule.done(key)
                self._changed.set()
                self._idle.release()

    async def _do(self, key: K) -> None:
        began = self._clock()
        try:
            again = await self._work(key)
        except WaitingError as error:
            outcome = "waiting"
            self._retry(key, f"waits: {error}")
        except RefusedError as error:
            outcome = "refused"
            self._retry(key, f"is refused: {error}", logging.WARNING)
        except Exception:
            outcome = "bug"
            logger.exception("%s failed: this is a bug", key)
            self._retry(key, "failed", logging.ERROR)
        else:
            outcome = "ok"
            self._failures.pop(key, None)
            if again is not None:
                self.ask(key, again)
        self._observe(key, outcome, self._clock() - began)

    def _retry(self, key: K, why: str, level: int = logging.INFO) -> None:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay = backoff(failures, random.random())  # noqa: S311 - spreads retries, keeps no secret
        logger.log(level, "%s %s; again in %.1f s", key, why, delay)
        self.ask(key, delay)
