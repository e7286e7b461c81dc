"""Sessions that sleep: what each costs the operator, in memory and in time.

They are copies of one that fell asleep, with its claim and NetworkPolicy; no volume is bound to the claims. The
operator runs as the chart installs it, but with one replica.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cluster
from bench.api import Api
from bench.figure import Aim, Baseline, Figure
from bench.place import measured_place, memory
from bench.scale import CREATORS, OPERATOR, SELECTOR, SETTLE_SECONDS, has_settled, one_replica
from harness import manifests
from harness.forward import Forward
from harness.kube import Kube, Manifest, eventually
from harness.sleeping import asleep
from harness.tenure import SYSTEM, Place
from tenure_api.names import session_claim, session_network

SESSIONS = 5_000
IDLE_SECONDS = 60
TIMES = """
import json, os, time
fields = open("/proc/1/stat").read().rpartition(")")[2].split()
print(json.dumps([time.monotonic(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")]))
"""
"""Now, and the seconds of CPU that the container's process has used."""


class Shape:
    """One session that sleeps, to be copied."""

    def __init__(self, place: Place) -> None:
        agent = place.agent(session={"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 2})
        conversation = place.session("shape")
        place.client().responses.create(model=agent, conversation=conversation, input="say: hello")
        self._status = asleep(place, "shape")
        self._children = [
            place.kube.get("pvc", session_claim("shape")),
            place.kube.get("networkpolicy", session_network("shape")),
        ]
        self._api, self._place, self._subject = Api(cluster.info().kubeconfig), place, place.subject()

    def copy(self, number: int) -> None:
        """Makes one more such session. No operator may run meanwhile: it would start it."""
        name = f"asleep-{number:04}"
        made = self._api.create(self._place.name, manifests.session(name, subject=self._subject))
        claim, _ = [self._api.create(self._place.name, self._child(child, made)) for child in self._children]
        renamed = {
            "setName": name,
            "identity": claim["metadata"]["uid"],
            "volumeClaimName": session_claim(name),
        }
        self._api.write_status(made, {**self._status, **renamed})

    def _child(self, child: Manifest, owner: Manifest) -> Manifest:
        old, new = child["metadata"], owner["metadata"]
        text = json.dumps({key: child[key] for key in ("apiVersion", "kind", "spec")}).replace("shape", new["name"])
        copy: Manifest = json.loads(text)
        labels = {key: new["name"] if value == "shape" else value for key, value in old["labels"].items()}
        owners = [{**one, "name": new["name"], "uid": new["uid"]} for one in old["ownerReferences"]]
        name = old["name"].replace("shape", new["name"])
        annotations = {k: v for k, v in old.get("annotations", {}).items() if k.startswith("tenure.dev/")}
        copy["metadata"] = {"name": name, "labels": labels, "ownerReferences": owners, "annotations": annotations}
        if copy["kind"] == "PersistentVolumeClaim":
            copy["spec"]["volumeName"] = (
                f"none-{new['name']}"  # else controllers would look for a volume again and again
            )
        return copy


def start(system: Kube, sessions: int) -> str:
    """Starts an operator, waits until it has nothing left to do, and returns its pod."""
    system.run("scale", OPERATOR, "--replicas=1")
    with Forward(system, OPERATOR, 8082) as metrics:
        eventually(lambda: has_settled(metrics.url, sessions, "AgentSession"), 300)
        time.sleep(SETTLE_SECONDS)
        eventually(lambda: has_settled(metrics.url, sessions, "AgentSession"), 60)
    (pod,) = system.items("pods", SELECTOR)
    name: str = pod["metadata"]["name"]
    return name


def stop(system: Kube) -> None:
    """Stops the operator."""
    system.run("scale", OPERATOR, "--replicas=0")
    eventually(lambda: not system.items("pods", SELECTOR), 120)


def cost(system: Kube, sessions: int) -> tuple[float, float]:
    """Resident MiB of an operator that has settled, and percent of a core that it uses when nothing happens."""
    pod = start(system, sessions)

    def times() -> Any:
        return json.loads(system.execute(pod, "operator", "python3", "-c", TIMES))

    began, before = times()
    time.sleep(IDLE_SECONDS)
    ended, after = times()
    return memory(system, pod, "operator"), 100 * (after - before) / (ended - began)


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-asleep") as place:
        shape, system = Shape(place), place.kube.within(SYSTEM)
        with one_replica(system):
            stop(system)
            resident, busy = cost(system, 1)
            stop(system)
            with ThreadPoolExecutor(CREATORS) as pool:
                list(pool.map(shape.copy, range(SESSIONS)))
            more, busier = cost(system, SESSIONS)
        each = (more - resident) * 1024 / SESSIONS
        print(f"    {resident:.1f} MiB with one session, {more:.1f} MiB with {SESSIONS}")
        yield Figure("asleep-memory", "KiB/session", each, None, None, (Aim("value", 8),), 1)
        base = Baseline("the same operator with one session", busy)
        yield Figure("asleep-cpu", "% of a core", busier, None, base, (Aim("value", 2),), 1)
