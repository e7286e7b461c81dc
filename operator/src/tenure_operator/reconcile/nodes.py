"""What the nodes of a session's pod and volume mean for it: pure.

A kubelet that is not heard can neither end a pod nor say that it has ended, so a pod on its node would be ending for
ever. Such a pod is given up: its object is deleted, and the session runs elsewhere with a higher lease generation. If
the old pod still runs behind a broken network, the journal is closed to it by the generation that is on the volume.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tenure_api.conditions import Reason
from tenure_operator.kinds import Manifest
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.verdict import Verdict, stalled, waiting

ENDING_SECONDS = 10.0
"""How long a pod may take to end before its node is asked about; an idle pod takes two."""
AGAIN_SECONDS = 10.0
"""How often nodes are asked about while something is wrong with one: they are not watched."""
USUAL_GRACE_SECONDS = 30
"""Kubernetes' own."""
_NODE_KEYS = ("hostname", "node", "nodename")
"""The last part of the label keys by which provisioners name single nodes."""

Nodes = Mapping[str, Manifest | None]
"""What is known of nodes by name; None for one that is gone."""


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a session's nodes."""

    verdict: Verdict
    give_up: bool = False
    """The pod is to be deleted without waiting for its node."""
    again: float = AGAIN_SECONDS
    """After how many seconds it may be otherwise."""


def suspicion(pod: Manifest, now: datetime) -> float | None:
    """Seconds until nodes should be asked about; None while there is nothing that they would explain."""
    if pods.has_ended(pod) and not is_deleting(pod):
        return None
    if is_deleting(pod):
        return max(ENDING_SECONDS - (now - _deleted_at(pod)).total_seconds(), 0.0)
    scheduled = pods.condition(pod, "PodScheduled")
    if scheduled.get("status") != "True":
        since = scheduled.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
        return max(pods.PATIENCE_SECONDS - (now - datetime.fromisoformat(since)).total_seconds(), 0.0)
    return 0.0 if _was_called_unready(pod) else None


def look_again(pod: Manifest, now: datetime) -> float | None:
    """Seconds until the next look at a pod with which nothing was wrong at this one."""
    left = suspicion(pod, now)
    return AGAIN_SECONDS if left == 0.0 else left


def concerned(pod: Manifest, volume: Manifest | None) -> set[str]:
    """The names of the nodes that `judge` wants to know of."""
    own = pod["spec"].get("nodeName")
    return {*([own] if own else []), *(holders(volume) or ())}


def holders(volume: Manifest | None) -> set[str] | None:
    """The nodes that alone can mount a PersistentVolume; None if it is not bound to nodes, or not by their names."""
    if volume is None:
        return None
    terms = volume["spec"].get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms", [])
    named = [_named(term) for term in terms]
    if not named or any(names is None for names in named):
        return None
    return {name for names in named for name in names or ()}


def judge(pod: Manifest, nodes: Nodes, volume: Manifest | None, now: datetime) -> Trouble | None:
    """What is wrong with the nodes of a pod that is not as it should be; None if it is not that."""
    held_by = holders(volume)
    own = pod["spec"].get("nodeName")
    if own is not None and _answers(nodes.get(own)):
        return None
    if volume is not None and held_by is not None and (trouble := _out_of_reach(volume, held_by, nodes)):
        return trouble
    return _on_dead_node(pod, own, nodes.get(own), now) if own is not None else None


def _on_dead_node(pod: Manifest, name: str, node: Manifest | None, now: datetime) -> Trouble | None:
    if not is_deleting(pod):
        if node is None:
            return None  # Kubernetes itself deletes the pods of nodes that are gone
        said = f"{_how(name, node)} If that lasts, its pod is given up and the session goes on on another node."
        return Trouble(waiting(Reason.NODE_UNREACHABLE, said))
    left = (_grace_ends(pod, node) - now).total_seconds() if node is not None else 0.0
    if left > 0:
        grace = _grace(pod)
        said = f"{_how(name, node)} If that lasts for {grace} s, the session goes on on another node."
        return Trouble(waiting(Reason.NODE_UNREACHABLE, said), again=min(left, AGAIN_SECONDS))
    said = f"{_how(name, node)} Its pod is given up, and the session goes on on another node."
    return Trouble(waiting(Reason.NODE_UNREACHABLE, said), give_up=True)


