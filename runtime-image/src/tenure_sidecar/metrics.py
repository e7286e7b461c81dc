"""What the sidecar measures. All labels have a fixed, small set of values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from tenure_api.report import JournalState
from tenure_api.wire import TurnStatus, Usage
from tenure_sidecar.journal.erasure import Erased

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_TURN_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """The metrics of one sidecar, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._turns = Counter("tenure_turns", "Turns that ended.", ["status"], registry=self._registry)
        self._turn_seconds = Histogram(
            "tenure_turn_seconds",
            "From the record of a turn to its end.",
            buckets=_TURN_SECONDS,
            registry=self._registry,
        )
        self._reruns = Counter("tenure_turn_reruns", "Turns run again after a crash.", registry=self._registry)
        self._calls = Counter(
            "tenure_model_calls", "Attempts to call a model endpoint, by outcome.", ["outcome"], registry=self._registry
        )
        self._replays = Counter("tenure_model_replays", "Steps answered from the journal.", registry=self._registry)
        tokens = Counter("tenure_model_tokens", "Tokens, as reported.", ["direction"], registry=self._registry)
        self._input, self._output = tokens.labels("input"), tokens.labels("output")
        self._erased = Counter("tenure_retention_turns_deleted", "Turns deleted by policy.", registry=self._registry)
        self._residue = Gauge(
            "tenure_retention_residue", "Places that the last sweep could not clean.", registry=self._registry
        )
        self._journal = Gauge("tenure_journal_open", "1 while the journal is open.", registry=self._registry)

    def turn_ended(self, status: TurnStatus, seconds: float) -> None:
        """A turn has ended."""
        self._turns.labels(status.value).inc()
        self._turn_seconds.observe(seconds)

    def turn_rerun(self) -> None:
        """A turn is run again."""
        self._reruns.inc()

    def model_called(self, outcome: str) -> None:
        """A model was called; `outcome` is a `conditions.Reason`."""
        self._calls.labels(outcome).inc()

    def used(self, usage: Usage) -> None:
        """An answer has reported its tokens."""
        self._input.inc(usage.input_tokens)
        self._output.inc(usage.output_tokens)

    def replayed(self) -> None:
        """A step was answered from the journal."""
        self._replays.inc()

    def swept(self, turns: int, erased: Erased) -> None:
        """A sweep has ended."""
        self._erased.inc(turns)
        self._residue.set(erased.residue)

    def journal(self, state: JournalState) -> None:
        """The state of the journal has changed."""
        self._journal.set(state is JournalState.OPEN)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
