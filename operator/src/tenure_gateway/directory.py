"""What the gateway knows of the cluster: agents and sessions, kept up to date by watches, so that no request asks.

Only what a request needs is kept of each object. Resource versions order what is known of one object (comparable since
Kubernetes 1.35, and in fact always), so that an older sight never overwrites a newer one: the answer to a create may
come before or after the watch has shown the object.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from tenure_api.conditions import ConditionStatus, ConditionType, Reason
from tenure_api.names import METADATA_ANNOTATION, PARENT_LABEL, WAKE_ANNOTATION
from tenure_api.session import EffectiveMode, OperatingMode
from tenure_gateway.faults import SessionGone, SessionStalled
from tenure_gateway.ids import Key

Object = dict[str, Any]

_GENERATION = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class AgentView:
    """An Agent. `created` is in seconds since the epoch."""

    key: Key
    version: int
    created: int
    blocked: str | None
    """Why it starts no sessions before somebody mends it, as its conditions say; None if it does."""
    delegates: frozenset[str]
    """Names of the agents that it may call as tools."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """An AgentSession. `created` is in seconds since the epoch."""

    key: Key
    version: int
    created: int
    uid: str
    identity: str | None
    """What tokens for its sidecar are made out to."""
    agent: Key
    subject: str
    metadata: dict[str, str] = field(hash=False)
    address: str | None
    """IP address of its pod while it is Ready and has one."""
    restoring: str | None
    """IP address of its pod while that waits for the bundle that the session begins with."""
    bundle: str | None
    """Digest of the bundle that it is imported from."""
    generation: int
    """Of its lease: counts the pods that it was given."""
    asleep: bool
    """Whether it sleeps: it has no pod, and gets one when it is woken."""
    kept_asleep: bool
    """Whether only those wake it whom RBAC lets `wake` it."""
    woken: int
    """The generation at which somebody has last asked to wake it; -1 if nobody ever has."""
    stalled: str | None
    """What its condition `Stalled` says, while it is."""
    waiting: str
    """What its condition `Ready` says, while it is not."""
    pod: str | None
    """Name of its pod."""
    parent: str | None
    """Name of the session that a call of a tool made it for."""
    owner: str | None
    """UID of that session."""
    deleting: bool


class View(Protocol):
    """What the table needs of what it keeps."""

    @property
    def key(self) -> Key:
        """The object."""

    @property
    def version(self) -> int:
        """Its resource version."""


V = TypeVar("V", bound=View)


def _conditions(obj: Object) -> dict[str, Object]:
    return {condition["type"]: condition for condition in obj.get("status", {}).get("conditions", ())}


def _key(obj: Object) -> Key:
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _created(obj: Object) -> int:
    return int(datetime.fromisoformat(obj["metadata"]["creationTimestamp"]).timestamp())


def _holds(condition: Object | None) -> bool:
    return condition is not None and condition.get("status") == ConditionStatus.TRUE


def _says(condition: Object | None) -> str:
    return "" if condition is None else condition.get("message") or condition.get("reason", "")


def agent_view(obj: Object) -> AgentView:
    """An Agent as the API server sends it."""
    conditions = _conditions(obj)
    ready = conditions.get(ConditionType.READY)
    waits = ready is None or _holds(ready) or _holds(conditions.get(ConditionType.RECONCILING))
    return AgentView(
        key=_key(obj),
        version=int(obj["metadata"]["resourceVersion"]),
        created=_created(obj),
        blocked=None if waits or ready is None or ready.get("status") != ConditionStatus.FALSE else _says(ready),
        delegates=frozenset(
            tool["agent"]["name"] for tool in obj.get("spec", {}).get("tools", ()) if tool.get("agent")
        ),
    )


def session_view(obj: Object) -> SessionView:
    """An AgentSession as the API server sends it."""
    conditions = _conditions(obj)
    ready = conditions.get(ConditionType.READY)
    stalled = conditions.get(ConditionType.STALLED)
    key, status = _key(obj), obj.get("status", {})
    annotations = obj["metadata"].get("annotations", {})
    asleep = status.get("effectiveMode") == EffectiveMode.HIBERNATED
    owners = [ref["uid"] for ref in obj["metadata"].get("ownerReferences", ()) if ref["kind"] == "AgentSession"]
    return SessionView(
        key=key,
        version=int(obj["metadata"]["resourceVersion"]),
        created=_created(obj),
        uid=obj["metadata"]["uid"],
        identity=status.get("identity"),
        agent=Key(key.namespace, obj["spec"]["agentRef"]["name"]),
        subject=obj["spec"]["subject"],
        metadata=_metadata(annotations.get(METADATA_ANNOTATION)),
        address=status.get("podIP") if _holds(ready) and not asleep else None,
        restoring=status.get("podIP") if ready is not None and ready.get("reason") == Reason.RESTORING else None,
        bundle=((obj["spec"].get("source") or {}).get("importFrom") or {}).get("digest"),
        generation=(status.get("lease") or {}).get("generation", 0),
        asleep=asleep,
        kept_asleep=obj["spec"].get("operatingMode") == OperatingMode.HIBERNATED,
        woken=_generation(annotations.get(WAKE_ANNOTATION)),
        stalled=_says(stalled) if _holds(stalled) else None,
        waiting=_says(ready) or "its pod is being started",
        pod=status.get("podName"),
        parent=obj["metadata"].get("labels", {}).get(PARENT_LABEL),
        owner=owners[0] if owners else None,
        deleting="deletionTimestamp" in obj["metadata"],
    )


def _generation(text: str | None) -> int:
    """The lease generation in the annotation; -1 if there is none, or somebody has spoilt it."""
    return int(text) if text is not None and _GENERATION.fullmatch(text) else -1


def _metadata(text: str | None) -> dict[str, str]:
    """The metadata in the annotation. Anyone who may edit the session may have spoilt it: then there is none."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return {key: entry for key, entry in value.items() if isinstance(entry, str)} if isinstance(value, dict) else {}


