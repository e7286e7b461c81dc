"""Many agents, of which none has a session: what a restart of the operator costs, and whether it still keeps pace.

The operator runs as the chart installs it, but with one replica.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

import cluster
from bench.api import Api, is_ready
from bench.audit import audited
from bench.figure import Aim, Baseline, Figure, compared
from bench.place import measured_place, memory
from harness import manifests
from harness.forward import Forward
from harness.kube import Kube, eventually
from harness.tenure import SYSTEM, Place

AGENTS = 5_000
CREATORS = 16
LATE = 10
"""Agents that are created when all others are there."""
OPERATOR = "deploy/tenure-operator"
SELECTOR = "app.kubernetes.io/component=operator"
KINDS = (("tenure.dev/v1alpha1", "Agent"), ("v1", "ServiceAccount"), ("v1", "ConfigMap"))
"""What there is of every agent."""
SETTLE_SECONDS = 20
"""Longer than the operator takes after its start until it has compared its own list with what the watches told."""


def series(url: str) -> dict[tuple[str, str], float]:
    """The operator's metrics by name and by kind or queue, summed over all other labels."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=5).text):
        for sample in family.samples:
            key = sample.name, sample.labels.get("kind") or sample.labels.get("queue") or ""
            found[key] = found.get(key, 0) + sample.value
    return found


def has_settled(url: str, count: int, kind: str = "Agent") -> bool:
    """Whether the operator leads, has looked at so many objects of a kind, and has nothing left to do."""
    try:
        now = series(url)
    except httpx.HTTPError:
        return False
    looked_at, depth = now.get(("tenure_operator_reconciles_total", kind), 0), "tenure_operator_queue_depth"
    return looked_at >= count and not any(now.get((depth, queue), 1) for queue in ("reconcile", "visit"))


@contextmanager
def one_replica(system: Kube) -> Iterator[None]:
    """The operator with one replica, and with as many as before afterwards."""
    before = system.get("deploy", "tenure-operator")["spec"]["replicas"]
    try:
        system.run("scale", OPERATOR, "--replicas=1")
        yield
    finally:
        system.run("scale", OPERATOR, f"--replicas={before}")
        system.run("rollout", "status", OPERATOR, "--timeout=120s")


def populate(api: Api, place: Place) -> None:
    """Creates the agents, and waits until all are Ready."""

    def create(number: int) -> None:
        api.create(place.name, manifests.agent(f"agent-{number:04}"))

    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(create, range(AGENTS)))
    eventually(lambda: sum(map(is_ready, api.all(*KINDS[0], place.name))) == AGENTS, 600, every=5)


def restart(system: Kube) -> tuple[float, str]:
    """Seconds from the scale-up of an operator that was down until it has nothing left to do; and its pod."""
    system.run("scale", OPERATOR, "--replicas=0")
    eventually(lambda: not system.items("pods", SELECTOR), 120)
    began = time.monotonic()
    system.run("scale", OPERATOR, "--replicas=1")
    with Forward(system, OPERATOR, 8082) as metrics:
        eventually(lambda: has_settled(metrics.url, AGENTS), 300)
        seconds = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        assert has_settled(metrics.url, AGENTS)
    (pod,) = system.items("pods", SELECTOR)
    return seconds, pod["metadata"]["name"]


def listing(api: Api, place: Place) -> float:
    """Seconds in which a bare client lists what the operator must know."""
    began = time.monotonic()
    assert sum(1 for kind in KINDS for _ in api.all(*kind, place.name)) >= len(KINDS) * AGENTS
    return time.monotonic() - began


def late(api: Api, place: Place) -> Figure:
    """One agent more: how long until a watch shows it, and until the watch shows it Ready."""
    shown, ready = [], []
    for number in range(LATE):
        began = time.monotonic()
        states = api.seen(api.create(place.name, manifests.agent(f"late-{number}")))
        next(states)
        shown.append(time.monotonic() - began)
        next(state for state in states if is_ready(state))
        ready.append(time.monotonic() - began)
    what = "created, and seen by the same watch"
    return compared("scale-new-agent", "s", what, shown, ready, Aim("p99", 1))


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-scale") as place:
        info = cluster.info()
        api, system = Api(info.kubeconfig), place.kube.within(SYSTEM)
        with one_replica(system):
            populate(api, place)
            if info.audit_log:
                with audited(Path(info.audit_log), place.name) as writes:
                    seconds, pod = restart(system)
                ours = sum(write.by_tenure for write in writes)
                yield Figure("scale-restart-writes", "writes", float(ours), None, None, (Aim("value", 0),), 1)
            else:
                seconds, pod = restart(system)
            base = Baseline(f"a bare client lists {len(KINDS) * AGENTS} objects", listing(api, place))
            yield Figure("scale-restart", "s", seconds, None, base, (Aim("value", 30),), 1)
            peak = memory(system, pod, "operator", "VmHWM")
            yield Figure("scale-memory", "MiB", peak, None, None, (Aim("value", 300),), 1)
            yield late(api, place)
