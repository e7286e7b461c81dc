"""A cluster somebody else made, named by `TENURE_TEST_KUBECONFIG`.

Only that variable counts, never the current context: tests create and delete, and must not do so in a
cluster that happened to be selected.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from . import images
from .engine import HostEngine
from .provider import Info
from .shell import ClusterError, run, run_shown, say, succeeds

KUBECONFIG_VARIABLE = "TENURE_TEST_KUBECONFIG"
LOAD_VARIABLE = "TENURE_TEST_IMAGE_LOAD"


def refusal() -> str | None:
    named = os.environ.get(KUBECONFIG_VARIABLE)
    if not named:
        return f"{KUBECONFIG_VARIABLE} is not set"
    return None


class External:
    name = "external"

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ[KUBECONFIG_VARIABLE]).expanduser().absolute()
        if not self.kubeconfig.is_file():
            raise ClusterError(f"{KUBECONFIG_VARIABLE} names {self.kubeconfig}, which is not a file")

    def up(self, nodes: int) -> Info:
        info = self.info()
        if len(info.nodes) < nodes:
            raise ClusterError(f"{nodes} nodes are asked for; the cluster of {self.kubeconfig} has {len(info.nodes)}")
        return info

    def down(self) -> None:
        say(f"the cluster of {self.kubeconfig} is not ours: it stays as it is")

    def info(self) -> Info:
        listed = json.loads(run(["kubectl", "--kubeconfig", self.kubeconfig, "get", "nodes", "-o", "json"]))
        names = [item["metadata"]["name"] for item in listed["items"]]
        return Info(self.name, str(self.kubeconfig), None, None, names, None)

    def load(self, images: Sequence[str]) -> None:
        command = os.environ.get(LOAD_VARIABLE)
        if not command:
            raise ClusterError(
                f"how images get into the cluster of {KUBECONFIG_VARIABLE} is not known: name a command in "
                f"{LOAD_VARIABLE}; it is called with the image names as arguments"
            )
        run_shown([*shlex.split(command), *images])

    def build(self, names: Sequence[str], tag: str) -> None:
        if not succeeds(["docker", "info"]):
            raise ClusterError(
                "images for an external cluster are built with docker, and `docker info` does not answer"
            )
        images.build(HostEngine(), names, tag)
