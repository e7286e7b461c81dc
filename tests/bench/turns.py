"""Turns: what gateway, sidecar and runtime add to a model call, and how many a gateway carries.

The client runs in a pod of the cluster, so that no port-forward stands in the way of either side.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from bench.api import is_ready
from bench.figure import Aim, Baseline, Figure, compared
from bench.place import measured_place
from harness import manifests
from harness.kube import eventually
from harness.tenure import SYSTEM, Place

LOAD = Path(__file__).with_name("load.py").read_text()
SESSIONS = 16


def client_pod() -> manifests.Manifest:
    """A pod with Python and the `openai` client: the runtime image has both."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "client",
        "image": "tenure/runtime:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "securityContext": security,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def run(place: Place, what: str, job: dict[str, object]) -> dict[str, list[float]]:
    """Runs the load script in the client pod."""
    text = place.kube.execute("client", "client", "python3", "-c", LOAD, what, stdin=json.dumps(job))
    result: dict[str, list[float]] = json.loads(text)
    return result


def gateway_url(place: Place) -> str:
    """The API of one replica, past the Service: a rate is that of one process."""
    pods = place.kube.within(SYSTEM).items("pods", "app.kubernetes.io/component=gateway")
    address = next(
        pod["status"]["podIP"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
    )
    return f"http://{address}:8080/v1"


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with measured_place("bench-turns") as place:
        agent = place.agent()
        place.kube.apply(client_pod())
        conversations = [place.session(f"load-{n}") for n in range(SESSIONS)]
        place.kube.run("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        eventually(lambda: place.kube.execute("client", "client", "true") == "", 10)
        job: dict[str, object] = {
            "direct": manifests.MODEL_URL,
            "gateway": gateway_url(place),
            "token": place.caller(),
            "agent": agent,
            "conversations": conversations,
        }
        alone = run(place, "latency", {**job, "rounds": 300})
        yield compared(
            "turn-overhead",
            "ms",
            "the same scripted model called directly",
            alone["direct"],
            alone["gateway"],
            Aim("added", 7),
            Aim("p99 added", 25),
        )
        loaded = run(place, "rate", {**job, "seconds": 10})
        yield Figure(
            "turn-rate",
            "turns/s",
            loaded["gateway"][0],
            None,
            Baseline("the same scripted model called directly, 16 clients", loaded["direct"][0]),
            (Aim("value", 200, at_least=True),),
            1,
        )
