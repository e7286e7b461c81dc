"""What a sidecar tells the operator of its session, and what the operator asks of it. For the calls see `wire`."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from tenure_api.configuration import EffectivePolicy
from tenure_api.messages import Wire
from tenure_api.wire import Approval, TurnId


class JournalState(StrEnum):
    """Whether the journal can be used."""

    OPEN = "Open"
    LOCKED = "Locked"
    """Another process has it open: the previous pod has not ended yet."""
    SUPERSEDED = "Superseded"
    """A later run of the session has the journal: this one must not write any more."""
    AWAITING_BUNDLE = "AwaitingBundle"
    """It is empty, and the session begins with the state of another that has not come yet."""
    KEY_MISMATCH = "KeyMismatch"
    UNREADABLE = "Unreadable"


class ModelHealth(Wire):
    """Outcome of the last contact with the model endpoint. `reason` is a `conditions.Reason`; never a secret."""

    reason: str = "NotYetCalled"
    message: str = ""


class Suspension(Wire):
    """A turn that waits for a person or for a time."""

    turn: TurnId
    approvals: list[Approval] = Field(default_factory=list)
    """Calls that wait for a decision; their `arguments` are left out here."""
    until: datetime | None = None
    """When it goes on by itself."""


class UnknownOutcome(Wire):
    """A call of a tool of which nobody knows whether it took effect."""

    turn: TurnId
    step: int
    function: str
    at: datetime


class ToolHealth(Wire):
    """A tool whose functions cannot be offered as they should. `reason` is a `conditions.Reason`; never a secret."""

    name: str
    reason: str
    message: str


class VolumeUse(Wire):
    """How full the volume is."""

    capacity_bytes: int
    used_bytes: int


class Origin(Wire):
    """The state that the session began with."""

    session: str
    """`namespace/name`."""
    sequence: int
    digest: str | None = None
    """Of the bundle, if it was imported: `sha256:` and hexadecimal."""


class Binding(Wire):
    """Gives a sidecar that was started ahead to a session. The first one holds for ever."""

    session: str
    """`namespace/name`, for logs and messages."""
    uid: str
    """UID of the AgentSession."""


class Drain(Wire):
    """Asks a sidecar to take no more turns, for `DRAIN_SECONDS` or until its pod is deleted."""

    idle_seconds: float = 0.0
    """Refused unless nothing has happened for so long."""


DRAIN_SECONDS = 30.0
"""How long a drained sidecar refuses turns: should the operator die before it deletes the pod, it goes on working."""


class Report(Wire):
    """What the operator learns from a sidecar."""

    identity: str
    """What the sidecar is bound to, and the audience of its tokens: UID of the volume's claim."""
    generation: int = 0
    """Lease generation that it runs under; if it is superseded, that of the run which has the journal."""
    bound: str | None = None
    """UID of the AgentSession, if it was started ahead and given to one."""
    idle_seconds: float | None = None
    """How long nothing has happened; None while a turn runs or is queued, or somebody listens or sends files. A turn
    that waits for an approval or for a time is nothing that happens."""
    draining: bool = False
    ready: bool = False
    """It takes turns, and the agent container listens: known here up to a second before the kubelet says so."""
    volume: VolumeUse | None = None
    origin: Origin | None = None
    journal: JournalState
    journal_message: str = ""
    sequence: int = 0
    turns: int = 0
    active_turn: TurnId | None = None
    last_activity: datetime | None = None
    config_digest: str | None = None
    agent_generation: int | None = None
    policy: EffectivePolicy | None = None
    model: ModelHealth = ModelHealth()
    suspended: Suspension | None = None
    unknown: UnknownOutcome | None = None
    """The latest in the transcript."""
    tools: list[ToolHealth] = Field(default_factory=list)
    """Only those with a problem."""
    sessions: list[str] | None = None
    """UIDs of the sessions that it keeps, if it is a host of several."""


class Reports(Wire):
    """The reports of all sessions that a host keeps, so that a thousand of them need not be asked one by one."""

    data: list[Report]
