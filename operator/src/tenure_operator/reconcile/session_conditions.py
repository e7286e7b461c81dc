"""The conditions of a session besides the summary ones: pure. What only a sidecar knows stays as it was without one."""

from dataclasses import dataclass
from datetime import UTC, datetime

from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tenure_api.configuration import EffectivePolicy
from tenure_api.names import RECOVERED_ANNOTATION
from tenure_api.report import Report, Suspension
from tenure_api.session import AgentSessionStatus, Hibernation, Lineage
from tenure_operator.desired.quantity import amount
from tenure_operator.kinds import Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.verdict import Verdict, condition
from tenure_operator.sightings import Sighting, is_nearly_full

NAMED_APPROVALS = 8
"""Approvals that a message names; a turn that waits for more of them is decided on step by step anyway."""


@dataclass(frozen=True)
class FactsOfAgent:
    """What the status of a session says about its agent."""

    generation: int
    tools: int
    """How many it has."""
    policy_name: str | None
    """The policy that it refers to."""


@dataclass(frozen=True)
class Facts:
    """What the status of a session is made of."""

    meta: Meta
    agent_name: str
    verdict: Verdict
    pod: Manifest | None
    claim: Manifest | None
    sighting: Sighting | None
    set_name: str = ""
    identity: str | None = None
    """Given if it is not the claim's UID."""
    lease: int | None = None
    """Generation of the lease that is taken now, for a pod that is about to be made."""
    hibernation: Hibernation | None = None
    """Given if the session sleeps, or is put to sleep."""
    revision: str | None = None
    """The agent's, if it is what the session runs."""
    growth: tuple[str, str] | None = None
    """The size of the claim and the one that the agent asks for, while it is too small."""
    growth_refused: bool = False
    agent: FactsOfAgent | None = None
    """None if there is none."""
    policy: EffectivePolicy | None = None
    """None if the agent refers to none, or to one that is missing."""
    lineage: Lineage | None = None
    recovered: str | None = None
    """The call that a person has looked into, as `<turn>/<step>`."""

    @property
    def report(self) -> Report | None:
        """What the sidecar has said, if the pod that runs has one that has said something."""
        return self.sighting.report if self.sighting else None

    @property
    def silent(self) -> bool:
        """Whether the sidecar does not answer although its pod is ready."""
        return bool(self.sighting and self.sighting.silent and self.pod and pods.is_ready(self.pod))

    def condition(self, type_: ConditionType, status: ConditionStatus, reason: str, message: str) -> Condition:
        """A condition on the generation that these facts are about."""
        return condition(type_, status, reason, message, self.meta.generation)


def reported_conditions(before: list[Condition], status: AgentSessionStatus, facts: Facts) -> list[Condition]:
    """The conditions to say. `status` is the new one, in all else."""
    return [
        *_model(before, facts),
        *_tools(before, facts),
        *_policy(status, facts),
        *_suspended(before, facts),
        *_recovery(status, facts),
        *_volume(before, facts),
    ]


def _kept(before: list[Condition], type_: ConditionType, facts: Facts) -> list[Condition]:
    kept = [known for known in before if known.type == type_]
    return [known.model_copy(update={"observed_generation": facts.meta.generation}) for known in kept]


def _unasked(type_: ConditionType, facts: Facts) -> list[Condition]:
    problem = facts.sighting.problem if facts.sighting else ""
    said = f"The sidecar cannot be asked: {problem}"
    return [facts.condition(type_, ConditionStatus.UNKNOWN, Reason.UNREACHABLE, said)]


def _model(before: list[Condition], facts: Facts) -> list[Condition]:
    type_, report = ConditionType.MODEL_REACHABLE, facts.report
    if facts.silent:
        return _unasked(type_, facts)
    if report is None:
        return _kept(before, type_, facts)
    status: dict[str, ConditionStatus] = {
        Reason.ANSWERING: ConditionStatus.TRUE,
        Reason.NOT_YET_CALLED: ConditionStatus.UNKNOWN,
    }
    found = status.get(report.model.reason, ConditionStatus.FALSE)
    return [facts.condition(type_, found, report.model.reason, report.model.message)]


def _tools(before: list[Condition], facts: Facts) -> list[Condition]:
    """A sidecar that has not been told of the agent's current tools speaks of others."""
    type_, report = ConditionType.TOOLS_AVAILABLE, facts.report
    if facts.agent is not None and not facts.agent.tools:
        return []
    if facts.silent and facts.agent:
        return _unasked(type_, facts)
    if report is None or facts.agent is None or report.agent_generation != facts.agent.generation:
        return _kept(before, type_, facts)
    if not report.tools:
        said = "The functions of all tools can be offered to the model."
        return [facts.condition(type_, ConditionStatus.TRUE, Reason.AVAILABLE, said)]
    said = " ".join(f"Tool {tool.name}: {tool.message}" for tool in report.tools)
    return [facts.condition(type_, ConditionStatus.FALSE, report.tools[0].reason, said)]


