"""The status of a session from what is known of it: pure."""

from datetime import datetime

from tenure_api import names
from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason, merge
from tenure_api.report import JournalState, Report
from tenure_api.session import (
    AgentSessionStatus,
    EffectiveMode,
    JournalStatus,
    Lease,
    Origin,
    PolicySeen,
    UnknownOutcome,
    VolumeUse,
)
from tenure_operator.reconcile.session_conditions import Facts, reported_conditions
from tenure_operator.reconcile.verdict import comparable, conditions

COUNTERS = {"journal": None, "turns": None, "last_activity_time": None, "volume": None}
COUNTERS_SECONDS = 30.0
"""How often a status is written for counters only."""
VOLUME_STEP = 0.02
"""By how much of its capacity a volume must have filled or emptied to be worth a write."""


def session_status(before: AgentSessionStatus, facts: Facts, now: datetime) -> AgentSessionStatus:
    """The status to write. What only a sidecar knows stays as it was while there is no report of it."""
    report = facts.report
    pod, claim = (None if facts.hibernation else facts.pod), facts.claim
    reached = facts.verdict.is_ready or facts.verdict.reason is Reason.RESTORING
    status = before.model_copy(
        update={
            "observed_generation": facts.meta.generation,
            "effective_mode": EffectiveMode.HIBERNATED if facts.hibernation else EffectiveMode.RUNNING,
            "hibernation": facts.hibernation,
            "lease": _lease(before.lease, facts),
            "revision": facts.revision or before.revision,
            "set_name": facts.set_name,
            "identity": facts.identity or (claim["metadata"]["uid"] if claim else None),
            "pod_name": names.session_pod(facts.set_name) if pod or facts.lease is not None else None,
            "pod_ip": pod["status"].get("podIP") if pod and reached else None,
            "volume_claim_name": claim["metadata"]["name"] if claim else None,
            "lineage": facts.lineage,
            **(_reported(report) | {"volume": _volume(before.volume, report)} if report else {}),
        }
    )
    said = [
        *conditions(facts.verdict, facts.meta.generation),
        *reported_conditions(before.conditions, status, facts),
    ]
    return status.model_copy(update={"conditions": merge(before.conditions, said, now)})


def _lease(before: Lease | None, facts: Facts) -> Lease | None:
    """The highest generation that is known: a volume that was retained or restored may know a higher one than we do."""
    known = [before.generation] if before is not None else []
    if facts.lease is not None:
        known.append(facts.lease)
    if facts.report is not None and facts.report.journal is JournalState.SUPERSEDED:
        known.append(facts.report.generation)
    return Lease(generation=max(known)) if known else None


def _reported(report: Report) -> dict[str, object]:
    policy, unknown, origin = report.policy, report.unknown, report.origin
    return {
        "origin": Origin(session=origin.session, sequence=origin.sequence, digest=origin.digest) if origin else None,
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


def _volume(before: VolumeUse | None, report: Report) -> VolumeUse | None:
    """How full the volume is, in steps: sessions share a file system, and one that does nothing must not be written."""
    now = report.volume
    if now is None:
        return None
    step = VOLUME_STEP * now.capacity_bytes
    if before and before.capacity_bytes == now.capacity_bytes and abs(before.used_bytes - now.used_bytes) < step:
        return before
    return VolumeUse(capacity_bytes=now.capacity_bytes, used_bytes=now.used_bytes)


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
        status.effective_mode,
        status.pod_name,
        status.pod_ip,
        status.volume_claim_name,
        {known.type: known for known in status.conditions if known.type in told_at_once},
    )
