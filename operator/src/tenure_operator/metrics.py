"""What the operator counts, for Prometheus. No label names an object: their number is bounded by the code."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tenure_operator.kinds import WATCHED, Key, Kind
from tenure_operator.reconcile.pool_plan import State

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)


class Metrics:
    """All series of the operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "tenure_operator_reconciles", "Reconciles by outcome", ("kind", "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "tenure_operator_reconcile_seconds",
            "Time that one reconcile took",
            ("kind",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._writes = Counter(
            "tenure_operator_api_writes",
            "Writes that the API server carried out",
            ("kind", "verb"),
            registry=self.registry,
        )
        self._visits = Counter(
            "tenure_operator_sidecar_visits", "Visits to sidecars by outcome", ("outcome",), registry=self.registry
        )
        self._missed = Counter(
            "tenure_operator_watch_missed",
            "Changes found by a list before a watch told of them",
            ("kind",),
            registry=self.registry,
        )
        self._claims = Counter(
            "tenure_operator_claims",
            "New sessions of agents with a warm pool, by whether they got a set of it",
            ("outcome",),
            registry=self.registry,
        )
        self._sets = Gauge("tenure_operator_warm_sets", "Sets of warm pools", ("state",), registry=self.registry)
        self._leader = Gauge("tenure_operator_leader", "Whether this process holds the Lease", registry=self.registry)
        self._depth = Gauge("tenure_operator_queue_depth", "Keys due and not done", ("queue",), registry=self.registry)
        self._objects = Gauge("tenure_operator_objects", "Objects known", ("kind",), registry=self.registry)

    def reconciled(self, key: Key, outcome: str, seconds: float) -> None:
        """One reconcile has ended."""
        self._reconciles.labels(key.kind.name, outcome).inc()
        self._seconds.labels(key.kind.name).observe(seconds)

    def wrote(self, kind: Kind, verb: str) -> None:
        """The API server has carried out a write."""
        self._writes.labels(kind.name, verb).inc()

    def visited(self, _key: Key, outcome: str, _seconds: float) -> None:
        """A sidecar was visited."""
        self._visits.labels(outcome).inc()

    def missed(self, kind: Kind, changes: int) -> None:
        """A list has found what no watch had told."""
        self._missed.labels(kind.name).inc(changes)

    def claimed(self, outcome: str) -> None:
        """A new session of an agent with a warm pool has got a set of it (`warm`), or none (`cold`)."""
        self._claims.labels(outcome).inc()

    def leads(self, leads: bool) -> None:
        """Whether this process holds the Lease."""
        self._leader.set(leads)

    def gauge_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Shows the depth of a queue."""
        self._depth.labels(name).set_function(depth)

    def gauge_objects(self, count: Callable[[Kind], int]) -> None:
        """Shows how many objects are known."""
        for kind in WATCHED:
            self._objects.labels(kind.name).set_function(partial(count, kind))

    def gauge_sets(self, count: Callable[[State], int]) -> None:
        """Shows how many sets of warm pools are in each state."""
        for state in State:
            self._sets.labels(state.value).set_function(partial(count, state))

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)
