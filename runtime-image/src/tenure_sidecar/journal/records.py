"""What the records of a journal say. One class for each kind; the payload of a record is its JSON."""

from typing import ClassVar

from tenure_api.configuration import SessionConfig
from tenure_api.messages import Wire
from tenure_api.wire import Failure, TurnRequest, TurnStatus, Usage


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
    """The turn is run again; the step of the record counts the runs, from 1."""

    kind = "turn.run"


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


class TurnEnd(Entry):
    """A turn has ended."""

    kind = "turn.end"
    status: TurnStatus
    text: str = ""
    finish_reason: str | None = None
    usage: Usage = Usage()
    cut_turns: int = 0
    error: Failure | None = None


class ConfigAccepted(Entry):
    """The configuration that was last accepted."""

    kind = "config"
    config: SessionConfig


TURN_KINDS = (TurnStart.kind, TurnEnd.kind)
"""The kinds that the transcript is made of."""