class Table(Generic[V]):
    """All objects of one kind. It is the sink of a watch."""

    def __init__(self, view: Callable[[Object], V]) -> None:
        self._view = view
        self._rows: dict[Key, V] = {}
        self._watchers: dict[Key, list[Callable[[], None]]] = {}
        self._seen = 0
        self.filled = False
        """Whether the first list has been seen."""

    def get(self, key: Key) -> V | None:
        """One object, if it is there."""
        return self._rows.get(key)

    def __iter__(self) -> Iterator[V]:
        return iter(list(self._rows.values()))

    def put(self, obj: Object) -> None:
        """Takes up an object that the watch shows."""
        self._seen = max(self._seen, self._take(self._view(obj)).version)

    def offer(self, obj: Object) -> V:
        """Takes up an object that came as an answer; returns the newest sight of it.

        If the watch is already past it and does not have it, then it has been deleted since, and is not taken up.
        """
        view = self._view(obj)
        return view if view.key not in self._rows and view.version <= self._seen else self._take(view)

    def forget(self, obj: Object) -> None:
        """Drops an object, unless a new one has taken its name since."""
        key, version = _key(obj), int(obj["metadata"]["resourceVersion"])
        self._seen = max(self._seen, version)
        known = self._rows.get(key)
        if known is not None and known.version <= version:
            self._drop(key)

    def drop(self, view: V) -> None:
        """Drops what this process itself has just deleted."""
        if self._rows.get(view.key) is view:
            self._drop(view.key)

    def replace(self, objects: list[Object], version: int) -> None:
        """Takes up a list as of a resource version; drops what is not in it and is not newer than it."""
        self._seen = max(self._seen, version)
        seen = {self._take(self._view(obj)).key for obj in objects}
        for key in [key for key, row in self._rows.items() if key not in seen and row.version <= version]:
            self._drop(key)
        self.filled = True

    @contextmanager
    def watching(self, key: Key, heard: Callable[[], None]) -> Iterator[None]:
        """While it is open, `heard` is called whenever the object has changed."""
        watchers = self._watchers.setdefault(key, [])
        watchers.append(heard)
        try:
            yield
        finally:
            watchers.remove(heard)
            if not watchers:
                del self._watchers[key]

    async def changed(self, key: Key, seconds: float) -> None:
        """Returns when the object has changed, or after this time."""
        change = asyncio.Event()
        with self.watching(key, change.set), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await change.wait()

    def _take(self, view: V) -> V:
        known = self._rows.get(view.key)
        if known is not None and known.version >= view.version:
            return known
        self._rows[view.key] = view
        self._wake(view.key)
        return view

    def _drop(self, key: Key) -> None:
        del self._rows[key]
        self._wake(key)

    def _wake(self, key: Key) -> None:
        for heard in list(self._watchers.get(key, ())):
            heard()


class SessionTable(Table[SessionView]):
    """All sessions, which are also found by their pods."""

    def __init__(self) -> None:
        super().__init__(session_view)
        self._by_pod: dict[Key, set[Key]] = {}

    def of_pod(self, pod: Key) -> SessionView | None:
        """The session whose status names this pod; None if there is none.

        Nor if there are several: the pod's word alone does not say for which of them it speaks.
        """
        keys = self._by_pod.get(pod, ())
        return self.get(*keys) if len(keys) == 1 else None

    async def appears(self, pod: Key, seconds: float) -> SessionView | None:
        """The session of a pod, as soon as there is one; None if there is none after this time."""
        session = self.of_pod(pod)
        if session is None:
            await self.changed(_arrival(pod), seconds)
            session = self.of_pod(pod)
        return session

    def _take(self, view: SessionView) -> SessionView:
        known = self.get(view.key)
        taken = super()._take(view)
        if taken is not known:
            self._leave(known)
            if taken.pod is not None:
                pod = Key(taken.key.namespace, taken.pod)
                self._by_pod.setdefault(pod, set()).add(taken.key)
                self._wake(_arrival(pod))
        return taken

    def _drop(self, key: Key) -> None:
        self._leave(self.get(key))
        super()._drop(key)

    def _leave(self, view: SessionView | None) -> None:
        """Forgets the pod of what was known of a session."""
        if view is None or view.pod is None:
            return
        pod = Key(view.key.namespace, view.pod)
        keys = self._by_pod.get(pod, set())
        keys.discard(view.key)
        if not keys:
            self._by_pod.pop(pod, None)


def _arrival(pod: Key) -> Key:
    """Stands for a pod among the keys of sessions, none of which has a name like this."""
    return Key(pod.namespace, f"pods/{pod.name}")


class Directory:
    """Agents and sessions."""

    def __init__(self) -> None:
        self.agents = Table(agent_view)
        self.sessions = SessionTable()

    @property
    def filled(self) -> bool:
        """Whether both first lists have been seen: before that, nothing can be said to be missing."""
        return self.agents.filled and self.sessions.filled

    def working(self, key: Key) -> SessionView:
        """A session that works, or sleeps, or will work by itself. Raises `SessionGone` or `SessionStalled`."""
        session = self.sessions.get(key)
        if session is None or session.deleting:
            raise SessionGone
        if session.stalled is not None:
            raise SessionStalled(session.stalled)
        return session
