"""What the sidecars have reported, by session. In memory only: after a restart the status says what was last known."""

from dataclasses import dataclass, replace

from tenure_api.wire import Report
from tenure_operator.cache import Name

SILENT_AFTER = 3
"""Visits in a row that must fail before a sidecar counts as silent: one may fall into a restart."""


@dataclass(frozen=True)
class Sighting:
    """The last that was heard of the sidecar in one pod."""

    pod_uid: str
    report: Report | None = None
    failures: int = 0
    problem: str = ""

    @property
    def silent(self) -> bool:
        """Whether it has not answered for a while."""
        return self.failures >= SILENT_AFTER


class Sightings:
    """The last sighting of each session's sidecar."""

    def __init__(self) -> None:
        self._by_session: dict[Name, Sighting] = {}

    def of(self, session: Name, pod_uid: str | None) -> Sighting | None:
        """The last sighting of the sidecar in this pod; an earlier pod's says nothing."""
        sighting = self._by_session.get(session)
        return sighting if sighting is not None and sighting.pod_uid == pod_uid else None

    def saw(self, session: Name, pod_uid: str, report: Report) -> bool:
        """Notes a report; whether it says anything new."""
        before = self.of(session, pod_uid)
        self._by_session[session] = Sighting(pod_uid, report)
        return before is None or before.report != report or before.silent

    def missed(self, session: Name, pod_uid: str, problem: str) -> Sighting:
        """Notes a visit that failed."""
        before = self.of(session, pod_uid) or Sighting(pod_uid)
        after = replace(before, failures=before.failures + 1, problem=problem)
        self._by_session[session] = after
        return after

    def forget(self, session: Name) -> None:
        """The session is gone."""
        self._by_session.pop(session, None)
