"""What to do for a session: pure. `Observed` in, `Plan` out."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tenure_api import names
from tenure_api.agent import AgentSpec, WhenDeleted
from tenure_api.conditions import ConditionStatus, Reason
from tenure_api.names import POD_HASH_ANNOTATION
from tenure_api.report import JournalState, Report
from tenure_api.session import AgentSession, ForkFrom, Lineage
from tenure_operator.desired.claim import claim, claim_as_kept, grown, requested
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.network import network
from tenure_operator.desired.pod import pod_labels
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import Manifest, Meta
from tenure_operator.reconcile import forks, nodes, pods, sleep
from tenure_operator.reconcile.children import Child, Create, Repair, Standing, is_deleting, step
from tenure_operator.reconcile.forks import SourceSeen
from tenure_operator.reconcile.sleep import Sleep
from tenure_operator.reconcile.verdict import Progress, Verdict, stalled, waiting
from tenure_operator.sidecars import Address
from tenure_operator.sightings import Sighting

FOREIGN_SECONDS = 10.0
"""How often an object that stands in our way is looked at again: no watch tells of it."""
STALE_SECONDS = 5.0
KEY_SECONDS = 10.0
"""How often a lost key is asked for again."""
TURN_SECONDS = 2.0
RESTORE_SECONDS = 1.0
"""How often a session that is made from another looks whether that one runs."""
ROLLOUT_SECONDS = 30.0


@dataclass(frozen=True)
class ObservedAgent:
    """The agent of a session."""

    meta: Meta
    spec: AgentSpec
    ready: bool | None
    """None while its current generation has not been looked at."""
    pod_hash: str
    """Of the template of its pods."""
    problem: str = ""
    rollout_blocked: bool = False
    """Another of its sessions has a pod to the current settings that is not ready, or is being replaced."""


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
    idle: float | None = None
    """Seconds for which nothing has happened in its pod; None if something happens, or nothing is known."""
    sleep: Sleep = Sleep()  # noqa: RUF009 - frozen
    lineage: Lineage | None = None
    recovered: str | None = None
    """The call with an unknown outcome that a person has looked into, as `<turn>/<step>`."""
    trouble: nodes.Trouble | None = None
    """What is wrong with the nodes of its pod and volume."""
    source: SourceSeen | None = None
    """The session that it is made from, while it is."""
    growth_refused: str | None = None
    """The size that the API server has refused to let its claim grow to."""

    @property
    def set_name(self) -> str:
        """What its objects are named after."""
        return self.session.status.set_name or self.meta.name

    @property
    def set(self) -> SetOf:
        """The set that it runs on."""
        spec = self.session.spec
        retained = self.agent is not None and self.agent.spec.session.storage.when_deleted is WhenDeleted.RETAIN
        return SetOf.of_session(self.meta, self.set_name, spec.agent_ref.name, spec.subject, retained)

    @property
    def report(self) -> Report | None:
        """What the sidecar in its pod has said last."""
        return self.sighting.report if self.sighting else None


@dataclass(frozen=True)
class CreateKey:
    """Make the key of the session's claim, unless it exists."""


@dataclass(frozen=True)
class StartPod:
    """Take the lease for a new run and say so, then make the pod."""

    generation: int


@dataclass(frozen=True)
class Grow:
    """Have the claim grow, if its StorageClass lets it."""

    manifest: Manifest
    size: str


@dataclass(frozen=True)
class Restore:
    """Bring the session the state of the one that it is made from."""

    source: Address
    fork: ForkFrom


@dataclass(frozen=True)
class Hibernate:
    """Have the sidecar take no more turns, since the session is to sleep; the pod is deleted at the next look."""

    pod: Manifest
    idle_seconds: float


@dataclass(frozen=True)
class EndPod:
    """Delete the session's pod. `between_turns`: only if its sidecar says that it is idle."""

    pod: Manifest
    between_turns: bool
    in_turn: bool = False
    """One session of an agent after the other."""


@dataclass(frozen=True)
class GiveUp:
    """Delete a pod without waiting for its node."""

    pod: Manifest


Step = CreateKey | Create | Repair | Grow | StartPod | Restore | Hibernate | EndPod | GiveUp


@dataclass(frozen=True)
class Plan:
    """Steps in their order, and what to say. No verdict: nothing is said yet."""

    steps: list[Step] = field(default_factory=list)
    verdict: Verdict | None = None
    again: float | None = None
    lost_volume: bool = False
    """The volume that the status speaks of is gone, and the session begins anew."""
    asleep: bool = False
    """The status is to say that the session sleeps."""


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
    if sleep.is_asleep(seen.session) and not sleep.is_to_wake(seen.session, seen.sleep, now):
        return _sleep_on(seen, around, now)
    if seen.agent is None:
        return _without_agent(seen, around)
    if seen.pod.live is None and (why := forks.obstacle(seen.session, seen.source)) is not None:
        return Plan(verdict=why, again=STALE_SECONDS)
    if seen.claim.live is None and seen.pod.live is None:
        return _start(seen, seen.agent, around)
    return _continue(seen, seen.agent, around, now)


