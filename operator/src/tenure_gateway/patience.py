"""How long a request waits."""

from collections.abc import Callable

_FIRST_PAUSE = 0.02
"""Seconds before the first repetition: most often a kept-alive connection was closed just then."""
_LONGEST_PAUSE = 1.0
"""A change of the session's status ends a pause at once; without one this is how often the old address is tried."""


class Patience:
    """How long one request still waits for a pod, and the pauses between its attempts. Times are the event loop's."""

    def __init__(self, hold: float, clock: Callable[[], float]) -> None:
        self._hold = hold
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Begins anew: a pod has brought the request forward."""
        self._pause = _FIRST_PAUSE
        self.deadline = self._clock() + self._hold

    def extend(self, seconds: float) -> None:
        """Gives back the time in which a pod had the turn: a model may think for long before its first word."""
        self.deadline += seconds

    @property
    def left(self) -> float:
        """Seconds until it is at its end."""
        return max(0.0, self.deadline - self._clock())

    def pause(self) -> float:
        """Seconds until the next attempt; 0 when patience is at its end."""
        pause = min(self._pause, self.left)
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        return pause
