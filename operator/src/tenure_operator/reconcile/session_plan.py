"""What to do for a session: pure. `Observed` in, `Plan` out."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tenure_api import names
from tenure_api.agent import AgentSpec
from tenure_api.conditions import ConditionStatus, Reason
from tenure_api.names import POD_HASH_ANNOTATION
from tenure_api.session import AgentSession, Lineage
from tenure_api.wire import Report
from tenure_operator.desired.claim import claim
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.network import network
from tenure_operator.desired.pod import pod, pod_hash, pod_labels
from tenure_operator.kinds import Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import Child, Create, Repair, Standing, is_deleting, step
from tenure_operator.reconcile.verdict import Progress, Verdict, stalled, waiting
from tenure_operator.sightings import Sighting

FOREIGN_SECONDS = 10.0
"""How often an object that stands in our way is looked at again: no watch tells of it."""
STALE_SECONDS = 5.0
KEY_SECONDS = 10.0
"""How often a lost key is asked for again."""
TURN_SECONDS = 2.0
ROLLOUT_SECONDS = 30.0


@dataclass(frozen=True)
class ObservedAgent:
    """The agent of a session."""

    meta: Meta
    spec: AgentSpec
    ready: bool | None
    """None while its current generation has not been looked at."""
    problem: str = ""
    rollout_blocked: bool = False
    """Another of its sessions has a pod that is not ready, or is being replaced."""


@dataclass(frozen=True)
class Observed:
    """All that is known of a session."""

    meta: Meta
    session: AgentSession
    agent: ObservedAgent | None
    network: Child
    claim: Child
    pod: Child
    key_exists: bool | None = None
    """Asked only when a pod must be made on an existing claim."""
    sighting: Sighting | None = None
    lineage: Lineage | None = None
    recovered: str | None = None
    """The call with an unknown outcome that a person has looked into, as `<turn>/<step>`."""


@dataclass(frozen=True)
class CreateKey:
    """Make the session's key, unless it exists."""


@dataclass(frozen=True)
class EndPod:
    """Delete the session's pod, to be made anew. `between_turns`: only if its sidecar says that it is idle."""

    pod: Manifest
    between_turns: bool


Step = CreateKey | Create | Repair | EndPod


@dataclass(frozen=True)
class Plan:
    """Steps in their order, and what to say. No verdict: nothing is said yet."""

    steps: list[Step] = field(default_factory=list)
    verdict: Verdict | None = None
    again: float | None = None
    lost_volume: bool = False
    """The volume that the status speaks of is gone, and the session begins anew."""


@dataclass(frozen=True)
class Surroundings:
    """What the manifests of all sessions depend on."""

    namespace: str
    pods: PodSettings
    excepted: tuple[str, ...]


def decide(seen: Observed, around: Surroundings, now: datetime) -> Plan:
    """The plan for a session that is not being deleted."""
    for child in (seen.network, seen.claim, seen.pod):
        if child.standing is Standing.FOREIGN:
            said = f"{child.name} is not Tenure's but has the name that this session needs: rename or delete it."
            return Plan(verdict=stalled(Reason.NAME_CONFLICT, said), again=FOREIGN_SECONDS)
        if child.standing is Standing.STALE:
            said = f"{child.name} of a deleted session of the same name is still being removed."
            return Plan(verdict=waiting(Reason.PROGRESSING, said), again=STALE_SECONDS)
    if seen.agent is None:
        return _without_agent(seen, around)
    if seen.claim.live is None and seen.pod.live is None:
        return _start(seen, seen.agent, around)
    return _continue(seen, seen.agent, around, now)


def _agent_name(seen: Observed) -> str:
    return seen.session.spec.agent_ref.name


def _network(seen: Observed, around: Surroundings) -> list[Create | Repair]:
    return step(seen.network, network(seen.meta, _agent_name(seen), around.namespace, around.excepted))


def _without_agent(seen: Observed, around: Surroundings) -> Plan:
    """What runs goes on running, walled in as ever; nothing is made."""
    runs = seen.pod.live is not None
    name = _agent_name(seen)
    said = f"There is no Agent {name} in this namespace: create it. " + (
        "The pod runs on with its last configuration." if runs else "The session starts when it is there."
    )
    steps: list[Step] = [*_network(seen, around)] if runs else []
    return Plan(steps, waiting(Reason.AGENT_NOT_FOUND, said))


