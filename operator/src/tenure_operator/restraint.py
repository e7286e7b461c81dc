"""Holds back repairs that do not last, so that a fight with another controller never becomes a hot loop."""

from collections.abc import Callable, Hashable

FREE = 5
"""Repairs of one object that are made at once."""
FORGOTTEN_SECONDS = 600.0
LONGEST_DELAY = 300.0


class Restraint:
    """Counts repairs by object and says how long the next one must wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._repairs: dict[Hashable, tuple[int, float]] = {}

    def delay(self, what: Hashable) -> float:
        """Seconds until the object may be repaired again: none for the first few, then doubling up to 5 min."""
        count, last = self._repairs.get(what, (0, 0.0))
        if count < FREE:
            return 0.0
        return max(0.0, last + min(2.0 ** (count - FREE + 1), LONGEST_DELAY) - self._clock())

    def note(self, what: Hashable) -> None:
        """A repair was made. Forgotten after ten minutes without one."""
        now = self._clock()
        self._repairs = {k: (n, at) for k, (n, at) in self._repairs.items() if at > now - FORGOTTEN_SECONDS}
        self._repairs[what] = (self._repairs.get(what, (0, now))[0] + 1, now)
