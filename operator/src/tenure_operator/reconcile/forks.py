"""Sessions that begin with the history of another: whether they may, and which sessions they need awake: pure."""

from dataclasses import dataclass

from tenure_api.conditions import Reason
from tenure_api.session import AgentSession, ForkFrom
from tenure_operator.cache import Name
from tenure_operator.reconcile.verdict import Verdict, stalled, waiting
from tenure_operator.sidecars import Address


@dataclass(frozen=True)
class SourceSeen:
    """The session that another is made from, as it is."""

    agent: str
    subject: str
    address: Address | None
    """Where its sidecar is, while it runs."""
    unfit: str | None = None
    """Why its sidecar has refused to give what the spec asks for."""


def fork_of(session: AgentSession) -> ForkFrom | None:
    """What a session is still to be made from; None once it has that, or if it begins empty."""
    source = session.spec.source
    return source.fork_from if source is not None and session.status.origin is None else None


def obstacle(session: AgentSession, source: SourceSeen | None) -> Verdict | None:
    """Why a session cannot be made from its source; None if it can."""
    fork = fork_of(session)
    if fork is None:
        return None
    if source is None:
        said = f"spec.source.forkFrom names AgentSession {fork.session}, which is not in this namespace."
        return waiting(Reason.SOURCE_UNAVAILABLE, said)
    if source.subject != session.spec.subject:
        said = f"spec.source.forkFrom names AgentSession {fork.session}, which is another subject's."
        return stalled(Reason.SOURCE_INVALID, f"{said} Create the session anew for that subject.")
    if source.agent != session.spec.agent_ref.name:
        said = f"spec.source.forkFrom names AgentSession {fork.session} of agent {source.agent}."
        return stalled(Reason.SOURCE_INVALID, f"{said} Create the session anew with that agent.")
    if source.unfit is not None:
        said = f"spec.source.forkFrom asks for what AgentSession {fork.session} has not: {source.unfit}"
        return stalled(Reason.SOURCE_INVALID, f"{said} Create the session anew with another atSequence.")
    return None


class Needs:
    """Which sessions must run because others are made from them. In memory only: each look at a fork says it anew."""

    def __init__(self) -> None:
        self._by_source: dict[Name, set[Name]] = {}
        self.unfit: dict[Name, str] = {}
        """By fork, why it cannot be made as its spec says."""

    def need(self, source: Name, fork: Name) -> bool:
        """The fork needs its source awake; whether that is news."""
        forks = self._by_source.setdefault(source, set())
        news = fork not in forks
        forks.add(fork)
        return news

    def release(self, fork: Name) -> list[Name]:
        """The fork has what it needs, or is gone; returns the sources that are not needed any more."""
        self.unfit.pop(fork, None)
        free = []
        for source in [source for source, forks in self._by_source.items() if fork in forks]:
            self._by_source[source].discard(fork)
            if not self._by_source[source]:
                del self._by_source[source]
                free.append(source)
        return free

    def is_needed(self, session: Name) -> bool:
        """Whether the session must run."""
        return session in self._by_source
