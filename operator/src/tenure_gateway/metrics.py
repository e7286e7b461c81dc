"""The gateway's metrics. Every label has few values: routes are templates, methods and statuses are classes."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)


class Metrics:
    """All metrics of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tenure_gateway_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tenure_gateway_requests_in_flight", "Requests being answered now.", registry=self.registry
        )
        self.held = Gauge(
            "tenure_gateway_requests_held", "Requests that wait for a session's pod now.", registry=self.registry
        )
        self.retries = Counter(
            "tenure_gateway_sidecar_retries", "Calls of a sidecar that broke and were repeated.", registry=self.registry
        )
        self.wakes = Counter(
            "tenure_gateway_wakes",
            "Wakes of sleeping sessions that were to be written to the API server, by what came of it.",
            ("outcome",),
            registry=self.registry,
        )
        self.wake_seconds = Histogram(
            "tenure_gateway_wake_seconds",
            "How long requests were held because their session slept.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.turn_seconds = Histogram(
            "tenure_gateway_turn_seconds",
            "From the beginning of a turn's request to its end, by how it ended.",
            ("outcome",),
            buckets=_SECONDS,
            registry=self.registry,
        )
