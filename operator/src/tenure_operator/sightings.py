"""What the sidecars have reported, by session. In memory only: after a restart the status says what was last known."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tenure_api.report import Report
from tenure_operator.cache import Name

NEARLY_FULL = 0.85
"""Share of a volume's bytes from which on it is told to be nearly full: before anything fails for lack of room."""
SILENT_AFTER = 3
"""Visits in a row that must fail before a sidecar counts as silent: one may fall into a restart."""


@dataclass(frozen=True)
class Sighting:
    """The last that was heard of the sidecar in one pod."""

    pod_uid: str
    report: Report | None = None
    at: float = 0.0
    """When it reported, in seconds of our monotonic clock."""
    failures: int = 0
    problem: str = ""

    @property
    def silent(self) -> bool:
        """Whether it has not answered for a while."""
        return self.failures >= SILENT_AFTER


class Sightings:
    """The last sighting of each session's sidecar."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_session: dict[Name, Sighting] = {}

    def of(self, session: Name, pod_uid: str | None) -> Sighting | None:
        """The last sighting of the sidecar in this pod; an earlier pod's says nothing."""
        sighting = self._by_session.get(session)
        return sighting if sighting is not None and sighting.pod_uid == pod_uid else None

    def saw(self, session: Name, pod_uid: str, report: Report) -> bool:
        """Notes a report; whether it says anything new."""
        before = self.of(session, pod_uid)
        self._by_session[session] = Sighting(pod_uid, report, self._clock())
        if before is None or before.report is None or before.silent:
            return True
        return _telling(before.report) != _telling(report)

    def idle(self, session: Name, pod_uid: str | None) -> float | None:
        """For how many seconds nothing has happened in this pod, as far as is known; None if something happens.

        Told and reckoned on by steady clocks, so that no jump of a clock puts a session to sleep.
        """
        seen = self.of(session, pod_uid)
        if seen is None or seen.report is None or seen.report.idle_seconds is None or seen.silent:
            return None
        return seen.report.idle_seconds + self._clock() - seen.at

    def missed(self, session: Name, pod_uid: str, problem: str) -> Sighting:
        """Notes a visit that failed."""
        before = self.of(session, pod_uid) or Sighting(pod_uid)
        after = replace(before, failures=before.failures + 1, problem=problem)
        self._by_session[session] = after
        return after

    def forget(self, session: Name) -> None:
        """The session is gone."""
        self._by_session.pop(session, None)


def is_nearly_full(report: Report) -> bool:
    """Whether the session's volume needs room."""
    return report.volume is not None and report.volume.used_bytes >= NEARLY_FULL * report.volume.capacity_bytes


def _telling(report: Report) -> tuple[object, ...]:
    """What of a report is worth a look: not how time passes, nor how a volume slowly fills."""
    quiet = report.model_copy(update={"idle_seconds": None, "volume": None})
    return quiet, report.idle_seconds is None, is_nearly_full(report)
