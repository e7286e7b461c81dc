"""What a session begins with: all that its journal says."""

from dataclasses import dataclass, field

from tenure_api.configuration import SessionConfig
from tenure_api.report import Binding
from tenure_sidecar.journal.records import TURN_KINDS, Bound, ConfigAccepted, FunctionsSeen
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.turn.open import Open
from tenure_sidecar.turn.steps import Steps
from tenure_sidecar.turn.transcript import Transcript


@dataclass
class Opened:
    """What was read from the journal."""

    journal: Journal
    transcript: Transcript
    config: SessionConfig | None = None
    functions: dict[str, str] = field(default_factory=dict)
    bound: Binding | None = None
    unended: Open | None = None


def read(journal: Journal) -> Opened:
    """Read a journal that was opened just now; blocks. Raises `UnreadableError`."""
    opened = Opened(journal, Transcript(journal.records(TURN_KINDS)))
    for record in journal.records((ConfigAccepted.kind, FunctionsSeen.kind, Bound.kind)):
        match record.kind:
            case ConfigAccepted.kind:
                opened.config = ConfigAccepted.model_validate_json(record.payload).config
            case FunctionsSeen.kind:
                opened.functions = FunctionsSeen.model_validate_json(record.payload).functions
            case Bound.kind:
                opened.bound = Bound.model_validate_json(record.payload).binding
    if (turn := opened.transcript.open_turn()) is not None:
        opened.unended = Open(turn, Steps(turn.turn))
        for record in journal.records(turn=turn.turn):
            opened.unended.apply(record)
    return opened
