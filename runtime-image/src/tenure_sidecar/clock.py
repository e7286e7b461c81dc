"""The time that records carry and that retention is measured by."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Seconds since the epoch."""


def _since_boot() -> float:
    """Seconds since the machine booted, with the time that it slept (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Wall time at the start of the process, carried on by the time since boot.

    A jump of the wall clock during the life of the process is not seen, so it can neither reorder records nor make
    them fall due early or late.
    """

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = _since_boot) -> None:
        self._elapsed = elapsed
        self._offset = wall() - elapsed()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._elapsed()

    def elapsed(self) -> float:
        """Seconds since some moment, by a clock that never jumps."""
        return self._elapsed()

    def not_before(self, moment: float) -> None:
        """Move the clock forward to `moment` if it is behind.

        Called with the time of the journal's last record: after a restart on a node whose clock is behind, time goes on
        from there, so that what is recorded keeps ageing.
        """
        self._offset += max(0.0, moment - self.now())


def moment(at: float) -> datetime:
    """Seconds since the epoch as a datetime in UTC."""
    return datetime.fromtimestamp(at, UTC)
