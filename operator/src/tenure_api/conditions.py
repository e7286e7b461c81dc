"""Conditions: what the status of every kind says, in the terms of the Kubernetes API conventions and of kstatus.

`Ready` sums up. `Reconciling` and `Stalled` are abnormal-true: they are present only while they are true, which is what
kstatus (and so Flux, Argo CD and `kubectl wait`) reads as InProgress and Failed.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from tenure_api.markers import Resource


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The condition types of all kinds."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    MODEL_REACHABLE = "ModelReachable"
    """Session: the outcome of the last contact of its sidecar with the model endpoint."""
    POLICY_APPLIED = "PolicyApplied"
    """Session: its sidecar enforces the current generation of the policy."""
    TURN_SUSPENDED = "TurnSuspended"
    """Session, present only while true: a turn waits for an approval or for a time."""
    RECOVERY_REQUIRED = "RecoveryRequired"
    """Session, present only while true: a call was interrupted and nobody knows whether it took effect."""
    TOOLS_AVAILABLE = "ToolsAvailable"
    """Session of an agent with tools: its sidecar can offer all of their functions."""
    VOLUME_HEALTHY = "VolumeHealthy"
    """Session: its volume has room and the size that the agent asks for."""
    WARM_POOL_BLOCKED = "WarmPoolBlocked"
    """Agent, present only while true: sets of its warm pool do not start. Sessions are started without one."""
    ROLLOUT_BLOCKED = "RolloutBlocked"
    """Agent, present only while true: sessions do not start with its current spec, so no more are moved to it."""


class Reason(StrEnum):
    """The reasons of all conditions."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    # Agent
    SECRET_NOT_FOUND = "SecretNotFound"
    POLICY_NOT_FOUND = "PolicyNotFound"
    NAME_CONFLICT = "NameConflict"
    # AgentSession
    AGENT_NOT_FOUND = "AgentNotFound"
    AGENT_NOT_READY = "AgentNotReady"
    POD_STARTING = "PodStarting"
    POD_FAILING = "PodFailing"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    VOLUME_PENDING = "VolumePending"
    KEY_LOST = "KeyLost"
    KEY_MISMATCH = "KeyMismatch"
    JOURNAL_UNREADABLE = "JournalUnreadable"
    UPDATING = "Updating"
    HIBERNATED = "Hibernated"
    VOLUME_UNREACHABLE = "VolumeUnreachable"
    NODE_UNREACHABLE = "NodeUnreachable"
    RESTORING = "Restoring"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_INVALID = "SourceInvalid"
    SUPERSEDED = "Superseded"
    EXPIRED = "Expired"
    # ModelReachable
    NOT_YET_CALLED = "NotYetCalled"
    ANSWERING = "Answering"
    CREDENTIAL_MISSING = "CredentialMissing"
    UNAUTHORIZED = "Unauthorized"
    UNREACHABLE = "Unreachable"
    INVALID_RESPONSE = "InvalidResponse"
    MODEL_ERROR = "ModelError"
    # TurnSuspended
    APPROVAL_PENDING = "ApprovalPending"
    WAITING_UNTIL = "WaitingUntil"
    # RecoveryRequired
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    # ToolsAvailable, besides CredentialMissing, Unreachable, InvalidResponse and NameConflict
    AVAILABLE = "Available"
    # VolumeHealthy
    HEALTHY = "Healthy"
    NEARLY_FULL = "NearlyFull"
    EXPANDING = "Expanding"
    EXPANSION_REFUSED = "ExpansionRefused"
    # RolloutBlocked
    SESSIONS_FAILING = "SessionsFailing"
    # PolicyApplied, and Ready of a MemoryPolicy
    DELIVERED = "Delivered"
    DELIVERING = "Delivering"


class Condition(Resource):
    """One condition, as `metav1.Condition`."""

    type: str = Field(max_length=316, description="Type of the condition.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(max_length=1024, description="Why, in one word for programs.")
    message: str = Field("", max_length=32_768, description="Why, in a sentence for people, and what to do about it.")
    observed_generation: int | None = Field(None, description="Generation of the spec that this condition speaks of.")
    last_transition_time: datetime | None = Field(None, description="When `status` last changed.")


def merge(old: Iterable[Condition], new: Iterable[Condition], now: datetime) -> list[Condition]:
    """The conditions to write: those of `new`, each with its transition time.

    A condition keeps the time of the old one of its type while its status is the same; conditions that are no longer in
    `new` are gone. `now` is cut to whole seconds, the resolution of `metav1.Time`.
    """
    since = {c.type: c for c in old}
    now = now.replace(microsecond=0)
    merged = []
    for condition in new:
        before = since.get(condition.type)
        since_when = before.last_transition_time if before is not None and before.status == condition.status else None
        merged.append(condition.model_copy(update={"last_transition_time": since_when or now}))
    return merged
