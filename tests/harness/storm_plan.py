"""The storm's script and its plan: which runs there are, and who is killed when. Pure, so that a seed says it all.

The script has 12 steps: five model calls, and seven calls of tools, of which those of a round go out together.

| round | model asks for          | replay                        |
|-------|-------------------------|-------------------------------|
| 0     | `read` `book` `charge`  | Safe, IdempotencyKey, Never   |
| 1     | `code` `note`           | Never, IdempotencyKey (MCP)   |
| 2     | `ask`                   | another agent                 |
| 3     | `pay`                   | Never, and a person approves  |
| 4     | nothing: it answers     |                               |
"""

import random
from dataclasses import dataclass
from enum import StrEnum

ROUNDS = (("read", "book", "charge"), ("code", "note"), ("ask",), ("pay",))
STEPS = len(ROUNDS) + 1 + sum(len(calls) for calls in ROUNDS)
SAFE = ("read",)
NEVER = ("charge", "code", "pay")


class Moment(StrEnum):
    """Where in the life of a step its session is struck, and what holds it there."""

    BEFORE_INTENT = "before intent"
    """The model has not yet finished the answer that asks for the call."""
    BEFORE_EFFECT = "between intent and effect"
    """The tool has the request and has done nothing."""
    BEFORE_RESULT = "between effect and result"
    """The tool has done it and has not answered."""
    AFTER_RESULT = "after result"
    """The model has the question that follows the call's round."""


class Victim(StrEnum):
    """What is killed."""

    POD = "pod"
    SIDECAR = "sidecar"
    RUNTIME = "agent"
    """By the name of the container."""


@dataclass(frozen=True)
class Kill:
    """One kill, at a place that is reached for certain."""

    call: str
    moment: Moment
    victim: Victim
    lost: bool = False
    """Whether what the victim has sent never arrives."""

    @property
    def drop(self) -> bool:
        """Whether the tool drops the call that waits there: only one whose sender is dead, before its effect.

        The sender of what waits for `ask` is the other agent, which lives; `code` waits in the pod itself.
        """
        dead = self.victim is not Victim.RUNTIME and self.call not in ("ask", "code")
        return self.lost and dead and self.moment is Moment.BEFORE_EFFECT

    @property
    def round(self) -> int:
        """The round of the call."""
        return next(n for n, calls in enumerate(ROUNDS) if self.call in calls)

    @property
    def interrupts(self) -> bool:
        """Whether nobody can know afterwards if the call took effect."""
        return self.moment in (Moment.BEFORE_EFFECT, Moment.BEFORE_RESULT) and self.victim != Victim.RUNTIME

    def __str__(self) -> str:
        return f"{self.victim} killed {self.moment} of {self.call}" + (", which never arrives" if self.drop else "")


@dataclass(frozen=True)
class Stray:
    """One kill at a random time."""

    after_seconds: float
    victim: Victim

    def __str__(self) -> str:
        return f"{self.victim} killed after {self.after_seconds:.2f} s"


@dataclass(frozen=True)
class Run:
    """One run of the script: the kills in the order in which their places are reached."""

    number: int
    kills: tuple[Kill, ...]
    stray: Stray | None
    while_pending: Victim | None
    """Killed while the approval is pending."""

    def __str__(self) -> str:
        pending = [f"{self.while_pending} killed while the approval is pending"] if self.while_pending else []
        return f"run {self.number}: " + "; ".join(map(str, (*self.kills, *filter(None, [self.stray]), *pending)))


def schedule(seed: int, count: int) -> list[Run]:
    """The runs of a storm. Every moment meets every victim, if there are at least four runs.

    A run has at most one kill in each round, so that no kill makes another one's place unreachable, and at most one of
    each victim, for the kubelet is in no hurry to start a container for the second time.
    """
    chance = random.Random(seed)
    moments = {victim: chance.sample(list(Moment), len(Moment)) for victim in Victim}
    runs = []
    for number in range(count):
        chosen = []
        for victim in chance.sample(list(Victim), len(Victim)):
            moment = moments[victim][number] if number < len(Moment) else chance.choice(list(Moment))
            chosen.append((moment, victim))
        rounds = sorted(chance.sample(range(len(ROUNDS)), len(chosen)))
        kills = tuple(
            Kill(chance.choice(ROUNDS[round_]), moment, victim, lost=chance.random() < 0.5)
            for round_, (moment, victim) in zip(rounds, chosen, strict=True)
        )
        stray = Stray(chance.uniform(0, 8), chance.choice(list(Victim))) if number % 2 else None
        pending = chance.choice(list(Victim)) if number % 3 == 0 else None
        runs.append(Run(number, kills, stray, pending))
    return runs
