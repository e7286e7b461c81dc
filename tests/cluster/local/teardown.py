"""Undoing all that `up` did, from any checkout, and also when the cluster died by itself.

What has to be undone is read from /run/tenure-cluster and from the kernel, never from what this checkout
would do: the running cluster may be another's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..paths import RUN
from ..shell import ClusterError, run, say, succeeds
from . import cgroups, dockerd, network, process
from .layout import BRIDGE, KUBE_PROXY_TABLES, MASQUERADE_TABLE, NETPOL_TABLE, Node, Record, State

DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")  # where, no flag can change
CNI_RESULTS = Path("/var/lib/cni/results")  # likewise
LOG_LINKS = Path("/var/log/containers")  # likewise
MADE_ON_THE_WAY = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/containers",
    "/run/containerd",
    "/run/docker",
    "/run/runc",
)


def down() -> bool:
    """Takes down whatever local cluster is up; tells whether there was one."""
    if not RUN.exists():
        return False
    dockerd.stop()
    record = Record.load()
    if record is not None:
        _down(record)
    shutil.rmtree(RUN)
    for name in MADE_ON_THE_WAY:
        _remove_empty(Path(name))
    return record is not None


def _down(record: Record) -> None:
    state = State(Path(record.state))
    nodes = [record.node(number) for number in record.nodes]
    say("stopping the kubelets and controllers")
    process.stop(name for name in process.known() if not name.startswith(("containerd-", "etcd", "kube-apiserver")))
    say("removing pods")
    _remove_pods(record, nodes)
    process.stop(process.known(), patience=1)  # the API server would wait for its clients
    end_shims(RUN)
    for node in nodes:
        cgroups.clear(node)
    _clear_pod_leftovers(nodes)
    _clear_network(record, nodes)
    unmount_below([RUN, state.root])
    for name, value in record.sysctls.items():
        network.sysctl_path(name).write_text(value)
    _clear_leftovers(state)
    clear_state(state.root)


def remove_node(record: Record, node: Node) -> None:
    """Undoes one node, whether it lives or not. What the API server knows of it is the caller's business."""
    process.stop(node.process(component) for component in ("kubelet", "kube-proxy", "agent"))
    _remove_pods(record, [node])
    process.stop([node.process("containerd")], patience=1)
    end_shims(node.run)
    cgroups.clear(node)
    _clear_pod_leftovers([node])
    _clear_links([node])
    unmount_below([node.run, node.directory])
    succeeds(["umount", node.netns])
    node.netns.unlink(missing_ok=True)
    for directory in (node.run, node.directory, node.volumes):
        clear_state(directory)


def _remove_pods(record: Record, nodes: Iterable[Node]) -> None:
    for node in nodes:
        if process.alive(node.process("containerd")):
            succeeds([f"{record.bin_dir}/kube", "cri", node.socket, "clear"], timeout=100)


def end_shims(below: Path) -> None:
    """Shims outlive containerd on purpose. Ours are known by the path of their socket's containerd."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"containerd-shim-runc-v2") and any(
                w.startswith(b"%s/" % bytes(below)) for w in words
            ):
                succeeds(["kill", "-KILL", entry.name])


def _clear_network(record: Record, nodes: Iterable[Node]) -> None:
    _clear_links(nodes)
    succeeds(["ip", "link", "del", BRIDGE])
    for table in (MASQUERADE_TABLE, NETPOL_TABLE, *KUBE_PROXY_TABLES):
        if table not in record.nft_tables:
            succeeds(["nft", "delete", "table", *table.split()])
    network.remove_host_ports(record.nft_tables)


def _clear_links(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node.own_network:
            succeeds(["ip", "route", "del", node.pod_cidr])
            succeeds(["ip", "link", "del", node.link])


def mounts_below(roots: Iterable[Path], mounts: str) -> list[str]:
    """The mount points below the roots, the innermost first (mounts: /proc/mounts)."""
    prefixes = tuple(f"{root}/" for root in roots)
    points = [line.split()[1].encode().decode("unicode_escape") for line in mounts.splitlines()]
    return sorted((point for point in points if point.startswith(prefixes)), reverse=True)


def unmount_below(roots: Iterable[Path]) -> None:
    wanted = list(roots)
    for _ in range(3):  # mounts may lie over each other
        for point in mounts_below(wanted, Path("/proc/mounts").read_text()):
            succeeds(["umount", point])


def _clear_pod_leftovers(nodes: Iterable[Node]) -> None:
    """The sockets and notes of pods whose shim or containerd died before they could remove them."""
    for node in nodes:
        for task in node.run.glob("containerd/io.containerd.runtime.v2.task/k8s.io/*"):
            bootstrap = task / "bootstrap.json"
            if bootstrap.exists():
                address: str = json.loads(bootstrap.read_text())["address"]
                Path(address.removeprefix("unix://")).unlink(missing_ok=True)
            for note in CNI_RESULTS.glob(f"*-{task.name}-*"):
                note.unlink()


def _clear_leftovers(state: State) -> None:
    """What programs leave in places of their own choosing."""
    for name in ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"):
        (DEVICE_PLUGINS / name).unlink(missing_ok=True)
    for link in LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(state.root):
            link.unlink()


def _remove_empty(top: Path) -> None:
    """Removes a tree of directories in which there is nothing else; another program's files keep theirs."""
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def clear_state(root: Path) -> None:
    """Removes the state folder, but never through a mount: that would remove what is mounted there."""
    if not root.exists():
        return
    unmount_below([root])
    left = mounts_below([root], Path("/proc/mounts").read_text())
    if left:
        raise ClusterError(f"{left[0]} is still mounted; {root} is left as it is")
    run(["rm", "-rf", "--one-file-system", root])
