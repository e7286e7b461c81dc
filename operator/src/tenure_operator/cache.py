"""What the operator knows of the cluster: stripped objects by kind and name, with the few indexes that it needs.

Three sources feed it: watches, our own lists (`resync`), and the answers to our own writes, which may arrive in any
order. So an object replaces another only if its resource version is higher, and a deleted one does not come back by an
older answer. Resource versions of one kind can be compared as integers (KEP-5504; true of etcd long before).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from tenure_api.names import AGENT_LABEL, HOST_LABEL, SESSION_LABEL, WARM_LABEL
from tenure_api.session import EffectiveMode
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SESSIONS, WATCHED, Kind, Manifest
from tenure_operator.shelf import Shelf

TOMBSTONE_SECONDS = 120.0
"""How long a deletion is remembered: longer than any request that may still answer with the object."""

Name = tuple[str, str]
T = TypeVar("T")


class Change(NamedTuple):
    """An object before and after; None where it did not exist."""

    kind: Kind
    old: Manifest | None
    new: Manifest | None


def version(manifest: Manifest) -> int:
    """The resource version of an object."""
    return int(manifest["metadata"]["resourceVersion"])


def name_of(manifest: Manifest) -> Name:
    """Namespace and name of an object."""
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def agent_of(session: Manifest) -> Name:
    """Namespace and name of the agent of a session."""
    return session["metadata"]["namespace"], session["spec"]["agentRef"]["name"]


def policy_of(agent: Manifest) -> Name | None:
    """Namespace and name of the policy that an agent refers to."""
    reference = agent["spec"].get("memoryPolicyRef")
    return (agent["metadata"]["namespace"], reference["name"]) if reference else None


def _images(containers: list[Manifest]) -> list[Manifest]:
    return [{"name": c["name"], "image": c["image"]} for c in containers]


def stripped(kind: Kind, manifest: Manifest) -> Manifest:
    """The object without what is never looked at, which for pods is most of it."""
    meta = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    kept: dict[str, Any] = {k: v for k, v in manifest.items() if k not in ("metadata", "apiVersion", "kind")}
    if kind is PODS:
        spec = manifest["spec"]
        kept["spec"] = {
            "containers": _images(spec["containers"]),
            "initContainers": _images(spec.get("initContainers", [])),
            **({"nodeName": spec["nodeName"]} if "nodeName" in spec else {}),
        }
    return {"metadata": meta, **kept}


def _never(_: Manifest) -> bool:
    return False


def _always(_: Manifest) -> bool:
    return True


def _sleeps(session: Manifest) -> bool:
    return bool(session.get("status", {}).get("effectiveMode") == EffectiveMode.HIBERNATED)


QUIET = {SESSIONS: _sleeps, CLAIMS: _always, NETWORKS: _always}
"""What is left of a session that sleeps: looked at when something happens to it, and kept packed until then."""


class Cache:
    """Objects of the watched kinds. Those given out are shared: never change them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._objects = {kind: Shelf(QUIET.get(kind, _never)) for kind in WATCHED}
        self._gone: dict[tuple[Kind, Name], tuple[int, float]] = {}
        self._sessions: defaultdict[Name, set[Name]] = defaultdict(set)
        self._agents: defaultdict[Name, set[Name]] = defaultdict(set)
        self._warm: defaultdict[Name, set[tuple[Kind, Name]]] = defaultdict(set)
        self._hosts: defaultdict[Name, set[tuple[Kind, Name]]] = defaultdict(set)
        self._claims: defaultdict[Name, set[Name]] = defaultdict(set)

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """An object, or None."""
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind) -> Iterator[Manifest]:
        """All objects of a kind, as they are now."""
        return iter(self._objects[kind])

    def count(self, kind: Kind) -> int:
        """How many objects of a kind there are."""
        return len(self._objects[kind])

    def sessions_of(self, agent: Name) -> list[Manifest]:
        """The sessions that refer to an agent, whether it exists or not."""
        return self._those(SESSIONS, self._sessions.get(agent, ()))

    def agents_with(self, policy: Name) -> list[Manifest]:
        """The agents that refer to a policy, whether it exists or not."""
        return self._those(AGENTS, self._agents.get(policy, ()))

    def warm_of(self, agent: Name) -> list[tuple[Kind, Manifest]]:
        """The pods and claims that are kept ahead for an agent, with their kinds."""
        return self._with_kinds(self._warm.get(agent, ()))

    def hosts_of(self, agent: Name) -> list[tuple[Kind, Manifest]]:
        """The pods and claims that the sessions of an agent share, with their kinds."""
        return self._with_kinds(self._hosts.get(agent, ()))

    def claims_of(self, session: Name) -> list[Manifest]:
        """The claims that are labelled as a session's, by whatever name."""
        return self._those(CLAIMS, self._claims.get(session, ()))

    def _those(self, kind: Kind, wanted: Iterable[Name]) -> list[Manifest]:
        found = (self._objects[kind].get(name) for name in wanted)
        return [manifest for manifest in found if manifest is not None]

    def _with_kinds(self, wanted: Iterable[tuple[Kind, Name]]) -> list[tuple[Kind, Manifest]]:
        found = ((kind, self._objects[kind].get(name)) for kind, name in wanted)
        return [(kind, manifest) for kind, manifest in found if manifest is not None]

    def put(self, kind: Kind, manifest: Manifest, read_now: bool = False) -> Change | None:
        """Remembers an object unless something newer is known of it; None if nothing has changed.

        A watch tells of an object that loses the label by which it is watched as of one that is deleted, at the very
        version at which it lives on; so does the answer to a real deletion. Only one that was `read_now` is known to
        live.
        """
        name, new = name_of(manifest), version(manifest)
        shelf = self._objects[kind]
        known = shelf.version(name)
        if known is not None and known >= new:
            return None
        gone, _ = self._gone.get((kind, name), (-1, 0.0))
        if new < gone or (new == gone and not read_now):
            return None
        old, kept = shelf.get(name), stripped(kind, manifest)
        self._index(kind, name, old, kept)
        shelf.put(name, kept)
        return Change(kind, old, kept)

    def forget(self, kind: Kind, name: Name, at: int) -> Change | None:
        """Forgets an object that was deleted at a resource version; None if there is none, or a newer one."""
        known = self._objects[kind].version(name)
        if known is not None and known > at:
            return None
        old = self._objects[kind].get(name)
        self._bury(kind, name, at)
        if old is None:
            return None
        self._index(kind, name, old, None)
        self._objects[kind].remove(name)
        return Change(kind, old, None)

    def _bury(self, kind: Kind, name: Name, at: int) -> None:
        now = self._clock()
        before, _ = self._gone.pop((kind, name), (-1, 0.0))  # popped, so that the oldest stay first
        self._gone[kind, name] = (max(at, before), now)
        while (first := next(iter(self._gone))) and self._gone[first][1] < now - TOMBSTONE_SECONDS:
            del self._gone[first]

    def _index(self, kind: Kind, name: Name, old: Manifest | None, new: Manifest | None) -> None:
        if kind is SESSIONS:
            _move(self._sessions, name, agent_of(old) if old else None, agent_of(new) if new else None)
        elif kind is AGENTS:
            _move(self._agents, name, policy_of(old) if old else None, policy_of(new) if new else None)
        elif kind in (PODS, CLAIMS):
            _move(self._warm, (kind, name), warm_for(old), warm_for(new))
            _move(self._hosts, (kind, name), host_for(old), host_for(new))
            if kind is CLAIMS:
                _move(self._claims, name, _session_of(old), _session_of(new))


def warm_for(child: Manifest | None) -> Name | None:
    """The agent that an object is kept ahead for, if it is."""
    labels = child["metadata"].get("labels", {}) if child else {}
    return (child["metadata"]["namespace"], labels.get(AGENT_LABEL, "")) if child and WARM_LABEL in labels else None


def host_for(child: Manifest | None) -> Name | None:
    """The agent whose sessions share an object, if they do."""
    labels = child["metadata"].get("labels", {}) if child else {}
    return (child["metadata"]["namespace"], labels.get(AGENT_LABEL, "")) if child and HOST_LABEL in labels else None


def _session_of(child: Manifest | None) -> Name | None:
    session = child["metadata"].get("labels", {}).get(SESSION_LABEL) if child else None
    return (child["metadata"]["namespace"], session) if child and session else None


def _move(index: defaultdict[Name, set[T]], name: T, old: Name | None, new: Name | None) -> None:
    if old == new:
        return
    if old is not None:
        index[old].discard(name)
        if not index[old]:
            del index[old]
    if new is not None:
        index[new].add(name)
