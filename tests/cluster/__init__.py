"""A Kubernetes cluster for tests, whatever the machine offers: see README.md beside this file.

The functions here are what fixtures use; `python -m cluster` is the same for people and the Makefile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from . import external, kind, local
from .images import DEFAULT_TAG
from .local import Local, preflight
from .local.layout import RECORD
from .provider import Candidate, Info, NodeChange, Provider, choose
from .shell import ClusterError, say

__all__ = [
    "ClusterError",
    "Info",
    "NodeChange",
    "build_binaries",
    "build_images",
    "change_node",
    "down",
    "environment",
    "info",
    "load",
    "provider",
    "up",
]

EXTERNAL = Candidate("external", external.refusal, external.External)
KIND = Candidate("kind", kind.refusal, kind.Kind)
LOCAL = Candidate("local", preflight.refusal, Local)


def provider() -> Provider:
    """The provider of the cluster that is up, or else the first that can be used here.

    A running cluster decides first (after the one that is named): what was installed meanwhile must not
    make `down` look at another provider than `up` did.
    """
    if external.refusal() is None or os.environ.get("TENURE_TEST_PROVIDER"):
        return choose([EXTERNAL, KIND, LOCAL])
    if RECORD.exists():
        return Local()
    if kind.running():
        return kind.Kind()
    return choose([KIND, LOCAL])


def up(nodes: int | None = None) -> Info:
    """The cluster, made if it is not there; `nodes` (default: the variable NODES, or 1) is the least it has."""
    return provider().up(nodes if nodes is not None else int(os.environ.get("NODES") or 1))


def down() -> None:
    provider().down()


def change_node(change: NodeChange, number: int = 2) -> None:
    """Adds a node that only pods of tests for it use, takes it away, or lets it fail. Only the local cluster can."""
    used = provider()
    if not isinstance(used, Local):
        raise ClusterError(f"nodes of a {used.name} cluster are not added, removed or killed here")
    used.change_node(change, number)


def info() -> Info:
    return provider().info()


def load(*names: str) -> None:
    """Brings built images into every node."""
    provider().load(names)


def build_images(names: Sequence[str] = (), tag: str = DEFAULT_TAG) -> None:
    provider().build(names, tag)


def build_binaries() -> None:
    """The local cluster's programs, for tests that need helm but no cluster. Elsewhere people have their own helm."""
    reason = preflight.refusal()
    if reason is None:
        local.build_binaries()
    else:
        say(f"no programs are built here: a local cluster is not possible, for {reason}")


def environment(found: Info, path: str | None = None) -> Mapping[str, str]:
    """What a shell or a child process needs to use the cluster with kubectl and helm."""
    wanted = {"KUBECONFIG": found.kubeconfig}
    if found.bin_dir:
        wanted["PATH"] = f"{found.bin_dir}:{path if path is not None else os.environ.get('PATH', '')}"
    return wanted
