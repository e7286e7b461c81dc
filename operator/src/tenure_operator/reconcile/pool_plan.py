"""What to do for the warm pool of an agent: pure. `ObservedPool` in, `PoolPlan` out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from tenure_api.conditions import Reason
from tenure_api.names import STORAGE_ANNOTATION
from tenure_api.report import JournalState, Report
from tenure_operator.cache import Name
from tenure_operator.kinds import Manifest
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.session_plan import is_outdated
from tenure_operator.reconcile.verdict import Progress, Verdict

STARTING_AT_A_TIME = 4
"""Sets of one agent that may start, or fail to, at the same time: bounds what a refill takes from those who wait."""
FAILING_SECONDS = 60.0
"""Age from which on a set that does not start is replaced by another: the fault may be its node's or its volume's."""
NOBODY = "discarded"
"""What a set is bound to before it is discarded, in the place of a session's UID: so none can get it any more."""

WORTH_TELLING = (Reason.POD_UNSCHEDULABLE, Reason.VOLUME_PENDING)


class State(StrEnum):
    """What a set is good for."""

    READY = "ready"
    """A session can claim it."""
    STARTING = "starting"
    FAILING = "failing"
    CLAIMED = "claimed"
    """A session has it, or is getting it; its labels will say so."""
    ENDING = "ending"


@dataclass(frozen=True)
class WarmSet:
    """A set as it is."""

    name: str
    pod: Manifest | None
    claim: Manifest | None
    report: Report | None = None
    """What the sidecar of this pod has told this process."""
    silent: bool = False
    """It does not answer any more."""


@dataclass(frozen=True)
class Bound:
    """A session that a set is bound to."""

    session: Name
    set_name: str | None
    """The set that it has."""


@dataclass(frozen=True)
class ObservedPool:
    """All that is known of an agent's pool."""

    size: int
    """How many sets are to be kept ready."""
    can_start: bool
    """Whether the agent is ready, so that sets can be made."""
    pod_hash: str
    storage: str
    digest: str | None
    """Of the configuration that sidecars must have."""
    sets: tuple[WarmSet, ...] = ()
    held: frozenset[str] = frozenset()
    """Sets that sessions have, or that they are given just now."""
    making: frozenset[str] = frozenset()
    """Sets that this process is about to make."""
    bound: Mapping[str, Bound] = field(default_factory=dict)
    """The sessions that sets are bound to, by UID, as far as they exist."""
    rest: float = 0.0
    """Seconds until another set may be made or replaced after some have failed."""
    quiet: float = 0.0
    """Seconds until sessions that start have been left in peace for long enough."""
    rush: bool = False
    """Sessions are being started, though a refill can be put off no longer."""


@dataclass(frozen=True)
class Discard:
    """Delete a set, as soon as it is sure that no session has it."""

    set: WarmSet
    why: str
    failed: bool = False
    """It is its own fault, so that the next one is made more slowly."""


@dataclass(frozen=True)
class Give:
    """Let a session claim the very set that is bound to it."""

    uid: str
    session: Name
    set_name: str


@dataclass(frozen=True)
class Visit:
    """Ask the sidecar of a set how it is, and give it the configuration."""

    pod: str


@dataclass(frozen=True)
class Make:
    """Make so many sets."""

    count: int


PoolStep = Discard | Give | Visit | Make


@dataclass(frozen=True)
class PoolPlan:
    """The state of each set, steps in their order, and after how many seconds to look again."""

    states: Mapping[str, State]
    steps: list[PoolStep] = field(default_factory=list)
    problem: Verdict | None = None
    """Why sets do not start."""
    again: float | None = None


@dataclass(frozen=True)
class _Judged:
    set: WarmSet
    state: State
    step: PoolStep | None = None
    problem: Verdict | None = None
    again: float | None = None


def decide(seen: ObservedPool, now: datetime) -> PoolPlan:
    """The plan for a pool."""
    judged = [_judge(seen, each, now) for each in sorted(seen.sets, key=lambda each: each.name)]
    kept = [each for each in judged if each.state in (State.READY, State.STARTING, State.FAILING)]
    kept.sort(key=lambda each: (State.READY, State.STARTING, State.FAILING).index(each.state))
    spare = {each.set.name for each in kept[seen.size :]}
    judged = [_discard(each.set, "the pool is smaller now") if each.set.name in spare else each for each in judged]
    judged = _one_failure(judged)
    steps = [each.step for each in judged if each.step is not None]
    pauses = [each.again for each in judged if each.again is not None]
    busy = sum(1 for each in judged if each.state in (State.STARTING, State.FAILING))
    missing = min(seen.size - len(kept), (1 if seen.rush else STARTING_AT_A_TIME) - busy)
    if missing > 0 and seen.can_start:
        if pause := max(seen.rest, seen.quiet):
            pauses.append(pause)
        else:
            steps.append(Make(missing))
    return PoolPlan(
        states={each.set.name: each.state for each in judged},
        steps=steps,
        problem=next((each.problem for each in judged if each.problem is not None), None),
        again=min(pauses, default=None),
    )