def _start(seen: Observed, agent: ObservedAgent, around: Surroundings) -> Plan:
    """A session without a volume: a new one, or one whose volume was deleted."""
    lost_volume = seen.session.status.volume_claim_name is not None
    if agent.ready is None:
        return Plan()
    if not agent.ready:
        said = f"Agent {agent.meta.name} is not ready: {agent.problem}"
        return Plan(verdict=waiting(Reason.AGENT_NOT_READY, said), lost_volume=lost_volume)
    made = pod(seen.meta, agent.meta.name, agent.spec, around.pods)
    steps: list[Step] = [
        CreateKey(),  # first: a volume without a key would look like a key that was lost
        *_network(seen, around),
        *step(seen.claim, claim(seen.meta, agent.meta.name, agent.spec.session.storage)),
        Create(seen.pod.kind, made),
    ]
    return Plan(steps, pods.starting(made), lost_volume=lost_volume)


def _continue(seen: Observed, agent: ObservedAgent, around: Surroundings, now: datetime) -> Plan:
    steps: list[Step] = [*_network(seen, around)]
    wanted_claim = claim(seen.meta, agent.meta.name, agent.spec.session.storage)
    if seen.claim.live is None:  # deleted under a pod that waits for it
        steps += [CreateKey(), *step(seen.claim, wanted_claim)]
    else:
        steps += step(seen.claim, {key: value for key, value in wanted_claim.items() if key != "spec"})
    if seen.pod.live is None:
        plan = _make_pod(seen, agent, around)
    else:
        plan = _keep_pod(seen, seen.pod.live, agent, around, now)
    return replace(plan, steps=[*steps, *plan.steps])


def _make_pod(seen: Observed, agent: ObservedAgent, around: Surroundings) -> Plan:
    if seen.claim.live is not None and is_deleting(seen.claim.live):
        return Plan(verdict=waiting(Reason.VOLUME_PENDING, "The volume is being deleted; a new one is made after it."))
    if seen.key_exists is False:
        name = names.session_key(seen.meta.name, seen.meta.uid)
        said = (
            f"Secret {name} with the data key is gone; without it the journal cannot be read. Restore it from a backup."
        )
        return Plan(verdict=stalled(Reason.KEY_LOST, said), again=KEY_SECONDS)
    made = pod(seen.meta, agent.meta.name, agent.spec, around.pods)
    return Plan([Create(seen.pod.kind, made)], pods.starting(made))


def _keep_pod(seen: Observed, live: Manifest, agent: ObservedAgent, around: Surroundings, now: datetime) -> Plan:
    outdated = is_outdated(live, pod_hash(agent.meta.name, agent.spec, around.pods))
    if is_deleting(live):
        reason = Reason.UPDATING if outdated else Reason.POD_STARTING
        return Plan(verdict=waiting(reason, "The previous pod is ending; a new one is made after it."))
    if pods.has_ended(live):
        said = f"The pod has ended and is made anew: {pods.why_ended(live)}"
        return Plan([EndPod(live, between_turns=False)], waiting(Reason.POD_STARTING, said))
    judged = pods.judge(live, seen.claim.live, seen.sighting.report if seen.sighting else None, now)
    if outdated:
        return _update(seen, live, agent, judged)
    fixed = step(seen.pod, pod_labels(seen.meta, agent.meta.name))
    return Plan([*fixed], judged.verdict, judged.again)


def _update(seen: Observed, live: Manifest, agent: ObservedAgent, judged: pods.Judgement) -> Plan:
    """Replaces a pod that was made to an older template: at once if it is of no use, else in turn and between turns."""
    if not judged.verdict.is_ready:
        said = "The pod is replaced by one with the agent's current settings."
        return Plan([EndPod(live, between_turns=False)], waiting(Reason.UPDATING, said))
    report = seen.sighting.report if seen.sighting else None
    if agent.rollout_blocked:
        return Plan(verdict=_outdated("another session of this agent is not ready"), again=ROLLOUT_SECONDS)
    if report is None or not is_idle(report):
        return Plan(verdict=_outdated("its turn has not ended"), again=TURN_SECONDS)
    return Plan([EndPod(live, between_turns=True)], waiting(Reason.UPDATING, "The pod is replaced between two turns."))


def _outdated(why: str) -> Verdict:
    said = f"The session accepts turns. Its pod will be replaced by one with the agent's current settings: {why}."
    return Verdict(ConditionStatus.TRUE, Reason.READY, said, Progress.RECONCILING)


def is_idle(report: Report) -> bool:
    """Whether nothing is lost but time when the pod goes now. A turn that waits for a person may do so for days."""
    return report.active_turn is None or report.suspended is not None


def is_outdated(live: Manifest, wanted_hash: str) -> bool:
    """Whether a pod was made to another template than the agent's current one."""
    annotations: dict[str, Any] = live["metadata"].get("annotations", {})
    return annotations.get(POD_HASH_ANNOTATION) != wanted_hash
