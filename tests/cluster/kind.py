"""A cluster in containers, made by kind: what people use where a container engine answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import audit, images
from .engine import HostEngine
from .paths import CHECKOUT, STATE
from .provider import Info
from .shell import ClusterError, run, run_shown, say, succeeds

CLUSTER = "tenure"
NODE_IMAGE = "kindest/node:v1.34.0"
OLDEST_KIND = (0, 24)  # the first whose network plugin enforces NetworkPolicy
ROOT = STATE / "kind"
KUBECONFIG = STATE / "kubeconfig"
PROVISIONER_ROOT = "/var/local-path-provisioner"  # where kind's default StorageClass keeps its volumes


def refusal() -> str | None:
    if not succeeds(["docker", "info"]):
        return "no container engine answers (`docker info`)"
    if not succeeds(["kind", "version"]):
        return "the kind program is not there"
    version = kind_version(run(["kind", "version"]))
    if version < OLDEST_KIND:
        return f"kind {version[0]}.{version[1]} does not enforce NetworkPolicy; 0.24 or newer does"
    if not succeeds(["docker", "image", "inspect", NODE_IMAGE]) and not succeeds(
        ["docker", "pull", "--quiet", NODE_IMAGE], timeout=600
    ):
        return f"the node image {NODE_IMAGE} is neither here nor can it be pulled"
    return None


def running() -> bool:
    """Whether this checkout's kind cluster is up; cheap where there never was one."""
    return ROOT.is_dir() and KUBECONFIG.is_file() and succeeds(["kind", "version"]) and CLUSTER in _clusters()


def kind_version(said: str) -> tuple[int, int]:
    found = re.search(r"v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _clusters() -> list[str]:
    return run(["kind", "get", "clusters"]).split()


def config(nodes: int, root: Path) -> str:
    """kind's configuration (JSON is YAML). The audit log and the volumes are folders of the host, as tests read them.

    Every node takes pods: the control plane is not tainted, so that `nodes` means what it says.
    """
    kubeadm = {
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": {
                "audit-policy-file": "/etc/tenure-audit/policy.json",
                "audit-log-path": "/var/log/tenure-audit/audit.log",
                "audit-log-maxsize": "2000",
            },
            "extraVolumes": [
                {
                    "name": "audit-policy",
                    "hostPath": "/etc/tenure-audit",
                    "mountPath": "/etc/tenure-audit",
                    "readOnly": True,
                },
                {"name": "audit-log", "hostPath": "/var/log/tenure-audit", "mountPath": "/var/log/tenure-audit"},
            ],
        },
    }
    untainted = {"kind": "InitConfiguration", "nodeRegistration": {"taints": []}}
    described: list[dict[str, Any]] = []
    for number in range(1, nodes + 1):
        mounts: list[dict[str, Any]] = [
            {"hostPath": str(root / "volumes" / f"node{number}"), "containerPath": PROVISIONER_ROOT}
        ]
        node: dict[str, Any] = {"role": "worker", "image": NODE_IMAGE, "extraMounts": mounts}
        if number == 1:
            mounts += [
                {"hostPath": str(root / "audit-policy"), "containerPath": "/etc/tenure-audit", "readOnly": True},
                {"hostPath": str(root / "audit"), "containerPath": "/var/log/tenure-audit"},
            ]
            node |= {"role": "control-plane", "kubeadmConfigPatches": [json.dumps(kubeadm), json.dumps(untainted)]}
        described.append(node)
    return json.dumps(
        {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "name": CLUSTER, "nodes": described}, indent=1
    )


class Kind:
    name = "kind"

    def up(self, nodes: int) -> Info:
        if CLUSTER in _clusters():
            if not KUBECONFIG.is_file():
                raise ClusterError(
                    f"a kind cluster named {CLUSTER} is up, but not from {CHECKOUT}; take it down first: "
                    f"`kind delete cluster --name {CLUSTER}`"
                )
            if len(self._nodes()) < nodes:
                raise ClusterError("kind cannot add nodes to a running cluster: `down`, then `up` with NODES set")
            return self.info()
        for folder in ("audit", "audit-policy", *(f"volumes/node{n}" for n in range(1, nodes + 1))):
            (ROOT / folder).mkdir(parents=True, exist_ok=True)
        (ROOT / "audit-policy" / "policy.json").write_text(audit.policy())
        (ROOT / "config.json").write_text(config(nodes, ROOT))
        say(f"making a kind cluster of {nodes} node(s) from {NODE_IMAGE}")
        command: list[str | Path] = ["kind", "create", "cluster", "--name", CLUSTER, "--config", ROOT / "config.json"]
        run_shown([*command, "--kubeconfig", KUBECONFIG, "--wait", "180s"])
        return self.info()

    def down(self) -> None:
        run_shown(["kind", "delete", "cluster", "--name", CLUSTER, "--kubeconfig", KUBECONFIG])
        KUBECONFIG.unlink(missing_ok=True)
        # the volumes belong to whoever wrote them in the nodes, so a container removes them
        if ROOT.is_dir() and not succeeds(["rm", "-rf", ROOT]):
            clean: list[str | Path] = [
                "docker",
                "run",
                "--rm",
                "--volume",
                f"{ROOT}:/state",
                "--entrypoint",
                "find",
                NODE_IMAGE,
            ]
            run([*clean, "/state", "-mindepth", "1", "-delete"])
            run(["rm", "-rf", ROOT])

    def info(self) -> Info:
        if not running():
            raise ClusterError("no kind cluster is up: `python -m cluster up`")
        return Info(
            provider=self.name,
            kubeconfig=str(KUBECONFIG),
            bin_dir=None,
            audit_log=str(ROOT / "audit" / "audit.log"),
            nodes=self._nodes(),
            volume_root=str(ROOT / "volumes"),
        )

    def _nodes(self) -> list[str]:
        return sorted(run(["kind", "get", "nodes", "--name", CLUSTER]).split())

    def load(self, images: Sequence[str]) -> None:
        """kind itself passes over what a node has already."""
        run_shown(["kind", "load", "docker-image", *images, "--name", CLUSTER])

    def build(self, names: Sequence[str], tag: str) -> None:
        images.build(HostEngine(), names, tag)
