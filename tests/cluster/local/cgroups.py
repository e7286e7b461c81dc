"""The cgroup of each node: made for its kubelet, emptied and removed afterwards.

Only directories are made and removed; nothing under /sys/fs/cgroup is ever mounted or unmounted here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .layout import Node

TOP = Path("/sys/fs/cgroup")


def _hierarchies() -> list[Path]:
    """Where a node's cgroup has to be: the one hierarchy of version 2, or each of version 1."""
    if (TOP / "cgroup.controllers").exists():
        return [TOP]
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(words[1]) for words in mounts if words[2] == "cgroup"]


def ensure(node: Node) -> None:
    for hierarchy in _hierarchies():
        directory = hierarchy / node.cgroup.strip("/")
        if directory.exists():
            continue
        directory.mkdir()
        if (directory / "cgroup.controllers").exists():
            controllers = (directory / "cgroup.controllers").read_text().split()
            (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cpuset of version 1: no process may enter
            if hierarchy != TOP and (hierarchy / file).exists():
                (directory / file).write_text((hierarchy / file).read_text())


def _directories(node: Node) -> Iterator[Path]:
    """The node's cgroup wherever it is: a runtime makes it in the unified hierarchy beside version 1, too."""
    for parent in [TOP, *TOP.iterdir()]:
        directory = parent / node.cgroup.strip("/")
        if directory.is_dir() and not parent.is_symlink():
            yield directory


def end_processes(node: Node) -> None:
    """Ends what runs in the node's cgroup, such as pods whose containerd died before them."""
    for _ in range(100):
        pids = {pid for top in _directories(node) for pid in _processes(top)}
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def clear(node: Node) -> None:
    """Ends what still runs in the node's cgroup and removes it."""
    end_processes(node)
    for top in _directories(node):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _processes(top: Path) -> set[int]:
    found: set[int] = set()
    for file in top.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in file.read_text().split())
    return found - {0}
