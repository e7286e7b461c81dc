"""The `AgentSession` kind: one conversation with its own volume."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure_api.conditions import Condition
from tenure_api.fields import ObjectName
from tenure_api.markers import Resource, cel, immutable, list_map, rule, validated


class AgentRef(Resource):
    """An Agent in the same namespace."""

    name: ObjectName = Field(description="Name of the Agent.")


class OperatingMode(StrEnum):
    """What the user wants of a session."""

    RUNNING = "Running"
    """It runs whenever it is used, and sleeps when it is idle."""
    HIBERNATED = "Hibernated"
    """It sleeps, and only who may `wake` it wakes it."""


class EffectiveMode(StrEnum):
    """What a session does."""

    RUNNING = "Running"
    HIBERNATED = "Hibernated"


class ForkFrom(Resource):
    """Another session in the same namespace whose history the new one begins with."""

    session: ObjectName = Field(description="Name of the AgentSession; it must have the same agent and subject.")
    at_sequence: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="The history is taken up to this record of its journal: all turns that had ended by then. All of "
        "it if left out.",
    )


_DIGEST = rule("self.matches('^sha256:[0-9a-f]{64}$')", "must be sha256: and 64 hexadecimal digits")


class ImportFrom(Resource):
    """A bundle that the new session's state comes from, sent by who creates the session."""

    digest: Annotated[str, Field(min_length=71, max_length=71), cel(_DIGEST)] = Field(
        description="Digest of the bundle, `sha256:` and 64 hexadecimal digits. No other bundle is taken."
    )


_ONE_SOURCE = rule(
    "has(self.forkFrom) != has(self.importFrom)",
    "must have either forkFrom or importFrom; leave source out for neither",
)


class Source(Resource):
    """Where a session's first state comes from."""

    model_config = ConfigDict(json_schema_extra=validated(_ONE_SOURCE))

    fork_from: ForkFrom | None = Field(None, description="Begin with the history and files of another session.")
    import_from: ImportFrom | None = Field(None, description="Begin with what a bundle holds.")


_SAME_SOURCE = rule(
    "has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)",
    "source cannot be changed; create a new object instead",
)


class AgentSessionSpec(Resource):
    """Whose conversation, with which agent, until when."""

    model_config = ConfigDict(json_schema_extra=validated(_SAME_SOURCE))

    agent_ref: Annotated[AgentRef, cel(immutable("agentRef"))] = Field(description="The agent that this session runs.")
    subject: Annotated[str, Field(min_length=1, max_length=253), cel(immutable("subject"))] = Field(
        description="Whose session this is: the user name that Kubernetes knows the caller by, such as "
        "system:serviceaccount:shop:storefront. Only this caller, or one whom RBAC lets `use` this session, gets data."
    )
    operating_mode: OperatingMode = Field(
        OperatingMode.RUNNING,
        description="Running: sleeps when idle, and wakes when it is asked for something. Hibernated: sleeps, and is "
        "woken only by those whom RBAC lets `wake` it.",
    )
    source: Source | None = Field(None, description="Where the session's first state comes from; empty if left out.")
    expires_at: datetime | None = Field(
        None, description="When the session is deleted with all its state; never if left out."
    )


class JournalStatus(Resource):
    """The session's journal."""

    sequence: int = Field(description="Number of the last record.")


class Lease(Resource):
    """Which run of the session may write its journal."""

    generation: int = Field(description="Counts the pods that the session was given; rises with each and never falls.")


class HibernationReason(StrEnum):
    """Why a session sleeps."""

    IDLE = "Idle"
    REQUESTED = "Requested"
    """`spec.operatingMode` says so."""


class Hibernation(Resource):
    """Since when and why a session sleeps."""

    since: datetime = Field(description="When it was put to sleep.")
    reason: HibernationReason = Field(description="Idle, or Requested by spec.operatingMode.")
    wake_at: datetime | None = Field(None, description="When a turn that waits for a time wakes it.")


