"""When a session sleeps and what wakes it: pure.

A session that sleeps has no pod. What it is to do is decided from what it says of itself, never from clocks of two
machines: a wake is asked for by the lease generation that is to be over, so it holds once, whoever asks how often.
"""

from dataclasses import dataclass
from datetime import datetime

from tenure_api.conditions import Reason
from tenure_api.report import Report
from tenure_api.session import (
    AgentSession,
    EffectiveMode,
    Hibernation,
    HibernationReason,
    OperatingMode,
)
from tenure_operator.reconcile.verdict import Verdict, ready


@dataclass(frozen=True)
class Sleep:
    """What is known of a session's sleep, besides what its status says."""

    wake: int | None = None
    """The lease generation that somebody wants to be over."""
    needed: bool = False
    """Another session is made from this one just now."""


def generation_of(session: AgentSession) -> int:
    """The lease generation of the session's last run; 0 if it never ran."""
    return session.status.lease.generation if session.status.lease else 0


def is_asleep(session: AgentSession) -> bool:
    """Whether the session sleeps, or is new and is to begin so."""
    if session.status.effective_mode is None:
        return session.spec.operating_mode is OperatingMode.HIBERNATED
    return session.status.effective_mode is EffectiveMode.HIBERNATED


def is_to_wake(session: AgentSession, sleep: Sleep, now: datetime) -> bool:
    """Whether a session that sleeps is to run."""
    if sleep.needed or sleep.wake == generation_of(session):
        return True
    if session.spec.operating_mode is OperatingMode.HIBERNATED:
        return False
    hibernation = session.status.hibernation
    if hibernation is None or hibernation.reason is HibernationReason.REQUESTED:
        return True
    return hibernation.wake_at is not None and hibernation.wake_at <= now


def until_awake(session: AgentSession, now: datetime) -> float | None:
    """Seconds until a session that sleeps wakes by itself; None if it does not."""
    hibernation = session.status.hibernation
    if session.spec.operating_mode is OperatingMode.HIBERNATED or hibernation is None or hibernation.wake_at is None:
        return None
    return max((hibernation.wake_at - now).total_seconds(), 0.0)


def patience(session: AgentSession, sleep: Sleep, idle_timeout: int) -> float:
    """Seconds that a session that runs must have been idle before it is put to sleep.

    One that is to be kept asleep sleeps as soon as it can, unless somebody who may has woken it for this run.
    """
    kept_asleep = session.spec.operating_mode is OperatingMode.HIBERNATED
    woken_for_this = sleep.wake is not None and sleep.wake == generation_of(session) - 1
    return 0.0 if kept_asleep and not woken_for_this else float(idle_timeout)


def hibernation(session: AgentSession, report: Report | None, now: datetime) -> Hibernation:
    """What the status says of a session that is put to sleep."""
    kept_asleep = session.spec.operating_mode is OperatingMode.HIBERNATED
    until = report.suspended.until if report and report.suspended else None
    return Hibernation(
        since=now.replace(microsecond=0),
        reason=HibernationReason.REQUESTED if kept_asleep else HibernationReason.IDLE,
        wake_at=until,
    )


def asleep(session: AgentSession) -> Verdict:
    """The verdict on a session that sleeps: it is as it should be."""
    if session.spec.operating_mode is OperatingMode.HIBERNATED:
        said = (
            "The session sleeps, as spec.operatingMode says. Set it to Running, or have it woken by someone who may "
            "`wake` agentsessions."
        )
    else:
        said = "The session sleeps, for nobody has used it for a while. The next request at the gateway wakes it."
    return ready(said, Reason.HIBERNATED)
