"""The `MemoryPolicy` kind: what may be kept, and for how long."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure_api.conditions import Condition
from tenure_api.markers import Resource, list_map, rule, validated


class DataClass(StrEnum):
    """A kind of data that a session keeps."""

    TRANSCRIPT = "transcript"


class ClassRule(Resource):
    """How much of one class of data may be kept, and for how long."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule(
                "has(self.maxAgeSeconds) || has(self.maxCount)",
                "needs a limit: set maxAgeSeconds, maxCount or both",
            )
        )
    )
    name: DataClass = Field(description="The class of data: `transcript` is what was said, in whole turns.")
    max_age_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = Field(
        None, description="Seconds from the beginning of a turn until it is deleted."
    )
    max_count: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Most turns that are kept; the oldest go first."
    )


class Enforcement(Resource):
    """How the policy is enforced."""

    interval_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        60,
        description="Seconds between two enforcement runs in a session: the longest that data stays after it is due.",
    )


class MemoryPolicySpec(Resource):
    """What the sessions of the agents that refer to this policy may keep."""

    classes: Annotated[list[ClassRule], Field(min_length=1, max_length=8), list_map("name")] = Field(
        description="The limits of each class of data."
    )
    enforcement: Enforcement = Field(default_factory=Enforcement, description="How the policy is enforced.")


class Delivery(Resource):
    """How far the policy has come."""

    total: int = Field(description="Running sessions that this policy governs.")
    current: int = Field(description="Of these, sessions whose sidecar has acknowledged this generation.")


class MemoryPolicyStatus(Resource):
    """What is known of a policy."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    agents: int | None = Field(None, description="Agents that refer to this policy.")
    sessions: Delivery | None = Field(None, description="Delivery to the sidecars of running sessions.")
    conditions: Annotated[list[Condition], Field(max_length=16), list_map("type")] = Field(
        default_factory=list, description="Ready sums up; Reconciling and Stalled are present only while true."
    )


class MemoryPolicy(Resource):
    """What the sessions of an agent may keep, and for how long. A change acts on old data too."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule("self.metadata.name.size() <= 52", "metadata.name must have at most 52 characters"),
        )
    )
    spec: MemoryPolicySpec
    status: MemoryPolicyStatus = Field(default_factory=MemoryPolicyStatus)
