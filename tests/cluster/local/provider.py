"""The local cluster as a provider: its verbs, under one lock for the machine."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import images
from ..paths import cache
from ..provider import Info, NodeChange
from ..shell import ClusterError, say
from . import binaries, lifecycle, node_images, nodes, preflight, teardown
from .dockerd import PrivateEngine
from .layout import Record, State


@contextmanager
def _lock() -> Iterator[None]:
    """One command at a time: two test runs that start together must not both bring the cluster up."""
    path = cache() / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that works on the cluster")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_binaries() -> None:
    with _lock():
        if not binaries.ready():
            preflight.install(preflight.missing_packages())
            binaries.ensure()


class Local:
    name = "local"

    def up(self, nodes: int) -> Info:
        with _lock():
            return self._info(lifecycle.up(nodes))

    def down(self) -> None:
        with _lock():
            say("cluster is down" if teardown.down() else "no local cluster is up")

    def info(self) -> Info:
        return self._info(_running())

    def load(self, images: Sequence[str]) -> None:
        with _lock():
            record = _running()
            node_images.load(record, record.serving(), PrivateEngine(), images)

    def build(self, names: Sequence[str], tag: str) -> None:
        with _lock():
            preflight.install(preflight.missing_packages())
            images.build(PrivateEngine(), names, tag)

    def change_node(self, change: NodeChange, number: int) -> None:
        """Adds a node (or brings a dead one back), removes one, kills one, or stops one's kubelet or lets it go on."""
        with _lock():
            nodes.CHANGES[change](_running(), number)

    def _info(self, record: Record) -> Info:
        state = State(Path(record.state))
        return Info(
            provider=self.name,
            kubeconfig=str(state.admin_kubeconfig),
            bin_dir=record.bin_dir,
            audit_log=str(state.audit_log),
            nodes=[record.node(number).name for number in record.nodes],
            volume_root=str(state.volumes),
        )


def _running() -> Record:
    record = Record.load()
    if record is None:
        raise ClusterError("no local cluster is up: `python -m cluster up`")
    record.require_own()
    return record
