"""When which key is due: the state of a work queue, without clock, tasks or input and output.

A key is waiting at most once and taken by at most one worker at a time. Asked for while it is taken, it is due again
after it is done, so no change is missed. Asked for twice, the earlier time holds.
"""

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """One heap of due times over distinct keys. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._taken: set[K] = set()
        self._heap: list[tuple[float, int, K]] = []  # has an entry for every waiting key, and outdated ones
        self._order = count()

    def ask(self, key: K, due: float) -> None:
        """Wants the key done at `due` or earlier."""
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._taken:
            heapq.heappush(self._heap, (due, next(self._order), key))

    def take(self, now: float) -> K | None:
        """The key that has been due longest; the caller must say `done` of it. None if none is due."""
        self._drop_outdated()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._taken.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker that took the key has finished with it."""
        self._taken.remove(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))

    def next_due(self) -> float | None:
        """When `take` will next give a key; None if nothing waits that is not taken."""
        self._drop_outdated()
        return self._heap[0][0] if self._heap else None

    def is_waiting(self, key: K) -> bool:
        """Whether the key will be done some time."""
        return key in self._due

    def due_by(self, now: float) -> int:
        """How many keys are due and not yet done."""
        return len(self._taken) + sum(1 for key, due in self._due.items() if due <= now and key not in self._taken)

    def _drop_outdated(self) -> None:
        heap = self._heap
        while heap and (heap[0][2] in self._taken or self._due.get(heap[0][2]) != heap[0][0]):
            heapq.heappop(heap)
