"""Nodes that come and go, or fail, while the cluster runs.

A node that is added here is reserved (see `layout.RESERVED`): whoever tests its death has it alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from ..provider import NodeChange
from ..shell import ClusterError, run, say, succeeds
from . import cgroups, lifecycle, process, teardown
from .layout import Node, Record


def add(record: Record, number: int) -> None:
    """Adds a node, or brings back one that is dead or stopped."""
    if number not in record.nodes:
        record.reserved = sorted({*record.reserved, number})
        record.nodes = sorted({*record.nodes, number})
    _go_on(record, record.node(number))
    lifecycle.up(len(record.nodes))


def remove(record: Record, number: int) -> None:
    """Takes a node away with its pods and volumes; no error if there is none."""
    node = _further(record, number)
    kubectl = lifecycle.kubectl(record)
    succeeds([*kubectl, "delete", "node", node.name, "--ignore-not-found", "--wait=false"])
    teardown.remove_node(record, node)
    succeeds([*kubectl, "delete", "node", node.name, "--ignore-not-found"])  # a kubelet may have made it again
    everywhere = ["--all-namespaces", f"--field-selector=spec.nodeName={node.name}"]
    succeeds([*kubectl, "delete", "pods", *everywhere, "--force", "--grace-period=0", "--wait=false"])
    _delete_volumes(record, node)
    for listed in (record.nodes, record.out, record.reserved):
        if number in listed:
            listed.remove(number)
    record.save()
    say(f"{node.name} is gone")


def kill(record: Record, number: int) -> None:
    """A power failure: all processes of the node and of its pods die at once. Its disk stays."""
    node = _further(record, number)
    _take_out(record, node)
    process.kill(lifecycle.daemons(node))
    teardown.end_shims(node.run)
    cgroups.end_processes(node)


def pause(record: Record, number: int) -> None:
    """Cuts a node off: its kubelet neither says nor hears anything, while its pods run on."""
    node = _further(record, number)
    _take_out(record, node)
    process.send(node.process("kubelet"), signal.SIGSTOP)


def resume(record: Record, number: int) -> None:
    """Ends what `pause` has begun."""
    _go_on(record, _further(record, number))


CHANGES: Mapping[NodeChange, Callable[[Record, int], None]] = {
    NodeChange.ADD: add,
    NodeChange.REMOVE: remove,
    NodeChange.KILL: kill,
    NodeChange.PAUSE: pause,
    NodeChange.RESUME: resume,
}


def _further(record: Record, number: int) -> Node:
    if number <= 1:
        raise ClusterError("the first node carries the control plane and is neither taken away nor killed")
    return record.node(number)


def _take_out(record: Record, node: Node) -> None:
    """Noted before it is done, for an `up` of somebody else would start it again."""
    if node.number not in record.nodes:
        raise ClusterError(f"there is no {node.name}")
    record.out = sorted({*record.out, node.number})
    record.save()


def _go_on(record: Record, node: Node) -> None:
    process.send(node.process("kubelet"), signal.SIGCONT)
    record.out = [number for number in record.out if number != node.number]
    record.save()


def _delete_volumes(record: Record, node: Node) -> None:
    """Volumes on the node's disk. Those that are still bound go with their claims."""
    kubectl = lifecycle.kubectl(record)
    template = (
        '{range .items[*]}{.metadata.name} {.metadata.annotations.volume\\.kubernetes\\.io/selected-node}{"\\n"}{end}'
    )
    listed = run([*kubectl, "get", "persistentvolumes", "-o", f"jsonpath={template}"])
    names = [line.split()[0] for line in listed.splitlines() if line.split()[1:] == [node.name]]
    if names:
        succeeds([*kubectl, "delete", "persistentvolumes", *names, "--wait=false"])