def _one_failure(judged: list[_Judged]) -> list[_Judged]:
    """Replaces one set that has failed at a time: more would most likely fail the same way."""
    failed = [each for each in judged if isinstance(each.step, Discard) and each.step.failed]
    later = {each.set.name for each in failed[1:]}
    return [replace(each, state=State.FAILING, step=None) if each.set.name in later else each for each in judged]


def _judge(seen: ObservedPool, each: WarmSet, now: datetime) -> _Judged:
    if each.name in seen.held:
        return _Judged(each, State.CLAIMED)
    if each.name in seen.making:
        return _Judged(each, State.STARTING)
    pod, claim = each.pod, each.claim
    if pod is None or claim is None or is_deleting(pod) or is_deleting(claim):
        return _discard(each, "a part of it is gone")
    if each.report is not None and each.report.bound is not None:
        return _bound(seen, each, each.report.bound)
    storage = claim["metadata"].get("annotations", {}).get(STORAGE_ANNOTATION)
    if is_outdated(pod, seen.pod_hash) or storage != seen.storage:
        return _discard(each, "the agent has changed")
    return _alive(seen, each, pod, claim, now)


def _bound(seen: ObservedPool, each: WarmSet, uid: str) -> _Judged:
    """A set that was given to a session of which no status speaks: whoever did that has not lived to write it."""
    session = seen.bound.get(uid)
    if session is None:
        return _discard(each, "the session that it was given to is gone")
    if session.set_name is not None:
        return _discard(each, "the session that it was given to has another")
    return _Judged(each, State.CLAIMED, Give(uid, session.session, each.name))


def _alive(seen: ObservedPool, each: WarmSet, pod: Manifest, claim: Manifest, now: datetime) -> _Judged:
    age = (now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()
    if pods.has_ended(pod):
        why = f"its pod has ended: {pods.why_ended(pod)}"
        return _failed(seen, each, why) if age < FAILING_SECONDS else _discard(each, why)
    current = each.report is not None and each.report.config_digest == seen.digest
    visit = Visit(pod["metadata"]["name"]) if pods.sidecar_answers(pod) and not current else None
    judged = pods.judge(pod, claim, each.report, now)
    if judged.verdict.is_ready and not pods.is_ready(pod):
        return _Judged(each, State.STARTING, visit)  # by its sidecar's word only; nobody waits for it
    if judged.verdict.is_ready and each.silent:
        return _failed(seen, each, "its sidecar does not answer although its pod is ready")
    if judged.verdict.is_ready:
        usable = current and each.report is not None and each.report.journal is JournalState.OPEN
        return _Judged(each, State.READY if usable else State.STARTING, visit)
    if judged.verdict.progress is not Progress.STALLED:
        problem = judged.verdict if judged.verdict.reason in WORTH_TELLING else None
        return _Judged(each, State.STARTING, visit, problem, judged.again)
    if age >= FAILING_SECONDS:
        return _failed(seen, each, judged.verdict.message, judged.verdict)
    return _Judged(each, State.FAILING, visit, judged.verdict, FAILING_SECONDS - age)


def _failed(seen: ObservedPool, each: WarmSet, why: str, problem: Verdict | None = None) -> _Judged:
    if seen.rest:
        return _Judged(each, State.FAILING, None, problem, seen.rest)
    return _Judged(each, State.ENDING, Discard(each, why, failed=True), problem)


def _discard(each: WarmSet, why: str) -> _Judged:
    parts = [part for part in (each.pod, each.claim) if part is not None and not is_deleting(part)]
    return _Judged(each, State.ENDING, Discard(each, why) if parts else None)


def count(states: Iterable[State]) -> dict[State, int]:
    """How many sets are in each state."""
    found = dict.fromkeys(State, 0)
    for state in states:
        found[state] += 1
    return found
