"""Sudden death: of a pod, or of the processes of one container while the rest of its pod lives on.

What kills a container is a pod that sees the processes of its node. So it is the same on every kind of cluster, and
nothing in the victim takes part.
"""

import re
from collections.abc import Iterable

from harness.kube import Kube, Manifest, condition, eventually

NAMESPACE = "tenure-test-killer"
"""It may not enforce a Pod Security Standard: a restricted pod sees no process but its own."""
IMAGE = "tenure/runtime:dev"
"""Any image with Python that is on the nodes."""
_KILL = """
import os, signal, sys
killed = []
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{entry}/cgroup") as file:
            text = file.read()
            if any(identity in text for identity in sys.argv[1:]):
                os.kill(int(entry), signal.SIGKILL)
                killed.append(entry)
    except (FileNotFoundError, ProcessLookupError):
        pass
print(" ".join(killed))
"""


def containers(pod: Manifest) -> dict[str, str]:
    """The container runtime's id of each container that runs, by the container's name."""
    status = pod["status"]
    return {
        one["name"]: one["containerID"].rpartition("/")[2]
        for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        if "running" in one.get("state", {})
    }


def is_up(node: Manifest) -> bool:
    """Whether a node answers: another test may just have one die."""
    return bool(condition(node, "Ready")["status"] == "True")


class Killer:
    """Kills pods and containers of one namespace."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._system = kube.within(NAMESPACE)

    def prepare(self) -> None:
        """Sees that there is a killer on every node that is ready. They stay: another run may need them."""
        nodes = [node["metadata"]["name"] for node in self._kube.items("nodes") if is_up(node)]
        self._system.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._system.apply(*(_pod(node) for node in nodes))
        for node in nodes:
            self._system.run("wait", f"pod/{node}", "--for=condition=Ready", "--timeout=60s")

    def kill_pod(self, pod: str) -> None:
        """Kills all processes of a pod at once and deletes it. Returns when the API server no longer has this one."""
        found = self._kube.get("pod", pod)
        self._kill(found, containers(found).values())  # first: deletion alone would let them end in good order
        self._kube.delete("pod", pod, "--grace-period=0", "--force", "--wait=false")
        uid = found["metadata"]["uid"]
        eventually(lambda: (self._kube.find("pod", pod) or {"metadata": {"uid": ""}})["metadata"]["uid"] != uid, 30)

    def kill_container(self, pod: str, container: str) -> None:
        """Kills all processes of a container. Returns when they are dead; the kubelet starts it again."""
        found = self._kube.get("pod", pod)
        running = containers(found)
        assert container in running, f"container {container} of {pod} does not run"
        assert self._kill(found, [running[container]]), f"container {container} of {pod} had no process"

    def _kill(self, pod: Manifest, identities: Iterable[str]) -> bool:
        wanted = list(identities)
        assert all(re.fullmatch(r"[0-9a-f]{32,}", identity) for identity in wanted), wanted
        node = pod["spec"]["nodeName"]
        return bool(wanted and self._system.execute(node, "killer", "python3", "-c", _KILL, *wanted).strip())


def _pod(node: str) -> Manifest:
    container = {
        "name": "killer",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "securityContext": {"runAsUser": 0},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node},
        "spec": {
            "nodeName": node,
            "hostPID": True,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }
