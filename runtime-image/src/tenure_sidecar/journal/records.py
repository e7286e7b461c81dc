"""What the records of a journal say. One class for each kind; the payload of a record is its JSON."""

from typing import ClassVar

from pydantic import Field

from tenure_api.configuration import SessionConfig
from tenure_api.messages import Wire
from tenure_api.report import Binding, Origin
from tenure_api.tools import Replay
from tenure_api.wire import Approval, Call, CallOutcome, Failure, TurnRequest, TurnStatus, Usage


class Entry(Wire):
    """Base of all kinds."""

    kind: ClassVar[str]

    def payload(self) -> bytes:
        """The JSON that is sealed."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True).encode()


class TurnStart(Entry):
    """A turn has begun. Holds all that is needed to ask for its answer again in the same way."""

    kind = "turn.start"
    request: TurnRequest
    agent: str
    instructions: str = ""
    """The agent's instructions at that time."""


class TurnRun(Entry):
    """The turn is run again after a crash; the step of the record counts these runs, from 1."""

    kind = "turn.run"
    void_from: int | None = None
    """Characters of the answer before the part that was streamed and is void, if some was or may have been."""


class TurnSuspended(Entry):
    """The turn waits for decisions or for a time; the step of the record counts the suspensions, from 1."""

    kind = "turn.suspended"
    text: str = ""
    """The answer so far."""
    usage: Usage = Usage()
    approvals: bool = False
    """Whether it waits for decisions."""


class TurnResumed(Entry):
    """The turn goes on after the suspension of the same step."""

    kind = "turn.resumed"


class ModelIntent(Entry):
    """The model is about to be called."""

    kind = "model.intent"
    digest: str
    """Of the request as the runtime made it."""
    cut_turns: int = 0


class ModelResult(Entry):
    """What the model answered, or that it finally did not."""

    kind = "model.result"
    digest: str
    """Of the request that this answers. It counts, not the intent's: an unanswered request may be asked differently."""
    oldest: int = 0
    """Sequence of the oldest turn in the history that the request was made from; 0 if there was none."""
    cut_turns: int = 0
    status: int = 200
    body: str
    """JSON of the whole answer, or of the error."""
    usage: Usage = Usage()


class AskedCall(Wire):
    """A call as the agent asked for it."""

    call_id: str
    function: str
    tool: str
    """Name of the tool in the agent's spec; empty if there is no such function."""
    arguments: str
    digest: str
    round: int | None = None
    """Step of the model call whose answer has this call; None if the agent made it up."""
    offset: int = 0
    """Characters of the answer before it."""


class ToolIntent(Entry):
    """A tool is about to be called."""

    kind = "tool.intent"
    call: AskedCall
    replay: Replay


class ApprovalAsked(Entry):
    """A call needs a person's approval. Comes before the intent."""

    kind = "approval.asked"
    call: AskedCall


class ApprovalDecided(Entry):
    """What the person decided."""

    kind = "approval.decided"
    approve: bool
    by: str
    """User name of the caller."""
    reason: str = ""


class WaitBegun(Entry):
    """The model waits for a time."""

    kind = "wait.begun"
    call: AskedCall
    until: float
    """Seconds since the epoch."""


class ToolResult(Entry):
    """What came of a call. Holds the call too, so that it alone tells of a call that needed no intent."""

    kind = "tool.result"
    call: AskedCall
    output: str
    outcome: CallOutcome


class LogEntry(Wire):
    """Something that stands between two parts of an answer's text; exactly one of the fields after `step` is set."""

    offset: int
    """Characters of the answer before it."""
    at: float
    """Seconds since the epoch."""
    step: int = 0
    call: Call | None = None
    approval: Approval | None = None
    attempt: int | None = None
    """The text after `offset` that was streamed before is void; counts from 1."""
    suspended: Usage | None = None
    """The turn waited for decisions, having used this much."""
    resumed: bool = False


class RoundCall(Wire):
    """A call of a round: its id for the model, and its step."""

    call_id: str
    step: int


class Round(Wire):
    """An answer of the model that asked for calls, all of which are settled."""

    text: str = ""
    calls: list[RoundCall]


class TurnEnd(Entry):
    """A turn has ended. Tells all of it but its beginning, so that history needs no other records."""

    kind = "turn.end"
    status: TurnStatus
    text: str = ""
    log: list[LogEntry] = Field(default_factory=list)
    rounds: list[Round] = Field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = Usage()
    cut_turns: int = 0
    error: Failure | None = None


class Begun(Entry):
    """The session began with the state of another one. Comes right after the records of that one."""

    kind = "origin"
    origin: Origin
    lineage: list[Origin] = Field(default_factory=list)
    """What that one began with, and so on; the oldest first."""


class ConfigAccepted(Entry):
    """The configuration that was last accepted."""

    kind = "config"
    config: SessionConfig


class FunctionsSeen(Entry):
    """The functions of tools as they were last told, by tool, for a start at which a tool cannot be asked."""

    kind = "functions"
    functions: dict[str, str]


class Bound(Entry):
    """The session that a pod was given to which had been started ahead. The first one holds."""

    kind = "binding"
    binding: Binding


TURN_KINDS = (TurnStart.kind, TurnEnd.kind)
"""The kinds that the transcript is made of."""
