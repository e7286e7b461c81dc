"""Claims: a new session of an agent with a warm pool, from its creation until a watch shows it Ready.

One watch sees all sessions, as a client's would, so that no start of a watch is part of what is measured.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import cluster
from bench.api import Api, is_ready
from bench.audit import audited
from bench.figure import Aim, Baseline, Figure, percentile
from bench.place import measured_place
from harness import manifests
from harness.kube import Manifest, eventually
from harness.tenure import Place

SIZE = 24
"""Sets of the pool: what the node holds besides everything else."""
SLOW, FAST = 1.0, 20.0
"""Claims in a second."""
SLOW_CLAIMS = 20
FAST_BURSTS, FAST_CLAIMS = 3, 20
COLD = 5
REFILL_SECONDS = 300
SETTLE_SECONDS = 15


class Seen:
    """When a watch has shown which session as Ready first, and the set that it has."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._news: queue.SimpleQueue[tuple[str, float, str]] = queue.SimpleQueue()
        self._ready: dict[str, tuple[float, str]] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        told: set[str] = set()
        for session in self._api.events("tenure.dev/v1alpha1", "AgentSession", self._namespace):
            name = session["metadata"]["name"]
            if name not in told and is_ready(session):
                self._news.put((name, time.monotonic(), session["status"]["setName"]))
                told.add(name)

    def ready(self, name: str, seconds: float = 60) -> tuple[float, str]:
        """When it became Ready, and its set."""
        end = time.monotonic() + seconds
        while name not in self._ready:
            known, at, set_name = self._news.get(timeout=max(0.0, end - time.monotonic()))
            self._ready[known] = at, set_name
        return self._ready[name]


class Claimants:
    """Creates sessions and measures them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._api = Api(cluster.info().kubeconfig)
        self._seen = Seen(self._api, place.name)
        self._subject = place.subject()
        self._numbers = iter(range(10**6))

    def at_a_rate(self, agent: str, count: int, rate: float) -> tuple[list[float], list[str]]:
        """Creates sessions at a rate; the seconds that each took, and the sets that they have."""
        began: dict[str, float] = {}
        first = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, first + number / rate - time.monotonic()))
            name = f"claim-{next(self._numbers)}"
            began[name] = time.monotonic()
            self._create(name, agent)
        seen = {name: self._seen.ready(name) for name in began}
        return [seen[name][0] - at for name, at in began.items()], [set_name for _, set_name in seen.values()]

    def _create(self, name: str, agent: str) -> Manifest:
        return self._api.create(self._place.name, manifests.session(name, agent, self._subject))

    def forget(self) -> None:
        """Deletes all sessions, and waits until the pool is full again and everything else is gone."""
        self._place.kube.run("delete", "agentsessions", "--all", "--wait=false")
        eventually(lambda: len(self._place.kube.items("pods")) == SIZE, REFILL_SECONDS, 1)
        self.full()

    def full(self) -> None:
        """Waits until the pool is full and says so."""

        def is_full() -> bool:
            pool = self._place.kube.get("agent", "pooled")["status"].get("warmPool") or {}
            return bool((pool.get("ready"), pool.get("starting")) == (SIZE, 0))

        eventually(is_full, REFILL_SECONDS, 1)


def _claimed(sets: list[str]) -> None:
    cold = [name for name in sets if "-warm-" not in name]
    assert not cold, f"{len(cold)} of {len(sets)} sessions got no set"
    assert max(Counter(sets).values()) == 1


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-claims") as place:
        place.agent("plain")
        storage = {"size": "64Mi"}
        place.agent("pooled", session={"storage": storage, "warmPool": {"size": SIZE}})
        claimants = Claimants(place)
        cold, _ = claimants.at_a_rate("plain", COLD, 0.2)
        base = Baseline("a session that is started without a pool", median(cold))
        claimants.forget()
        log = cluster.info().audit_log
        if log:
            time.sleep(SETTLE_SECONDS)
            with audited(Path(log), place.name) as writes:
                slow, sets = claimants.at_a_rate("pooled", SLOW_CLAIMS, SLOW)
                claimants.full()
                time.sleep(SETTLE_SECONDS)
            for what, count in sorted(Counter(str(write) for write in writes).items()):
                print(f"    {count:3} {what}")
            ours = sum(write.by_tenure for write in writes) / SLOW_CLAIMS
            yield Figure("claim-writes", "writes", ours, None, None, (Aim("value", 10),), SLOW_CLAIMS)
        else:
            slow, sets = claimants.at_a_rate("pooled", SLOW_CLAIMS, SLOW)
        _claimed(sets)
        aims = (Aim("value", 0.015), Aim("p99", 0.040))
        yield Figure("claim-1-per-s", "s", median(slow), percentile(slow, 99), base, aims, len(slow))
        fast: list[float] = []
        for _ in range(FAST_BURSTS):
            claimants.forget()
            seconds, sets = claimants.at_a_rate("pooled", FAST_CLAIMS, FAST)
            _claimed(sets)
            fast += seconds
        yield Figure("claim-20-per-s", "s", median(fast), percentile(fast, 99), base, (Aim("p99", 0.200),), len(fast))
