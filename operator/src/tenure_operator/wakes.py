"""Which objects must be looked at again when one has changed: pure, and the only place that knows the dependencies.

What only counts other objects is asked for with a delay, so that a thousand sessions that become ready do not mean a
thousand writes to the status of their agent, nor one session two.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tenure_api.agent import Isolation
from tenure_api.conditions import ConditionType, Reason
from tenure_api.names import API_VERSION, RECOVERED_ANNOTATION, SESSION_LABEL, WAKE_ANNOTATION
from tenure_api.session import EffectiveMode
from tenure_operator.cache import Cache, Change, agent_of, host_for, name_of, policy_of, warm_for
from tenure_operator.kinds import AGENTS, BY_NAME, HOSTS, PODS, POLICIES, POOLS, SESSIONS, Key, Manifest

COUNT_DELAY = 10.0
"""Seconds after which an agent's count of its sessions is brought up to date: longer than a session takes to start."""
PROGRESS_DELAY = 3.0
"""Seconds after which a policy's count of the sessions that it has reached is brought up to date."""
DELIVERY_DELAY = 5.0
"""Seconds that a sidecar has for a new policy before its session says that it is not delivered."""


class Wake(NamedTuple):
    """A key to ask for, in `delay` seconds."""

    key: Key
    delay: float = 0.0


def wakes(cache: Cache, change: Change) -> Iterator[Wake]:
    """What a change asks for. The cache already knows the change."""
    if change.kind is SESSIONS:
        yield from _of_session(cache, change)
    elif change.kind is AGENTS:
        yield from _of_agent(cache, change)
    elif change.kind is POLICIES:
        yield from _of_policy(cache, change)
    else:
        yield from _of_child(cache, change)


def _identity(manifest: Manifest | None) -> Any:
    """What a user or the garbage collector can change of an object that we reconcile."""
    if manifest is None:
        return None
    meta = manifest["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp")