def _network(seen: Observed, around: Surroundings) -> list[Create | Repair]:
    return step(seen.network, network(seen.set, around.namespace, around.excepted))


def _without_agent(seen: Observed, around: Surroundings) -> Plan:
    """What runs goes on running, walled in as ever; nothing is made."""
    runs = seen.pod.live is not None
    name = seen.session.spec.agent_ref.name
    said = f"There is no Agent {name} in this namespace: create it. " + (
        "The pod runs on with its last configuration." if runs else "The session starts when it is there."
    )
    steps: list[Step] = [*_network(seen, around)] if runs else []
    return Plan(steps, waiting(Reason.AGENT_NOT_FOUND, said))


# --- asleep --------------------------------------------------------------------------------------------------------


def _sleep_on(seen: Observed, around: Surroundings, now: datetime) -> Plan:
    """A session that sleeps: its volume is kept as it should be, and a pod that it still has ends."""
    steps: list[Step] = [*_network(seen, around)] if seen.network.live is not None else []
    if seen.agent is not None and seen.claim.live is not None:
        steps += _claim(seen, seen.agent, seen.claim.live)
    if seen.pod.live is not None and not is_deleting(seen.pod.live):
        steps.append(EndPod(seen.pod.live, between_turns=not pods.has_ended(seen.pod.live)))
    return Plan(steps, sleep.asleep(seen.session), sleep.until_awake(seen.session, now), asleep=True)


# --- awake ---------------------------------------------------------------------------------------------------------


def _start(seen: Observed, agent: ObservedAgent, around: Surroundings) -> Plan:
    """A session without a volume: a new one, or one whose volume was deleted."""
    lost_volume = seen.session.status.volume_claim_name is not None
    if agent.ready is None:
        return Plan()
    if not agent.ready:
        said = f"Agent {agent.meta.name} is not ready: {agent.problem}"
        return Plan(verdict=waiting(Reason.AGENT_NOT_READY, said), lost_volume=lost_volume)
    steps: list[Step] = [
        *step(seen.claim, claim(seen.set, agent.spec.session.storage)),
        CreateKey(),
        *_network(seen, around),
        StartPod(sleep.generation_of(seen.session) + 1),
    ]
    return Plan(steps, pods.starting(names.session_pod(seen.set_name)), lost_volume=lost_volume)


def _claim(seen: Observed, agent: ObservedAgent, live: Manifest) -> list[Step]:
    steps: list[Step] = [*step(seen.claim, claim_as_kept(seen.set))]
    bigger = grown(seen.set, live, agent.spec.session.storage)
    size = agent.spec.session.storage.size
    if bigger is not None and seen.growth_refused != size and not is_deleting(live):
        steps.append(Grow(bigger, size))
    return steps


def _continue(seen: Observed, agent: ObservedAgent, around: Surroundings, now: datetime) -> Plan:
    steps: list[Step] = [*_network(seen, around)]
    if seen.claim.live is None:  # deleted under a pod that waits for it; that pod waits for its key too
        steps += [*step(seen.claim, claim(seen.set, agent.spec.session.storage)), CreateKey()]
    else:
        steps += _claim(seen, agent, seen.claim.live)
    if seen.pod.live is None:
        plan = _make_pod(seen)
    else:
        # First: the end of a pod from a warm pool must be told to the session, whatever it comes of.
        steps += step(seen.pod, pod_labels(seen.set))
        plan = _keep_pod(seen, seen.pod.live, agent, now)
    return replace(plan, steps=[*steps, *plan.steps])


def _make_pod(seen: Observed) -> Plan:
    if seen.claim.live is not None and is_deleting(seen.claim.live):
        return Plan(verdict=waiting(Reason.VOLUME_PENDING, "The volume is being deleted; a new one is made after it."))
    first: list[Step] = []
    if seen.key_exists is False:
        if sleep.generation_of(seen.session) > 0 and seen.claim.live is not None:
            name = names.session_key(seen.set_name, seen.claim.live["metadata"]["uid"])
            said = (
                f"Secret {name} with the data key is gone; without it the journal cannot be read. "
                "Restore it from a backup."
            )
            return Plan(verdict=stalled(Reason.KEY_LOST, said), again=KEY_SECONDS)
        first.append(CreateKey())  # the claim was made by a run of ours that got no further
    verdict = pods.starting(names.session_pod(seen.set_name))
    return Plan([*first, StartPod(sleep.generation_of(seen.session) + 1)], verdict)


