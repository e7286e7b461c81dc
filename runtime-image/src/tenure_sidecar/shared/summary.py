"""What is known of a session while it is closed: enough to report it, to wake it, and to let nothing overstay."""

from tenure_api.configuration import EffectivePolicy
from tenure_api.messages import Wire
from tenure_api.report import Suspension, UnknownOutcome
from tenure_sidecar.turn.engine import Turns
from tenure_sidecar.turn.transcript import Transcript


class Summary(Wire):
    """Times are in seconds since the epoch."""

    sequence: int = 0
    completed: int = 0
    """Turns of the conversation."""
    failed: int = 0
    """Turns that ended otherwise and are still kept."""
    oldest: float | None = None
    """When the oldest turn that has ended began."""
    last_activity: float | None = None
    suspended: Suspension | None = None
    unknown: UnknownOutcome | None = None
    unclean: bool = False
    """Whether traces of what was deleted may be left."""

    def is_due(self, policy: EffectivePolicy | None, now: float) -> bool:
        """Whether the session holds something that may not be kept any longer: see `retention.due`."""
        if self.unclean:
            return True
        if policy is None:
            return False
        count, age = policy.transcript_max_count, policy.transcript_max_age_seconds
        surplus = count is not None and max(self.completed, self.failed) > count
        return surplus or (age is not None and self.oldest is not None and self.oldest + age <= now)

    @property
    def wake_at(self) -> float | None:
        """When its turn goes on by itself."""
        until = self.suspended.until if self.suspended is not None else None
        return until.timestamp() if until is not None else None


def summary_of(sequence: int, transcript: Transcript, turns: Turns, unclean: bool) -> Summary:
    """Of a session that is open."""
    ended = [turn for turn in transcript if turn.end is not None]
    return Summary(
        sequence=sequence,
        completed=len(transcript),
        failed=len(ended) - len(transcript),
        oldest=min((turn.started_at for turn in ended), default=None),
        last_activity=transcript.last_activity,
        suspended=turns.suspension(),
        unknown=turns.unknown(),
        unclean=unclean,
    )