def ready_status(manifest: Manifest | None) -> tuple[str, int] | None:
    """Status and observed generation of the condition Ready."""
    for condition in (manifest or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return condition["status"], condition.get("observedGeneration", 0)
    return None


def failing(session: Manifest) -> str | None:
    """What is said of a session whose pod does not run as it is; None of others."""
    for condition in session.get("status", {}).get("conditions", []):
        if condition["type"] == ConditionType.STALLED and condition["reason"] == Reason.POD_FAILING:
            said: str = condition.get("message", "")
            return said
    return None


def recovered_of(session: Manifest | None) -> str | None:
    """The call with an unknown outcome that a person says was looked into, as `<turn>/<step>`."""
    annotations = (session or {}).get("metadata", {}).get("annotations", {})
    found: str | None = annotations.get(RECOVERED_ANNOTATION)
    return found


def wake_of(session: Manifest | None) -> int | None:
    """The lease generation that somebody wants to be over; None if nobody does, or what is written is no number."""
    written = (session or {}).get("metadata", {}).get("annotations", {}).get(WAKE_ANNOTATION, "")
    return int(written) if len(written) < 10 and written.isascii() and written.isdigit() else None


def is_hibernated(session: Manifest) -> bool:
    """Whether the session sleeps."""
    return bool(session.get("status", {}).get("effectiveMode") == EffectiveMode.HIBERNATED)


def is_running(session: Manifest) -> bool:
    """Whether the session has a pod that takes turns."""
    return (ready_status(session) or ("",))[0] == "True" and not is_hibernated(session)


def warm_pool_size(agent: Manifest | None) -> int:
    """How many sets an agent wants to be kept ahead."""
    template = (agent or {}).get("spec", {}).get("session") or {}
    found: int = (template.get("warmPool") or {}).get("size", 0)
    return found


def is_shared(agent: Manifest | None) -> bool:
    """Whether the sessions of an agent share pods."""
    template = (agent or {}).get("spec", {}).get("session") or {}
    return bool(template.get("isolation") == Isolation.SHARED)


def _asked(session: Manifest | None) -> Any:
    """What people and gateways ask of a session by annotations."""
    return recovered_of(session), wake_of(session)


def _counted(session: Manifest | None) -> Any:
    if session is None:
        return None
    status = session.get("status", {})
    mode = status.get("effectiveMode")
    ready = ready_status(session)
    return agent_of(session), ready, failing(session), mode, status.get("podIP"), status.get("policy")


def _either(change: Change) -> Manifest:
    manifest = change.new or change.old
    if manifest is None:
        raise ValueError("a change has an object before or after")
    return manifest


def _of_session(cache: Cache, change: Change) -> Iterator[Wake]:
    session = _either(change)
    if _identity(change.old) != _identity(change.new) or _asked(change.old) != _asked(change.new):
        yield Wake(Key(SESSIONS, *name_of(session)))
    if _counted(change.old) != _counted(change.new):
        agent = agent_of(session)
        yield Wake(Key(AGENTS, *agent), COUNT_DELAY)
        found = cache.get(AGENTS, *agent)
        if found is not None and (policy := policy_of(found)):
            yield Wake(Key(POLICIES, *policy), PROGRESS_DELAY)
    if change.new is None and cache.hosts_of(agent_of(session)):
        yield Wake(Key(HOSTS, *agent_of(session)))  # which keeps its state
    if change.new is None and cache.warm_of(agent_of(session)):
        yield Wake(Key(POOLS, *agent_of(session)))  # it may have been given a set that is not labelled as its own yet


def _of_agent(cache: Cache, change: Change) -> Iterator[Wake]:
    agent = _either(change)
    changed = _identity(change.old) != _identity(change.new)
    if changed:
        yield Wake(Key(AGENTS, *name_of(agent)))
    if changed or ready_status(change.old) != ready_status(change.new):
        for session in cache.sessions_of(name_of(agent)):
            yield Wake(Key(SESSIONS, *name_of(session)))
        if is_shared(change.old) or is_shared(change.new):
            yield Wake(Key(HOSTS, *name_of(agent)))
        if warm_pool_size(change.old) or warm_pool_size(change.new) or cache.warm_of(name_of(agent)):
            yield Wake(Key(POOLS, *name_of(agent)))
    before, after = change.old and policy_of(change.old), change.new and policy_of(change.new)
    if before != after:
        for policy in (before, after):
            if policy:
                yield Wake(Key(POLICIES, *policy), PROGRESS_DELAY)


def _of_policy(cache: Cache, change: Change) -> Iterator[Wake]:
    policy = _either(change)
    if _identity(change.old) == _identity(change.new):
        return
    yield Wake(Key(POLICIES, *name_of(policy)))
    for agent in cache.agents_with(name_of(policy)):
        yield Wake(Key(AGENTS, *name_of(agent)))
        for session in cache.sessions_of(name_of(agent)):
            yield Wake(Key(SESSIONS, *name_of(session)), DELIVERY_DELAY)


def _of_child(cache: Cache, change: Change) -> Iterator[Wake]:
    if (agent := host_for(_either(change))) is not None:
        yield Wake(Key(HOSTS, *agent))
        for session in cache.sessions_of(agent) if change.kind is PODS else ():
            yield Wake(Key(SESSIONS, *name_of(session)))
        return
    for agent in {warm_for(change.old), warm_for(change.new)}:
        if agent is not None:
            yield Wake(Key(POOLS, *agent))
    if warm_for(change.new):
        return
    meta = _either(change)["metadata"]
    for reference in meta.get("ownerReferences", []):
        if reference["apiVersion"] == API_VERSION and reference["kind"] in BY_NAME:
            yield Wake(Key(BY_NAME[reference["kind"]], meta["namespace"], reference["name"]))
    if not meta.get("ownerReferences") and (session := meta.get("labels", {}).get(SESSION_LABEL)):
        yield Wake(Key(SESSIONS, meta["namespace"], session))  # a volume that is to be retained has no owner
