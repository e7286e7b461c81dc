"""The status of a session from what is known of it: pure."""

from datetime import datetime

from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason, merge
from tenure_api.session import AgentSessionStatus, JournalStatus, PolicySeen, UnknownOutcome
from tenure_api.wire import Report
from tenure_operator.reconcile.session_conditions import Facts, reported_conditions
from tenure_operator.reconcile.verdict import comparable, conditions

COUNTERS = {"journal": None, "turns": None, "last_activity_time": None}
COUNTERS_SECONDS = 30.0
"""How often a status is written for counters only."""


def session_status(before: AgentSessionStatus, facts: Facts, now: datetime) -> AgentSessionStatus:
    """The status to write. What only a sidecar knows stays as it was while there is no report of it."""
    report = facts.report
    pod, ready = facts.pod, facts.verdict.is_ready
    status = before.model_copy(
        update={
            "observed_generation": facts.meta.generation,
            "pod_name": pod["metadata"]["name"] if pod else None,
            "pod_ip": pod["status"].get("podIP") if pod and ready else None,
            "volume_claim_name": facts.claim["metadata"]["name"] if facts.claim else None,
            "lineage": facts.lineage,
            **(_reported(report) if report else {}),
        }
    )
    said = [
        *conditions(facts.verdict, facts.meta.generation),
        *reported_conditions(before.conditions, status, facts),
    ]
    return status.model_copy(update={"conditions": merge(before.conditions, said, now)})


def _reported(report: Report) -> dict[str, object]:
    policy, unknown = report.policy, report.unknown
    return {
        "agent_generation": report.agent_generation,
        "policy": PolicySeen(name=policy.name, generation=policy.generation) if policy else None,
        "journal": JournalStatus(sequence=report.sequence),
        "turns": report.turns,
        "unknown_outcome": UnknownOutcome(
            call=f"{unknown.turn}/{unknown.step}", function=unknown.function, time=unknown.at.replace(microsecond=0)
        )
        if unknown
        else None,
        "last_activity_time": report.last_activity,
    }


def news(before: list[Condition], after: list[Condition]) -> list[Condition]:
    """What a person is asked for that was not asked for before: each is worth an event."""
    asked = (Reason.APPROVAL_PENDING, Reason.OUTCOME_UNKNOWN)
    known = {(condition.reason, condition.message) for condition in before}
    return [c for c in after if c.reason in asked and (c.reason, c.message) not in known]


def is_urgent(before: AgentSessionStatus, after: AgentSessionStatus) -> bool:
    """Whether a change of status must be written at once.

    While a session is not ready, what its sidecar says besides can wait until it is: one write less in each start. Not
    so what a person has to do something about, or has done something about.
    """
    if comparable(before).model_copy(update=COUNTERS) == comparable(after).model_copy(update=COUNTERS):
        return False
    if any(c.type == ConditionType.READY and c.status is ConditionStatus.TRUE for c in after.conditions):
        return True
    return _outline(before) != _outline(after)


def _outline(status: AgentSessionStatus) -> tuple[object, ...]:
    told_at_once = (
        ConditionType.READY,
        ConditionType.RECONCILING,
        ConditionType.STALLED,
        ConditionType.TURN_SUSPENDED,
        ConditionType.RECOVERY_REQUIRED,
    )
    return (
        status.observed_generation,
        status.pod_name,
        status.pod_ip,
        status.volume_claim_name,
        {known.type: known for known in status.conditions if known.type in told_at_once},
    )
