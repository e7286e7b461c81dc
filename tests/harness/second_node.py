"""A second node that may die: added to the local cluster, reserved for one namespace, and taken away afterwards.

The pods of that namespace may run there and prefer to. So they are on it as long as it takes pods, and no pod of
anybody else is.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cluster
from cluster import NodeChange
from harness.killing import containers
from harness.kube import Kube, Manifest, NotYetError, condition, eventually

NAME = "node2"
RESERVED = "cluster.tenure.dev/reserved"
ALLOWED = "tenure.dev/test-second-node"
"""Label of the namespace whose pods may run there."""
POLICY = "tenure-test-second-node"


class SecondNode:
    """The node, and all that can befall it."""

    name = NAME

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def kill(self) -> None:
        """A power failure: all of its processes, and all of its pods', die at once. Its disk stays."""
        cluster.change_node(NodeChange.KILL)

    def cut_off(self) -> None:
        """Its kubelet is neither heard nor hears, and its pods run on."""
        cluster.change_node(NodeChange.PAUSE)

    def rejoin(self) -> None:
        """Ends `cut_off`."""
        cluster.change_node(NodeChange.RESUME)

    def restore(self) -> None:
        """Has the node as it should be: up, answering, and taking pods."""
        cluster.change_node(NodeChange.ADD)
        eventually(self.answers, 60)
        self._kube.run("uncordon", NAME)

    def answers(self) -> bool:
        """Whether the cluster hears of its kubelet."""
        return bool(condition(self._kube.get("node", NAME), "Ready")["status"] == "True")

    @contextmanager
    def drained(self, pods: str) -> Iterator["subprocess.Popen[bytes]"]:
        """`kubectl drain` for the pods that a selector names, which goes on meanwhile."""
        command = self._kube.command(
            "drain", NAME, "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={pods}", "--timeout=120s"
        )
        with subprocess.Popen(command, env=self._kube.environment, stdout=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

    def freeze(self, pod: Manifest) -> None:
        """Stops all processes of a pod, as if its machine had been suspended."""
        for pid in processes(pod):
            _signal(pid, signal.SIGSTOP)

    def thaw(self, pod: Manifest) -> None:
        """Ends `freeze`."""
        for pid in processes(pod):
            _signal(pid, signal.SIGCONT)


def processes(pod: Manifest, container: str | None = None) -> set[int]:
    """The processes of a pod, or of one of its containers, on this machine; not the one that only holds its network."""
    wanted = {containers(pod)[container]} if container else set(containers(pod).values())
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and any(one in (entry / "cgroup").read_text() for one in wanted):
                found.add(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def second_node(kube: Kube) -> Iterator[SecondNode]:
    """The node, for the namespace of `kube`."""
    if cluster.info().provider != "local":
        pytest.skip("nodes are added, killed and cut off only on the local cluster")
    namespace = kube.namespace
    assert namespace
    kube.apply(*_policy())
    kube.run("label", "namespace", namespace, f"{ALLOWED}=true", "--overwrite")
    node = SecondNode(kube)
    try:
        node.restore()
        yield node
    finally:
        cluster.change_node(NodeChange.REMOVE)
        kube.delete("mutatingadmissionpolicybinding", POLICY)
        kube.delete("mutatingadmissionpolicy", POLICY)


def on_second_node(kube: Kube, pod: str) -> Manifest:
    """The pod. Raises `NotYetError` unless it is on the second node."""
    found = kube.find("pod", pod)
    if found is None or found["spec"].get("nodeName") != NAME:
        raise NotYetError(f"{pod} is not on {NAME}")
    return found


def _policy() -> list[Manifest]:
    toleration = f'Object.spec.tolerations{{key: "{RESERVED}", operator: "Exists", effect: "NoSchedule"}}'
    preferred = "Object.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    expression = (
        f'{preferred}.preference.matchExpressions{{key: "kubernetes.io/hostname", operator: "In", values: ["{NAME}"]}}'
    )
    affinity = (
        "Object.spec.affinity{nodeAffinity: Object.spec.affinity.nodeAffinity{"
        "preferredDuringSchedulingIgnoredDuringExecution: "
        f"[{preferred}{{weight: 100, preference: {preferred}.preference{{matchExpressions: [{expression}]}}}}]}}}}"
    )
    patch = (
        f'[JSONPatch{{op: "add", path: "/spec/tolerations/-", value: {toleration}}}, '
        f'JSONPatch{{op: "add", path: "/spec/affinity", value: {affinity}}}]'
    )
    api = "admissionregistration.k8s.io/v1"
    policy = {
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {ALLOWED: "true"}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
            },
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        },
    }
    binding = {
        "apiVersion": api,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY},
    }
    return [policy, binding]
