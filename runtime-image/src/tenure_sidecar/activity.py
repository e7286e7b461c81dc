"""Whether anything happens in a session, since when nothing does, and whether anything may begin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenure_api.report import DRAIN_SECONDS
from tenure_sidecar.errors import RefusedError


class Activity:
    """What happens in one session."""

    def __init__(self, elapsed: Callable[[], float], turns: Callable[[], bool]) -> None:
        """`elapsed` is a clock that never jumps; `turns` says whether a turn runs or is queued."""
        self._elapsed = elapsed
        self._turns = turns
        self._ongoing = 0
        self._last = elapsed()
        self._drained_until: float | None = None

    def happened(self) -> None:
        """Something has happened just now."""
        self._last = self._elapsed()

    @contextmanager
    def ongoing(self) -> Iterator[None]:
        """While something happens."""
        self._ongoing += 1
        try:
            yield
        finally:
            self._ongoing -= 1
            self.happened()

    @property
    def idle_seconds(self) -> float | None:
        """How long nothing has happened; None while something does."""
        return None if self._ongoing or self._turns() else self._elapsed() - self._last

    @property
    def draining(self) -> bool:
        """Whether nothing may begin: the pod is about to be deleted."""
        return self._drained_until is not None and self._elapsed() < self._drained_until

    def admit(self) -> None:
        """Something is about to begin. Raises `RefusedError` while it may not."""
        if self.draining:
            raise RefusedError(503, "draining", "the session is about to be put to sleep or moved; ask again")

    def drain(self, idle_seconds: float) -> None:
        """Let nothing begin for `DRAIN_SECONDS`. Raises `RefusedError` unless it has been idle for so long."""
        idle = self.idle_seconds
        if idle is None:
            raise RefusedError(409, "busy", "a turn runs or is queued, or somebody listens or transfers files")
        if idle < idle_seconds:
            raise RefusedError(409, "busy", f"something happened {idle:.1f} s ago")
        self._drained_until = self._elapsed() + DRAIN_SECONDS