class VolumeUse(Resource):
    """How full a session's volume is, as last reported."""

    capacity_bytes: int = Field(description="Bytes that its file system has.")
    used_bytes: int = Field(description="Bytes of them that are not free.")


class Origin(Resource):
    """The state that a session began with."""

    session: str = Field(max_length=253, description="The session it was taken from, `namespace/name`.")
    sequence: int = Field(description="The record of that session's journal up to which it was taken.")
    digest: str | None = Field(None, max_length=71, description="Digest of the bundle, if it was imported.")


class PolicySeen(Resource):
    """The policy that the session's sidecar enforces."""

    name: str = Field(max_length=253, description="Name of the MemoryPolicy.")
    generation: int = Field(description="Generation of the MemoryPolicy that the sidecar has acknowledged.")


class Lineage(Resource):
    """Where a session comes from that was made for a call of another agent."""

    parent: str = Field(max_length=253, description="The session that called; this one is deleted with it.")
    call: str = Field(max_length=64, description="The call, as `<turn>/<step>` of that session.")


class UnknownOutcome(Resource):
    """A call of a tool of which nobody knows whether it took effect."""

    call: str = Field(max_length=64, description="The call, as `<turn>/<step>`.")
    function: str = Field(max_length=253, description="The function that was called.")
    time: datetime = Field(description="When it was called.")


class AgentSessionStatus(Resource):
    """What is known of a session. Bounded: the conversation itself is never here."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    pod_name: Annotated[str, Field(max_length=253)] | None = Field(None, description="Pod that runs the session.")
    pod_ip: Annotated[str, Field(max_length=45)] | None = Field(
        None, alias="podIP", description="Address of that pod while it is ready."
    )
    effective_mode: EffectiveMode | None = Field(
        None, description="Running: has a pod, or is getting one. Hibernated: sleeps until it is asked for something."
    )
    hibernation: Hibernation | None = Field(None, description="Given while the session sleeps.")
    lease: Lease | None = Field(None, description="Which run of the session may write its journal.")
    revision: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Revision of the Agent that the session's pod was made to."
    )
    set_name: Annotated[str, Field(max_length=253)] | None = Field(
        None,
        description="What the session's pod, claim and key are named after: its own name, or that of the set from a "
        "warm pool that it has claimed.",
    )
    identity: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description="What the journal, its key and all tokens for the sidecar are bound to: UID of the volume's claim.",
    )
    volume_claim_name: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Claim of the volume with the session's state."
    )
    volume: VolumeUse | None = Field(None, description="How full the volume is, as last reported.")
    origin: Origin | None = Field(None, description="Given if the session began with the state of another.")
    agent_generation: int | None = Field(
        None, description="Generation of the Agent whose configuration the sidecar has acknowledged."
    )
    policy: PolicySeen | None = Field(None, description="The policy that the sidecar has acknowledged.")
    journal: JournalStatus | None = Field(None, description="The journal, as last reported.")
    turns: int | None = Field(None, description="Turns in the transcript, as last reported.")
    unknown_outcome: UnknownOutcome | None = Field(
        None, description="The latest call that was interrupted and may have taken effect or not, as last reported."
    )
    lineage: Lineage | None = Field(None, description="Given if the session was made for a call of another agent.")
    last_activity_time: datetime | None = Field(None, description="When a turn last began or ended, as reported.")
    conditions: Annotated[list[Condition], Field(max_length=16), list_map("type")] = Field(
        default_factory=list,
        description="Ready sums up; Reconciling, Stalled, TurnSuspended, RecoveryRequired are present only while true.",
    )


class AgentSession(Resource):
    """One conversation with an Agent, with its own pod, volume and data key."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule("self.metadata.name.size() <= 52", "metadata.name must have at most 52 characters"),
            rule("!self.metadata.name.contains('.')", "metadata.name must not contain '.'; use '-'"),
        )
    )
    spec: AgentSessionSpec
    status: AgentSessionStatus = Field(default_factory=AgentSessionStatus)
