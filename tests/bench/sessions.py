"""Sessions: creation against a bare pod of the same shape, memory when idle, and writes to the API server."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cluster
from bench.figure import Aim, Figure, compared, in_turn
from bench.place import measured_place
from harness import manifests
from harness.kube import Kube, Manifest, eventually, is_ready
from harness.tenure import Place

RUNS = 15


def watch_ready(kube: Kube, kind: str, name: str, since: float) -> float:
    """Seconds from `since` until `kubectl wait` sees an object Ready."""
    kube.run("wait", "--for=condition=Ready", f"{kind}/{name}", "--timeout=60s")
    return time.monotonic() - since


def bare(session_pod: Manifest, claim: Manifest, name: str) -> list[Manifest]:
    """A pod and a claim of the session's shape, made by hand: same images, probes and mounts, no operator."""
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
    """AgentSession created → Ready, over the bare pod with a new claim."""
    place.session("shape")
    pod, claim = place.kube.get("pod", "shape-session"), place.kube.get("pvc", "shape-state")
    count = iter(range(10**6))

    def baseline() -> float:
        name = f"bare-{next(count)}"
        documents = bare(pod, claim, name)
        began = time.monotonic()
        place.kube.apply(*documents)
        seconds = watch_ready(place.kube, "pod", name, began)
        place.kube.delete("pod", name, "--grace-period=1")
        place.kube.delete("pvc", name)
        return seconds

    def value() -> float:
        name = f"made-{next(count)}"
        document = manifests.session(name, subject=place.subject())
        began = time.monotonic()
        place.kube.apply(document)
        seconds = watch_ready(place.kube, "agentsession", name, began)
        place.kube.delete("agentsession", name)
        eventually(lambda: place.kube.find("pod", f"{name}-session") is None, 60)
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
    script = "print(open('/proc/1/status').read())"
    for container, limit in (("sidecar", 60.0), ("agent", 90.0)):
        text = place.kube.execute("idle-session", container, "python3", "-c", script)
        resident = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024
        name = "memory-sidecar" if container == "sidecar" else "memory-runtime"
        yield Figure(name, "MiB", resident, None, None, (Aim("value", limit),), 1)


@contextmanager
def audited(path: Path) -> Iterator[list[dict[str, str]]]:
    """The audit records that are written inside the block."""
    records: list[dict[str, str]] = []
    with path.open() as file:
        file.seek(0, 2)
        yield records
        time.sleep(3)
        for line in file:
            record = json.loads(line)
            if record.get("stage") == "ResponseComplete":
                what = record.get("objectRef", {})
                records.append(
                    {
                        "who": record["user"]["username"],
                        "verb": record["verb"],
                        "namespace": what.get("namespace", ""),
                        "what": what.get("resource", "") + ("/" + what["subresource"] if "subresource" in what else ""),
                    }
                )


def writes(place: Place, log: Path) -> Figure:
    """Writes of Tenure and its user in a session's life: create → Ready → one turn → delete."""
    agent = f"{place.name}/helper"
    client = place.client()
    time.sleep(10)
    with audited(log) as records:
        conversation = client.conversations.create(metadata={"agent": agent})
        client.responses.create(model=agent, conversation=conversation.id, input="say: hello")
        time.sleep(20)
        client.conversations.delete(conversation.id)
        time.sleep(10)
    here = [r for r in records if r["namespace"] == place.name]
    ours = [r for r in here if ":tenure-" in r["who"]]
    reviews = [r for r in records if r["what"] in ("tokenreviews", "subjectaccessreviews")]
    counted = Counter(f"{r['who'].rsplit(':', 1)[-1]} {r['verb']} {r['what']}" for r in here)
    for what, count in sorted(counted.items()):
        print(f"    {count:3} {what}")
    print(
        f"    {len(ours)} by Tenure, {len(here)} by all in the namespace, and {len(reviews)} reviews"
    )
    return Figure("writes-per-session", "writes", float(len(ours)), None, None, (Aim("value", 12),), 1)


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-sessions") as place:
        place.agent()
        yield creation(place)
        yield from idle_memory(place)
        if log := cluster.info().audit_log:
            yield writes(place, Path(log))
        assert is_ready(place.kube.get("agent", "helper"))
