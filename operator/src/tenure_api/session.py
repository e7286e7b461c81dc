"""The `AgentSession` kind: one conversation with its own volume."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure_api.conditions import Condition
from tenure_api.fields import ObjectName
from tenure_api.markers import Resource, cel, immutable, list_map, rule, validated


class AgentRef(Resource):
    """An Agent in the same namespace."""

    name: ObjectName = Field(description="Name of the Agent.")


class AgentSessionSpec(Resource):
    """Whose conversation, with which agent, until when."""

    agent_ref: Annotated[AgentRef, cel(immutable("agentRef"))] = Field(description="The agent that this session runs.")
    subject: Annotated[str, Field(min_length=1, max_length=253), cel(immutable("subject"))] = Field(
        description="Whose session this is: the user name that Kubernetes knows the caller by, such as "
        "system:serviceaccount:shop:storefront. Only this caller, or one whom RBAC lets `use` this session, gets data."
    )
    expires_at: datetime | None = Field(
        None, description="When the session is deleted with all its state; never if left out."
    )


class JournalStatus(Resource):
    """The session's journal."""

    sequence: int = Field(description="Number of the last record.")


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
    volume_claim_name: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Claim of the volume with the session's state."
    )
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
