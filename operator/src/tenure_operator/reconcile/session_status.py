"""The status of a session from what is known of it: pure."""

from dataclasses import dataclass
from datetime import datetime

from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason, merge
from tenure_api.configuration import EffectivePolicy
from tenure_api.session import AgentSessionStatus, JournalStatus, PolicySeen
from tenure_api.wire import Report
from tenure_operator.kinds import Manifest
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.verdict import Verdict, comparable, condition, conditions
from tenure_operator.sightings import Sighting

COUNTERS = {"journal": None, "turns": None, "last_activity_time": None}
COUNTERS_SECONDS = 30.0
"""How often a status is written for counters only."""


@dataclass(frozen=True)
class Facts:
    """What the status is made of. `policy_name` is what the agent refers to; `policy` is None if that is missing."""

    generation: int
    verdict: Verdict
    pod: Manifest | None
    claim: Manifest | None
    sighting: Sighting | None
    policy_name: str | None
    policy: EffectivePolicy | None


def session_status(before: AgentSessionStatus, facts: Facts, now: datetime) -> AgentSessionStatus:
    """The status to write. What only a sidecar knows stays as it was while there is no report of it."""
    report = facts.sighting.report if facts.sighting else None
    pod, ready = facts.pod, facts.verdict.is_ready
    status = before.model_copy(
        update={
            "observed_generation": facts.generation,
            "pod_name": pod["metadata"]["name"] if pod else None,
            "pod_ip": pod["status"].get("podIP") if pod and ready else None,
            "volume_claim_name": facts.claim["metadata"]["name"] if facts.claim else None,
            **(_reported(report) if report else {}),
        }
    )
    said = [*conditions(facts.verdict, facts.generation), *_model(before, facts, report), *_policy(status, facts)]
    return status.model_copy(update={"conditions": merge(before.conditions, said, now)})


def _reported(report: Report) -> dict[str, object]:
    policy = report.policy
    return {
        "agent_generation": report.agent_generation,
        "policy": PolicySeen(name=policy.name, generation=policy.generation) if policy else None,
        "journal": JournalStatus(sequence=report.sequence),
        "turns": report.turns,
        "last_activity_time": report.last_activity,
    }


def _model(before: AgentSessionStatus, facts: Facts, report: Report | None) -> list[Condition]:
    type_ = ConditionType.MODEL_REACHABLE
    if facts.sighting and facts.sighting.silent and facts.pod and pods.is_ready(facts.pod):
        said = f"The sidecar cannot be asked: {facts.sighting.problem}"
        return [condition(type_, ConditionStatus.UNKNOWN, Reason.UNREACHABLE, said, facts.generation)]
    if report is None:
        kept = [known for known in before.conditions if known.type == type_]
        return [known.model_copy(update={"observed_generation": facts.generation}) for known in kept]
    status: dict[str, ConditionStatus] = {
        Reason.ANSWERING: ConditionStatus.TRUE,
        Reason.NOT_YET_CALLED: ConditionStatus.UNKNOWN,
    }
    return [
        condition(
            type_,
            status.get(report.model.reason, ConditionStatus.FALSE),
            report.model.reason,
            report.model.message,
            facts.generation,
        )
    ]


def _policy(status: AgentSessionStatus, facts: Facts) -> list[Condition]:
    """By what the sidecar has acknowledged, in its report or as the status remembers it."""
    if facts.policy_name is None:
        return []
    type_, seen, wanted = ConditionType.POLICY_APPLIED, status.policy, facts.policy
    if wanted is None:
        kept = "The session keeps to the last policy that it was given." if seen else "No policy was given yet."
        said = f"There is no MemoryPolicy {facts.policy_name} in this namespace: create it. {kept}"
        return [condition(type_, ConditionStatus.FALSE, Reason.POLICY_NOT_FOUND, said, facts.generation)]
    what = f"generation {wanted.generation} of MemoryPolicy {wanted.name}"
    report = facts.sighting.report if facts.sighting else None
    same_object = report is None or report.policy is None or report.policy.uid == wanted.uid
    if seen and (seen.name, seen.generation) == (wanted.name, wanted.generation) and same_object:
        return [
            condition(type_, ConditionStatus.TRUE, Reason.DELIVERED, f"The sidecar enforces {what}.", facts.generation)
        ]
    said = f"The sidecar has not acknowledged {what} yet."
    return [condition(type_, ConditionStatus.FALSE, Reason.DELIVERING, said, facts.generation)]


def is_urgent(before: AgentSessionStatus, after: AgentSessionStatus) -> bool:
    """Whether a change of status must be written at once.

    While a session is not ready, what its sidecar says besides can wait until it is: one write less in each start.
    """
    if comparable(before).model_copy(update=COUNTERS) == comparable(after).model_copy(update=COUNTERS):
        return False
    if any(c.type == ConditionType.READY and c.status is ConditionStatus.TRUE for c in after.conditions):
        return True
    return _outline(before) != _outline(after)


def _outline(status: AgentSessionStatus) -> tuple[object, ...]:
    summary = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
    return (
        status.observed_generation,
        status.pod_name,
        status.pod_ip,
        status.volume_claim_name,
        {known.type: known for known in status.conditions if known.type in summary},
    )