def _keep_pod(seen: Observed, live: Manifest, agent: ObservedAgent, now: datetime) -> Plan:
    if seen.trouble is not None:
        return Plan([GiveUp(live)] if seen.trouble.give_up else [], seen.trouble.verdict, seen.trouble.again)
    outdated = is_outdated(live, agent.pod_hash)
    if is_deleting(live):
        reason = Reason.UPDATING if outdated else Reason.POD_STARTING
        ending = waiting(reason, "The previous pod is ending; a new one is made after it.")
        return Plan(verdict=ending, again=nodes.look_again(live, now))
    if pods.has_ended(live):
        said = f"The pod has ended and is made anew: {pods.why_ended(live)}"
        return Plan([EndPod(live, between_turns=False)], waiting(Reason.POD_STARTING, said))
    if sleep.is_asleep(seen.session):
        # Woken before its last pod was deleted. A lease is for one pod, so this one goes first.
        return Plan([EndPod(live, between_turns=True)], waiting(Reason.POD_STARTING, "The session is being woken."))
    if seen.report is not None and seen.report.journal is JournalState.SUPERSEDED:
        said = "Another run of the session has had its journal since. The pod is replaced by one with a newer lease."
        return Plan([EndPod(live, between_turns=False)], waiting(Reason.SUPERSEDED, said))
    judged = pods.judge(live, seen.claim.live, seen.report, now)
    if outdated:
        return _update(seen, live, agent, judged)
    if judged.verdict.reason is Reason.RESTORING:
        if (why := forks.obstacle(seen.session, seen.source)) is not None:
            return Plan(verdict=why, again=STALE_SECONDS)
        return Plan([*_restore(seen)], judged.verdict, RESTORE_SECONDS)
    if judged.verdict.is_ready:
        return _use(seen, live, agent, now)
    return Plan([], judged.verdict, judged.again)


def _restore(seen: Observed) -> list[Restore]:
    """As soon as the other session runs. A bundle that is imported is brought by who has it."""
    fork = forks.fork_of(seen.session)
    if fork is None or seen.source is None or seen.source.address is None:
        return []
    return [Restore(seen.source.address, fork)]


def _use(seen: Observed, live: Manifest, agent: ObservedAgent, now: datetime) -> Plan:
    """A pod that is ready: runs on, sleeps when it has been idle for long enough, and is replaced when it is old."""
    template = agent.spec.session
    patience = sleep.patience(seen.session, seen.sleep, template.idle_timeout_seconds)
    if seen.idle is not None and not seen.sleep.needed:
        left = patience - seen.idle
        if left <= 0:
            return Plan([Hibernate(live, patience)], sleep.asleep(seen.session), 0.0, asleep=True)
    else:
        left = None
    if template.max_lifetime_seconds is not None:
        age = (now - datetime.fromisoformat(live["metadata"]["creationTimestamp"])).total_seconds()
        if age >= template.max_lifetime_seconds:
            if seen.idle is None:
                return Plan([], _outdated("its turn has not ended"), TURN_SECONDS)
            said = "The pod has reached session.maxLifetimeSeconds and is replaced between two turns."
            return Plan([EndPod(live, between_turns=True)], waiting(Reason.UPDATING, said))
        left = min(left, template.max_lifetime_seconds - age) if left else template.max_lifetime_seconds - age
    return Plan([], pods.READY, left)


def _update(seen: Observed, live: Manifest, agent: ObservedAgent, judged: pods.Judgement) -> Plan:
    """Replaces a pod that was made to an older template: at once if it is of no use, else in turn and between turns."""
    if not judged.verdict.is_ready:
        said = "The pod is replaced by one with the agent's current settings."
        return Plan([EndPod(live, between_turns=False)], waiting(Reason.UPDATING, said))
    if agent.rollout_blocked:
        return Plan(verdict=_outdated("another session of this agent is not ready"), again=ROLLOUT_SECONDS)
    if seen.idle is None:
        return Plan(verdict=_outdated("its turn has not ended"), again=TURN_SECONDS)
    end = EndPod(live, between_turns=True, in_turn=True)
    return Plan([end], waiting(Reason.UPDATING, "The pod is replaced between two turns."))


def _outdated(why: str) -> Verdict:
    said = f"The session accepts turns. Its pod will be replaced by one with the agent's current settings: {why}."
    return Verdict(ConditionStatus.TRUE, Reason.READY, said, Progress.RECONCILING)


def is_outdated(live: Manifest, wanted_hash: str) -> bool:
    """Whether a pod was made to another template than the agent's current one."""
    annotations: dict[str, Any] = live["metadata"].get("annotations", {})
    return annotations.get(POD_HASH_ANNOTATION) != wanted_hash


def growth(seen: Observed) -> tuple[str, str] | None:
    """The size that the claim has and the one that it should have, while it is too small."""
    live = seen.claim.ours
    if seen.agent is None or live is None:
        return None
    storage = seen.agent.spec.session.storage
    return (requested(live), storage.size) if grown(seen.set, live, storage) else None
