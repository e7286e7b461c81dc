"""A verdict on an object, and the summary conditions that say it: pure."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol, Self, TypeVar

from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason

LONGEST_MESSAGE = 2000
"""Characters of a condition's message. The schema allows more; nobody reads more."""


class Progress(Enum):
    """What will happen by itself."""

    SETTLED = auto()
    RECONCILING = auto()
    """We go on as soon as we can."""
    STALLED = auto()
    """Someone else must do something first."""


@dataclass(frozen=True)
class Verdict:
    """How an object is: the condition Ready, and whether it is Reconciling or Stalled."""

    ready: ConditionStatus
    reason: Reason
    message: str
    progress: Progress = Progress.SETTLED

    @property
    def is_ready(self) -> bool:
        """Whether the object can be used."""
        return self.ready is ConditionStatus.TRUE


def ready(message: str, reason: Reason = Reason.READY) -> Verdict:
    """All is as it should be."""
    return Verdict(ConditionStatus.TRUE, reason, message)


def waiting(reason: Reason, message: str) -> Verdict:
    """Not ready; it goes on by itself."""
    return Verdict(ConditionStatus.FALSE, reason, message, Progress.RECONCILING)


def stalled(reason: Reason, message: str) -> Verdict:
    """Not ready, and it needs someone."""
    return Verdict(ConditionStatus.FALSE, reason, message, Progress.STALLED)


def condition(type_: ConditionType, status: ConditionStatus, reason: str, message: str, generation: int) -> Condition:
    """A condition with a message of bounded length: some quote what a kubelet or a model endpoint has said."""
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 1] + "…"
    return Condition(type=type_, status=status, reason=reason, message=message, observed_generation=generation)


def conditions(verdict: Verdict, generation: int) -> list[Condition]:
    """The summary conditions. The abnormal ones are there only while they are true, as kstatus reads them."""
    true = ConditionStatus.TRUE

    types = [(ConditionType.READY, verdict.ready)]
    if verdict.progress is Progress.RECONCILING:
        types.append((ConditionType.RECONCILING, true))
    if verdict.progress is Progress.STALLED:
        types.append((ConditionType.STALLED, true))
    return [condition(type_, status, verdict.reason, verdict.message, generation) for type_, status in types]


class _Status(Protocol):
    @property
    def conditions(self) -> list[Condition]: ...

    def model_copy(self, *, update: dict[str, Any]) -> Self: ...


S = TypeVar("S", bound=_Status)


def comparable(status: S) -> S:
    """A status by what we say in it: others may keep conditions beside ours, and the API server orders them."""
    ours = [condition for condition in status.conditions if condition.type in list(ConditionType)]
    return status.model_copy(update={"conditions": sorted(ours, key=lambda condition: condition.type)})