def _policy(status: AgentSessionStatus, facts: Facts) -> list[Condition]:
    """By what the sidecar has acknowledged, in its report or as the status remembers it."""
    name = facts.agent.policy_name if facts.agent else None
    if name is None:
        return []
    type_, seen, wanted = ConditionType.POLICY_APPLIED, status.policy, facts.policy
    if wanted is None:
        kept = "The session keeps to the last policy that it was given." if seen else "No policy was given yet."
        said = f"There is no MemoryPolicy {name} in this namespace: create it. {kept}"
        return [facts.condition(type_, ConditionStatus.FALSE, Reason.POLICY_NOT_FOUND, said)]
    what = f"generation {wanted.generation} of MemoryPolicy {wanted.name}"
    report = facts.report
    same_object = report is None or report.policy is None or report.policy.uid == wanted.uid
    if seen and (seen.name, seen.generation) == (wanted.name, wanted.generation) and same_object:
        return [facts.condition(type_, ConditionStatus.TRUE, Reason.DELIVERED, f"The sidecar enforces {what}.")]
    said = f"The sidecar has not acknowledged {what} yet."
    return [facts.condition(type_, ConditionStatus.FALSE, Reason.DELIVERING, said)]


def _suspended(before: list[Condition], facts: Facts) -> list[Condition]:
    """A turn that waits for a person waits on without a pod."""
    type_, report = ConditionType.TURN_SUSPENDED, facts.report
    if report is None:
        return _kept(before, type_, facts)
    waits = report.suspended
    if waits is None:
        return []
    if waits.approvals:
        said = _approvals(waits, facts)
        return [facts.condition(type_, ConditionStatus.TRUE, Reason.APPROVAL_PENDING, said)]
    if waits.until is None:
        return []
    said = f"Turn {waits.turn} goes on by itself at {_utc(waits.until)}."
    return [facts.condition(type_, ConditionStatus.TRUE, Reason.WAITING_UNTIL, said)]


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _approvals(waits: Suspension, facts: Facts) -> str:
    named = [f"{approval.function} ({approval.id})" for approval in waits.approvals[:NAMED_APPROVALS]]
    more = len(waits.approvals) - len(named)
    which = ", ".join(named) + (f" and {more} more" if more else "")
    answer = f'{{"type": "mcp_approval_response", "approval_request_id": "{waits.approvals[0].id}", "approve": true}}'
    where = f"{facts.meta.namespace}/{facts.meta.name}"
    body = f'{{"model": "{facts.meta.namespace}/{facts.agent_name}", "conversation": "{where}", "input": [{answer}]}}'
    return (
        f"Turn {waits.turn} waits until a person has decided on {which}. "
        f"See the arguments in the response, or with `kubectl tenure chat`; decide there, or by POST "
        f"/v1/responses at the gateway with {body}"
    )


def _volume(before: list[Condition], facts: Facts) -> list[Condition]:
    """What is amiss first: a volume without room, then one that has not the size that the agent asks for."""
    type_, report = ConditionType.VOLUME_HEALTHY, facts.report
    if report is not None and report.volume is not None and is_nearly_full(report):
        used, capacity = report.volume.used_bytes, report.volume.capacity_bytes
        said = (
            f"The volume is nearly full: {used * 100 // max(capacity, 1)} % of {capacity // 2**20} MiB are used. Give "
            "the agent a larger spec.session.storage.size, delete files of the session, or let its policy keep less."
        )
        return [facts.condition(type_, ConditionStatus.FALSE, Reason.NEARLY_FULL, said)]
    if facts.growth is not None:
        have, want = facts.growth
        if facts.growth_refused:
            said = (
                f"The volume has {have} and the agent asks for {want}, but its StorageClass lets no volume grow: set "
                "allowVolumeExpansion there, or move the session to a new one by export and import."
            )
            return [facts.condition(type_, ConditionStatus.FALSE, Reason.EXPANSION_REFUSED, said)]
        said = f"The volume is to grow from {have} to {want}."
        return [facts.condition(type_, ConditionStatus.FALSE, Reason.EXPANDING, said)]
    if facts.claim is not None and (resizing := _resizing(facts.claim)):
        return [facts.condition(type_, ConditionStatus.FALSE, Reason.EXPANDING, resizing)]
    known = [condition for condition in before if condition.type == type_]
    if report is None and known and known[0].reason == Reason.NEARLY_FULL:
        return _kept(before, type_, facts)  # asleep, it does not become emptier
    if facts.claim is None or (report is None and not known):
        return []
    said = "The volume has room, and the size that the agent asks for."
    return [facts.condition(type_, ConditionStatus.TRUE, Reason.HEALTHY, said)]


def _resizing(claim: Manifest) -> str | None:
    """What a claim says of a growth that is under way."""
    status = claim.get("status", {})
    have = (status.get("capacity") or {}).get("storage")
    wanted = claim["spec"]["resources"]["requests"]["storage"]
    if have is None or amount(have) >= amount(wanted):
        return None
    said = next((c.get("message", "") for c in status.get("conditions") or [] if c["status"] == "True"), "")
    return f"The volume is growing from {have} to {wanted}. {said}".rstrip()


def _recovery(status: AgentSessionStatus, facts: Facts) -> list[Condition]:
    """Until a person says that it was looked into. The status remembers the call while there is no pod."""
    call = status.unknown_outcome
    if call is None or call.call == facts.recovered:
        return []
    turn, step = call.call.split("/")
    clear = (
        f"kubectl annotate agentsession {facts.meta.name} -n {facts.meta.namespace} --overwrite "
        f"{RECOVERED_ANNOTATION}={call.call}"
    )
    said = (
        f"The call of {call.function} at {_utc(call.time)} (turn {turn}, step {step}) was interrupted: nobody knows "
        "whether it took effect, and it is not made again. The model was told so. Look at the tool's own records, mend "
        f"what must be mended, then clear this with `{clear}`."
    )
    type_ = ConditionType.RECOVERY_REQUIRED
    return [facts.condition(type_, ConditionStatus.TRUE, Reason.OUTCOME_UNKNOWN, said)]
