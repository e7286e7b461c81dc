"""Sessions: creation against a bare pod of the same shape, memory when idle, and writes to the API server."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cluster
from bench.api import Api, is_ready
from bench.audit import audited
from bench.figure import Aim, Figure, compared, in_turn
from bench.place import measured_place, memory
from harness import manifests
from harness.kube import Manifest, eventually
from harness.tenure import Place

RUNS = 15


def bare(session_pod: Manifest, claim: Manifest, name: str) -> list[Manifest]:
    """A claim and a pod of the session's shape, made by hand: same images, probes and mounts, no operator."""
    spec = json.loads(json.dumps(session_pod["spec"]))
    for key in ("nodeName", "serviceAccount", "tolerations", "priority", "preemptionPolicy", "schedulerName"):
        spec.pop(key, None)
    for volume in spec["volumes"]:
        if "persistentVolumeClaim" in volume:
            volume["persistentVolumeClaim"]["claimName"] = name
    keep = {k: claim["spec"][k] for k in ("accessModes", "resources", "storageClassName") if k in claim["spec"]}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": keep},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec},
    ]


def creation(place: Place) -> Figure:
    """AgentSession created → Ready, over the bare pod with a new claim. What is made is removed between the runs."""
    place.session("shape")
    pod, claim = place.kube.get("pod", "shape-session"), place.kube.get("pvc", "shape-state")
    api, subject = Api(cluster.info().kubeconfig), place.subject()
    count = iter(range(10**6))

    def baseline() -> float:
        name = f"bare-{next(count)}"
        began = time.monotonic()
        *_, made = [api.create(place.name, manifest) for manifest in bare(pod, claim, name)]
        api.until(made, is_ready)
        seconds = time.monotonic() - began
        place.kube.delete("pod", name, "--grace-period=1")
        place.kube.delete("pvc", name)
        return seconds

    def value() -> float:
        name = f"made-{next(count)}"
        began = time.monotonic()
        api.until(api.create(place.name, manifests.session(name, subject=subject)), is_ready)
        seconds = time.monotonic() - began
        place.kube.delete("agentsession", name)
        eventually(lambda: not place.kube.find("pod", f"{name}-session"), 60)
        return seconds

    baselines, values = in_turn(RUNS, baseline, value)
    return compared(
        "session-create", "s", "bare pod with a new claim, same images", baselines, values, Aim("ratio", 1.3)
    )


def idle_memory(place: Place) -> Iterator[Figure]:
    """Resident memory of the two processes of an idle session, after one turn."""
    agent = f"{place.name}/helper"
    conversation = place.session("idle")
    place.client().responses.create(model=agent, conversation=conversation, input="say: hello")
    for container, name, limit in (("sidecar", "memory-sidecar", 60), ("agent", "memory-runtime", 90)):
        resident = memory(place.kube, "idle-session", container)
        yield Figure(name, "MiB", resident, None, None, (Aim("value", limit),), 1)


def writes(place: Place, log: Path) -> Figure:
    """Writes of Tenure and its user, who goes through the gateway: create → Ready → one turn, counted → delete."""
    agent = f"{place.name}/helper"
    client = place.client()
    time.sleep(10)
    with audited(log, place.name) as seen:
        conversation = client.conversations.create(metadata={"agent": agent})
        client.responses.create(model=agent, conversation=conversation.id, input="say: hello")
        eventually(lambda: place.kube.items("agentsessions")[0]["status"].get("turns") == 1, 90)
        client.conversations.delete(conversation.id)
        time.sleep(15)
    counted = Counter(str(write) for write in seen)
    for what, count in sorted(counted.items()):
        print(f"    {count:3} {what}")
    ours = sum(write.by_tenure for write in seen)
    return Figure("writes-per-session", "writes", float(ours), None, None, (Aim("value", 12),), 1)


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-sessions") as place:
        place.agent()
        if log := cluster.info().audit_log:
            yield writes(place, Path(log))  # first, while there is no other session
        yield creation(place)
        yield from idle_memory(place)
