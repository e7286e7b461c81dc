"""The images inside the nodes' containerd: which are there, and how others get there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..paths import cache
from ..shell import ClusterError, run, say, succeeds, wait_for
from .dockerd import PrivateEngine
from .layout import Node, Record


def _ctr(record: Record, node: Node) -> list[str]:
    return [f"{record.bin_dir}/ctr", "--address", str(node.socket), "--namespace", "k8s.io"]


def wait_for_runtime(record: Record, node: Node) -> None:
    log = node.state.logs / f"{node.process('containerd')}.log"
    wait_for(f"containerd of {node.name}", lambda: succeeds([*_ctr(record, node), "version"]), 30, str(log))


def full_name(name: str) -> str:
    """The name as containerd has it, with registry host and tag."""
    first, _, rest = name.partition("/")
    if not rest:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def present(record: Record, node: Node) -> dict[str, str]:
    """Full name -> image id of everything the node has."""
    listed: dict[str, str] = json.loads(run([f"{record.bin_dir}/kube", "cri", node.socket, "images"]))
    return listed


def ensure_archives(record: Record, node: Node, archives: Mapping[str, Path]) -> None:
    there = present(record, node)
    for name, path in archives.items():
        if name not in there:
            run([*_ctr(record, node), "images", "import", path])


def copy(record: Record, source: Node, target: Node) -> None:
    """Brings what one node has into another, which is quicker than asking an engine, and has all of it."""
    there = present(record, target)
    lacking = [name for name, image_id in present(record, source).items() if there.get(name) != image_id]
    if lacking:
        say(f"copying {len(lacking)} images to {target.name}")
        with tempfile.TemporaryDirectory(dir=cache()) as temporary:
            saved = Path(temporary, "images.tar")
            run([*_ctr(record, source), "images", "export", saved, *lacking])
            run([*_ctr(record, target), "images", "import", saved])


def load(record: Record, nodes: Sequence[Node], engine: PrivateEngine, names: Sequence[str]) -> None:
    """Brings images of the engine into every node; those whose id is there already are passed over."""
    wanted: dict[str, str] = {}
    for name in names:
        image_id = engine.find(name)
        if image_id is None:
            raise ClusterError(f"no image {name}: build it first (`build-images`)")
        wanted[name] = image_id
    lacking = {node: _lacking(record, node, wanted) for node in nodes}
    if not any(lacking.values()):
        say("images are in the cluster already")
        return
    needed = sorted({name for images in lacking.values() for name in images})
    say(f"loading {' '.join(needed)}")
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        saved = Path(temporary, "images.tar")
        with engine.running() as docker:
            docker("save", "--output", saved, *needed)  # together: what they share is written once
        with ThreadPoolExecutor() as pool:
            imports = [[*_ctr(record, node), "images", "import", str(saved)] for node in nodes if lacking[node]]
            for _ in pool.map(run, imports):
                pass  # only for its exceptions


def _lacking(record: Record, node: Node, wanted: Mapping[str, str]) -> list[str]:
    there = present(record, node)
    return [name for name, image_id in wanted.items() if there.get(full_name(name)) != image_id]