def _out_of_reach(volume: Manifest, held_by: Iterable[str], nodes: Nodes) -> Trouble | None:
    """Whether no node takes a pod that mounts this volume."""
    names = sorted(held_by)
    states = [nodes.get(name) for name in names]
    what = f"The volume {volume['metadata']['name']} can be mounted only by {_list(names)}."
    if not any(_answers(node) for node in states):
        how = " ".join(_how(name, nodes.get(name)) for name in names)
        fix = (
            "The session goes on by itself when that node is back; if it is lost for good, delete the session, or its "
            "claim to begin anew on another node."
        )
        return Trouble(stalled(Reason.VOLUME_UNREACHABLE, f"{what} {how} {fix}"))
    if all(not _answers(node) or _is_cordoned(node) for node in states):
        closed = [name for name, node in zip(names, states, strict=True) if _is_cordoned(node)]
        fix = f"The session goes on when it is uncordoned: `kubectl uncordon {closed[0]}`."
        return Trouble(waiting(Reason.VOLUME_UNREACHABLE, f"{what} {_list(closed)} takes no pods (cordoned). {fix}"))
    return None


def _list(names: list[str]) -> str:
    return f"node{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _how(name: str, node: Manifest | None) -> str:
    if node is None:
        return f"Node {name} is gone."
    ready = pods.condition(node, "Ready")
    since = f" since {ready['lastTransitionTime']}" if "lastTransitionTime" in ready else ""
    if ready.get("status") == "False":
        return f"Node {name} has not been ready{since} ({ready.get('reason') or 'no reason given'})."
    return f"Node {name} has not answered{since}."


def _answers(node: Manifest | None) -> bool:
    return node is not None and pods.condition(node, "Ready").get("status") == "True"


def _is_cordoned(node: Manifest | None) -> bool:
    return node is not None and _answers(node) and bool(node.get("spec", {}).get("unschedulable"))


def _grace(pod: Manifest) -> int:
    """That of a deletion that was asked for."""
    return int(pod["metadata"].get("deletionGracePeriodSeconds", USUAL_GRACE_SECONDS))


def _deleted_at(pod: Manifest) -> datetime:
    """When the deletion was asked for: the API server adds the grace to what it writes down."""
    return datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) - timedelta(seconds=_grace(pod))


def _grace_ends(pod: Manifest, node: Manifest) -> datetime:
    """When a pod on a node that is not ready has had its time.

    A kubelet that is not heard may not have heard of the deletion either: the grace is given to the node, to come back.
    One that says itself that it is not ready may be ending the pod in good order: it gets the grace of the pod, too.
    """
    ready = pods.condition(node, "Ready")
    since = ready.get("lastTransitionTime")
    ends = datetime.fromisoformat(since) + timedelta(seconds=_grace(pod)) if since else _deleted_at(pod)
    if ready.get("status") == "False":
        ends = max(ends, datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]))
    return ends


def _was_called_unready(pod: Manifest) -> bool:
    """Whether somebody else than the kubelet says that the pod is not ready: its containers are."""
    status: dict[str, Any] = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = bool(containers) and all(container.get("ready") for container in containers)
    return ready and pods.condition(pod, "Ready").get("status") == "False"


def _named(term: dict[str, Any]) -> set[str] | None:
    """The nodes that a term of a node selector names; None if it speaks of something else, such as a zone."""
    by_label = [r for r in term.get("matchExpressions", []) if r["key"].rpartition("/")[2] in _NODE_KEYS]
    by_name = [r for r in term.get("matchFields", []) if r["key"] == "metadata.name"]
    for requirement in [*by_name, *by_label]:
        if requirement["operator"] == "In":
            return set(requirement["values"])
    return None
