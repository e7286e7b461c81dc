"""What state a session is in, since when, why, and what to do: a pure function of what the cluster holds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tenure_api.conditions import ConditionType, Reason
from tenure_api.names import WAKE_ANNOTATION
from tenure_api.session import EffectiveMode, HibernationReason, OperatingMode
from tenure_cli.ages import moment, parse, span
from tenure_cli.kube import Object

_EVENTS = 2
"""Events that are quoted; the latest."""


class State(StrEnum):
    """What a session does, in a word for programs."""

    DELETING = "Deleting"
    NEW = "New"
    """The operator has not looked at it yet."""
    ASLEEP = "Asleep"
    WAKING = "Waking"
    STARTING = "Starting"
    WAITING = "Waiting"
    """It cannot go on for now, and does so by itself as soon as the cause is gone."""
    STALLED = "Stalled"
    """It does not go on before somebody mends it."""
    AWAKE = "Awake"


@dataclass(frozen=True)
class Seen:
    """What the cluster holds of a session; None where there is none or it may not be seen. `now` has a time zone."""

    session: Object
    now: datetime
    agent: Object | None = None
    pod: Object | None = None
    claim: Object | None = None
    events: list[Object] = field(default_factory=list)


@dataclass(frozen=True)
class Note:
    """Something that is so, and what to do about it, if anything."""

    said: str
    todo: str = ""


@dataclass(frozen=True)
class Situation:
    """The answer."""

    state: State
    reason: str
    since: str | None
    """RFC 3339."""
    notes: list[Note]

    @property
    def text(self) -> str:
        """One paragraph."""
        todo = [note.todo for note in self.notes if note.todo]
        return " ".join([*(note.said for note in self.notes), *(todo or ["There is nothing to do."])])


_ADVICE = {
    Reason.KEY_LOST: "Restore the Secret that holds the data key from your backup; it goes on within ten seconds. "
    "Without it nobody can read the conversation, and all that is left is to delete the session.",
    Reason.KEY_MISMATCH: "Put back the Secret with the key that the journal was written with, then delete the pod.",
    Reason.JOURNAL_UNREADABLE: "Restore the volume from a backup, or delete the session.",
    Reason.NAME_CONFLICT: "Rename or delete the object that has the name.",
    Reason.AGENT_NOT_FOUND: "Create the Agent.",
    Reason.AGENT_NOT_READY: "Mend the Agent first: kubectl describe agent {agent} -n {namespace}.",
    Reason.POD_UNSCHEDULABLE: "Make room in the cluster: add a node, or let other pods go. If its volume is bound to "
    "one node, that is the node that needs room.",
    Reason.VOLUME_PENDING: "See what the provisioner says, and whether its StorageClass is there and has room: "
    "kubectl describe pvc {claim} -n {namespace}.",
    Reason.VOLUME_UNREACHABLE: "Bring back the node that holds the volume. If it is gone for good and the volume was "
    "on its own disk, the session lives on only in a backup or an export.",
    Reason.POD_FAILING: "See kubectl describe pod {pod} -n {namespace}, and kubectl logs {pod} -n {namespace} "
    "--all-containers.",
    Reason.SOURCE_UNAVAILABLE: "Mend or wake the session that it is forked from, or delete this one.",
    Reason.SOURCE_INVALID: "Delete it, and fork or import anew.",
}
"""What to do where the message of a condition does not say it for this command."""

_STARTING = {Reason.POD_STARTING, Reason.RESTORING, Reason.UPDATING, Reason.SUPERSEDED, Reason.PROGRESSING}
"""Reasons for which a session that is not ready is simply on its way."""
_LONG_SECONDS = 300
"""A session that is on its way for longer than this is worth a look."""


def condition(obj: Object | None, type_: str) -> Object | None:
    """A condition of an object, whatever its status."""
    found: list[Object] = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == type_), None)


def explain(seen: Seen) -> Situation:
    """The situation of a session."""
    state, reason, since, notes = _main(seen)
    if state is not State.DELETING:
        notes = [*notes, *_besides(seen)]
    return Situation(state, reason, since, notes)


def _main(seen: Seen) -> tuple[State, str, str | None, list[Note]]:
    metadata, status = seen.session["metadata"], seen.session.get("status") or {}
    name = f"Session {metadata['namespace']}/{metadata['name']}"
    if since := metadata.get("deletionTimestamp"):
        said = f"{name} has been on its way out{_for(since, seen.now)}: it is being deleted, with its volume and key."
        return State.DELETING, "Deleting", since, [Note(said)]
    ready = condition(seen.session, ConditionType.READY)
    stalled = _true(seen.session, ConditionType.STALLED)
    if ready is None:
        since = metadata.get("creationTimestamp")
        said = f"{name} was made {_ago(since, seen.now)}, and the operator has not looked at it yet."
        todo = (
            "If that lasts, see whether the operator runs: kubectl get pods -A -l app.kubernetes.io/component=operator"
        )
        return State.NEW, "New", since, [Note(said, todo)]
    reason, since = ready["reason"], ready.get("lastTransitionTime")
    if stalled is not None:
        since = stalled.get("lastTransitionTime") or since
        said = f"{name} has been unable to go on{_for(since, seen.now)} ({stalled['reason']}): {_sentence(stalled)}"
        return State.STALLED, stalled["reason"], since, [Note(said, _todo(seen, stalled["reason"])), *_evidence(seen)]
    if status.get("effectiveMode") == EffectiveMode.HIBERNATED:
        return _asleep(seen, name)
    if ready["status"] != "True":
        return _not_ready(seen, name, reason, since, ready)
    return State.AWAKE, reason, since, [_awake(seen, name, since)]


def _asleep(seen: Seen, name: str) -> tuple[State, str, str | None, list[Note]]:
    status, spec = seen.session["status"], seen.session["spec"]
    hibernation = status.get("hibernation") or {}
    since = hibernation.get("since")
    generation = (status.get("lease") or {}).get("generation", 0)
    asked = (seen.session["metadata"].get("annotations") or {}).get(WAKE_ANNOTATION)
    if asked == str(generation):
        said = f"{name} has been asked to wake, and the operator has not begun yet."
        return State.WAKING, "Asked", since, [Note(said)]
    kept = spec.get("operatingMode") == OperatingMode.HIBERNATED
    if kept:
        why, todo = (
            "as its spec.operatingMode says",
            f"To let it run: kubectl tenure wake {_key(seen)} (--keep for good).",
        )
    elif hibernation.get("reason") == HibernationReason.REQUESTED:
        return State.WAKING, "Asked", since, [Note(f"{name} slept on request, and is to run again: it is being woken.")]
    else:
        why, todo = "since nobody used it for a while", ""
    said = f"{name} has been asleep{_for(since, seen.now)}, {why}: its pod is gone, its volume is kept."
    if not kept:
        said += " The next request wakes it."
    wake_at = hibernation.get("wakeAt")
    if wake_at and not kept:
        said += f" It wakes by itself at {moment(wake_at)}, for a turn that waits until then."
    elif wake_at:
        said += f" A turn waits until {moment(wake_at)}, which does not wake it while it is kept asleep."
    return State.ASLEEP, hibernation.get("reason") or "Idle", since, [Note(said, todo)]


def _not_ready(
    seen: Seen, name: str, reason: str, since: str | None, ready: Object
) -> tuple[State, str, str | None, list[Note]]:
    if reason not in _STARTING:
        said = f"{name} has been unable to go on{_for(since, seen.now)} ({reason}): {_sentence(ready)}"
        return State.WAITING, reason, since, [Note(said, _todo(seen, reason)), *_evidence(seen)]
    generation = (seen.session["status"].get("lease") or {}).get("generation", 0)
    slept_before = generation > 1 and reason == Reason.POD_STARTING
    state, doing = (State.WAKING, "waking or starting again") if slept_before else (State.STARTING, "starting")
    began = parse(since)
    long = began is not None and (seen.now - began).total_seconds() > _LONG_SECONDS
    todo = _todo(seen, Reason.POD_FAILING) if long else "Wait; it goes on by itself."
    said = f"{name} has been {doing}{_for(since, seen.now)} ({reason}): {_sentence(ready)}"
    # Probes fail while a pod starts: that is worth telling only when it takes too long.
    return state, reason, since, [Note(said, todo), *(_evidence(seen) if long else ())]


def _awake(seen: Seen, name: str, since: str | None) -> Note:
    status = seen.session["status"]
    place = (seen.pod or {}).get("spec", {}).get("nodeName")
    on = f" in pod {status['podName']}" if status.get("podName") else ""
    on += f" on node {place}" if place else ""
    used = status.get("lastActivityTime")
    last = f" It was last used {_ago(used, seen.now)}." if used else " It has not been used yet."
    reconciling = _true(seen.session, ConditionType.RECONCILING)
    also = f" {_sentence(reconciling)}" if reconciling else ""
    if seen.session["spec"].get("operatingMode") == OperatingMode.HIBERNATED:
        also += " It sleeps again as soon as it is idle, as its spec.operatingMode says."
    return Note(f"{name} has been awake and taking turns{_for(since, seen.now)}{on}.{last}{also}")


# --- what else is so ---------------------------------------------------------------------------------------------


def _besides(seen: Seen) -> Iterator[Note]:
    yield from _turns(seen)
    yield from _volume(seen)
    model = condition(seen.session, ConditionType.MODEL_REACHABLE)
    if model is not None and model["status"] == "False":
        yield Note(f"Its model does not answer ({model['reason']}): {_sentence(model)}", "Mend the model's endpoint.")
    tools = condition(seen.session, ConditionType.TOOLS_AVAILABLE)
    if tools is not None and tools["status"] == "False":
        yield Note(f"Not all of its tools can be offered ({tools['reason']}): {_sentence(tools)}", "Mend these tools.")
    policy = condition(seen.session, ConditionType.POLICY_APPLIED)
    if policy is not None and policy["status"] == "False":
        yield Note(_sentence(policy))
    yield from _rollout(seen)
    expires = parse(seen.session["spec"].get("expiresAt"))
    if expires is not None:
        when = f"in {span(expires - seen.now)}" if expires > seen.now else "now"
        yield Note(f"It is deleted with its state {when}, at {moment(seen.session['spec']['expiresAt'])}.")


def _turns(seen: Seen) -> Iterator[Note]:
    suspended = _true(seen.session, ConditionType.TURN_SUSPENDED)
    if suspended is not None and suspended["reason"] == Reason.APPROVAL_PENDING:
        waits = f"A turn has been waiting for a person's approval{_for(suspended.get('lastTransitionTime'), seen.now)}"
        message = suspended.get("message", "")
        # The message of the condition goes on with how to decide by hand.
        which = message.split("decided on ", 1)[1].split(". ", 1)[0] if "decided on " in message else "a call"
        agent = seen.session["spec"]["agentRef"]["name"]
        decide = f"kubectl tenure chat {_namespace(seen)}/{agent} --session {_key(seen)}"
        yield Note(f"{waits}: {which}.", f"To decide on it: {decide}.")
    elif suspended is not None:
        yield Note(_sentence(suspended))
    recovery = _true(seen.session, ConditionType.RECOVERY_REQUIRED)
    if recovery is not None:
        yield Note(_sentence(recovery))


def _volume(seen: Seen) -> Iterator[Note]:
    health = condition(seen.session, ConditionType.VOLUME_HEALTHY)
    if health is not None and health["status"] == "False":
        yield Note(_sentence(health))


def _rollout(seen: Seen) -> Iterator[Note]:
    blocked = _true(seen.agent, ConditionType.ROLLOUT_BLOCKED)
    ours = (seen.session.get("status") or {}).get("revision")
    current = ((seen.agent or {}).get("status") or {}).get("revision")
    if blocked is not None and ours != current:
        agent = seen.session["spec"]["agentRef"]["name"]
        yield Note(
            f"The roll-out of its agent has been blocked{_for(blocked.get('lastTransitionTime'), seen.now)}, so it "
            f"stays at revision {ours or 'unknown'} instead of {current or 'the current one'}: {_sentence(blocked)}",
            f"Mend or undo the last change of agent {agent}.",
        )
    elif blocked is not None:
        yield Note(f"It runs its agent's current revision, whose roll-out is blocked: {_sentence(blocked)}")


def _evidence(seen: Seen) -> Iterator[Note]:
    """What pod, claim and events say of it."""
    if seen.claim is not None and (phase := (seen.claim.get("status") or {}).get("phase")) not in (None, "Bound"):
        yield Note(f"Its volume claim {seen.claim['metadata']['name']} is {phase}.")
    if seen.pod is not None and (phase := (seen.pod.get("status") or {}).get("phase")) not in (None, "Running"):
        yield Note(f"Its pod {seen.pod['metadata']['name']} is {phase}.")
    warnings = [event for event in seen.events if event.get("type") == "Warning"]
    known = (_message(condition(seen.session, ConditionType.READY)), _message(condition(seen.session, "Stalled")))
    fresh = [
        event for event in warnings if event.get("message") and not any(event["message"] in said for said in known)
    ]
    for event in sorted(fresh, key=event_time)[-_EVENTS:]:
        about = event.get("involvedObject") or {}
        what = f"{about.get('kind', 'object').lower()} {about.get('name', '')}".strip()
        yield Note(f"An event of {what} {_ago(event_time(event), seen.now)}: {_end(event['message'])}")


# --- words ---------------------------------------------------------------------------------------------------------


def event_time(event: Object) -> str:
    """When an event last happened, as RFC 3339."""
    series = event.get("series") or {}
    found: str = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
    return found


def _true(obj: Object | None, type_: str) -> Object | None:
    found = condition(obj, type_)
    return found if found is not None and found["status"] == "True" else None


def _message(found: Object | None) -> str:
    return (found or {}).get("message") or ""


def _sentence(found: Object) -> str:
    return _end(found.get("message") or found["reason"])


def _end(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _for(since: str | None, now: datetime) -> str:
    began = parse(since)
    return "" if began is None else f" for {span(now - began)}"


def _ago(since: str | None, now: datetime) -> str:
    began = parse(since)
    return "at an unknown time" if began is None else f"{span(now - began)} ago"


def _namespace(seen: Seen) -> str:
    found: str = seen.session["metadata"]["namespace"]
    return found


def _key(seen: Seen) -> str:
    return f"{_namespace(seen)}/{seen.session['metadata']['name']}"


def _todo(seen: Seen, reason: str) -> str:
    if reason not in list(Reason) or (advice := _ADVICE.get(Reason(reason))) is None:
        return ""
    status = seen.session.get("status") or {}
    return advice.format(
        agent=seen.session["spec"]["agentRef"]["name"],
        namespace=_namespace(seen),
        pod=status.get("podName") or (seen.pod or {}).get("metadata", {}).get("name") or "POD",
        claim=status.get("volumeClaimName") or (seen.claim or {}).get("metadata", {}).get("name") or "CLAIM",
    )
