"""A turn that has not ended, as the journal tells of it."""

from dataclasses import dataclass, field

from tenure_api.configuration import Limits
from tenure_sidecar.journal.records import ApprovalAsked, LogEntry, ToolResult, TurnResumed, TurnRun, TurnSuspended
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn.calls import asked_entry, settled_entry
from tenure_sidecar.turn.steps import Steps
from tenure_sidecar.turn.transcript import RecordedTurn


@dataclass
class Open:
    """What the journal holds of a turn that has not ended."""

    turn: RecordedTurn
    steps: Steps
    text: str = ""
    """Of the answer, as far as it is known."""
    log: list[LogEntry] = field(default_factory=list)
    runs: int = 0
    """How often it was run again after a crash."""
    fruitless: int = 0
    """The same, since a step was last settled."""
    attempts: int = 0
    suspensions: int = 0
    resumptions: int = 0
    asked_people: bool = False
    """Whether the last suspension was for approvals."""
    idle_since: float = 0.0
    """Start of the suspension that goes on, and 0 while none does."""
    idle: float = 0.0
    """Seconds that it waited or nobody ran it, as far as they are over."""
    last_at: float = 0.0
    """Time of the last record, in seconds since the epoch, that an earlier process wrote."""
    settled: int = 0
    """How many of its steps were settled when it was last run again."""

    def apply(self, record: Record) -> None:
        """Bring it forward by a record of the turn."""
        at, number, turn = record.at / 1e6, record.step, self.turn.turn
        self.steps.apply(record)
        match record.kind:
            case ToolResult.kind:
                self.log.append(settled_entry(turn, self.steps.tools[number], at))
            case ApprovalAsked.kind:
                self.log.append(asked_entry(turn, self.steps.tools[number], at))
            case TurnRun.kind:
                self.ran(TurnRun.model_validate_json(record.payload), number, at)
            case TurnSuspended.kind:
                self.suspended(TurnSuspended.model_validate_json(record.payload), number, at)
            case TurnResumed.kind:
                self.resumed(number, at)
        self.last_at = at

    def ran(self, run: TurnRun, number: int, at: float) -> LogEntry | None:
        """It was run again; the entry of the log that says so, if any."""
        self.steps.forget_unanswered()
        progress = self.steps.settled_count > self.settled
        self.runs, self.settled = number, self.steps.settled_count
        self.fruitless = 1 if progress else self.fruitless + 1
        if self.last_at:
            self.idle += max(0.0, at - self.last_at)
            self.last_at = 0.0
        if run.void_from is None:
            return None
        self.attempts += 1
        return self._enter(LogEntry(offset=run.void_from, at=at, attempt=self.attempts))

    def suspended(self, entry: TurnSuspended, number: int, at: float) -> LogEntry | None:
        """It waits; the entry of the log that says so, if it waits for people."""
        self.suspensions, self.text, self.idle_since = number, entry.text, at
        self.asked_people = entry.approvals
        if not entry.approvals:
            return None
        return self._enter(LogEntry(offset=len(entry.text), at=at, suspended=entry.usage))

    def resumed(self, number: int, at: float) -> LogEntry | None:
        """It goes on; the entry of the log that says so, if it had waited for people."""
        self.resumptions = number
        self.idle += max(0.0, at - self.idle_since)
        self.idle_since = 0.0
        return self._enter(LogEntry(offset=len(self.text), at=at, resumed=True)) if self.asked_people else None

    def _enter(self, entry: LogEntry) -> LogEntry:
        self.log.append(entry)
        return entry

    @property
    def waits(self) -> bool:
        """Whether it is suspended."""
        return self.suspensions > self.resumptions

    def seconds_left(self, limits: Limits, now: float) -> float:
        """How long it may still run; what it waits, and what no pod was there for, does not count."""
        return limits.max_duration_seconds - (now - self.turn.started_at - self.idle)
