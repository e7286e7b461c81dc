"""What this process knows of warm pools besides what is in the cache: which sets can be claimed, and who claims them.

In memory only. Whatever is lost with it is found again: a set's sidecar says to whom it is bound.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tenure_api.agent import Agent, AgentStatus, WarmPoolStatus
from tenure_api.conditions import Condition, ConditionStatus, ConditionType
from tenure_operator.cache import Name
from tenure_operator.kinds import Meta
from tenure_operator.reconcile.pool_plan import State, WarmSet
from tenure_operator.reconcile.session_conditions import FactsOfAgent
from tenure_operator.reconcile.verdict import Verdict, condition
from tenure_operator.sightings import Sightings

QUIET_SECONDS = 1.5
"""For how long no session must have been started before a pool is refilled. No round number: whatever makes a session
every second would meet with the refill each time."""
LONGEST_QUIET_SECONDS = 5.0
"""For how long a refill is put off at most."""
PATIENCE_SECONDS = 3.0
"""How long a new session waits for sets of which this process knows only that their pods are ready."""


@dataclass
class Pool:
    """The pool of one agent, as its reconciler has last seen it."""

    agent: Meta
    size: int
    facts: FactsOfAgent
    revision: str
    """Of a session that claims one of its sets."""
    digest: str
    ready: list[str] = field(default_factory=list)
    """Names of sets that a session can claim."""
    unsure: bool = False
    """Some may be ready, but their sidecars have not told this process yet."""
    status: WarmPoolStatus | None = None
    problem: Verdict | None = None
    states: dict[str, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """To whom a set is given just now."""

    agent: Name
    session: Name
    uid: str


class Pools:
    """All pools."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_agent: dict[Name, Pool] = {}
        self._given: dict[Name, Given] = {}
        self._bound: dict[str, Name] = {}
        self._began: float | None = None
        self.sightings = Sightings(clock)
        """By set."""
        self.making: set[Name] = set()
        """Sets that this process is about to make."""
        self._refused: dict[Name, tuple[Meta, Verdict | None]] = {}
        self._rush_began = self._rush = float("-inf")

    def age(self) -> float:
        """For how many seconds new sessions have wanted sets of this process."""
        if self._began is None:
            self._began = self._clock()
        return self._clock() - self._began

    # --- pools ---------------------------------------------------------------------------------------------------

    def of(self, agent: Name) -> Pool | None:
        """The pool of an agent, if it has been looked at."""
        return self._by_agent.get(agent)

    def put(self, agent: Name, pool: Pool) -> None:
        """Remembers a pool."""
        self._by_agent[agent] = pool

    def forget(self, agent: Name) -> None:
        """The agent has no pool."""
        self._by_agent.pop(agent, None)
        self._refused.pop(agent, None)

    def count(self, state: State) -> int:
        """How many sets of all pools are in a state."""
        return sum(1 for pool in self._by_agent.values() for each in pool.states.values() if each is state)

    # --- claims --------------------------------------------------------------------------------------------------

    def take(self, agent: Name, session: Name, uid: str) -> Name | None:
        """Reserves a set for a session: the very one that is bound to it, else any that is ready."""
        pool = self._by_agent.get(agent)
        if (found := self._bound.get(uid)) is None and pool is not None and pool.ready:
            found = (agent[0], pool.ready.pop(0))
        if found is not None:
            self._given[found] = Given(agent, session, uid)
        return found

    def bind(self, uid: str, set_: Name) -> None:
        """The set is bound to the session with this UID."""
        self._bound[uid] = set_

    def fail(self, set_: Name, uid: str) -> None:
        """The set could not be given to the session; whether it is bound to it, its sidecar must tell."""
        self._given.pop(set_, None)
        self._bound.pop(uid, None)
        self.sightings.forget(set_)

    def given(self, set_: Name) -> Given | None:
        """To whom the set is given, if it is."""
        return self._given.get(set_)

    def settle(self, uid: str) -> None:
        """No set is given to the session with this UID any more: its status speaks of one now, or it needs none."""
        if set_ := self._bound.pop(uid, None):
            self._given.pop(set_, None)

    def prune(self, agent: Name, there: set[str]) -> None:
        """Forgets what is not among the sets of an agent any more."""
        for set_, given in list(self._given.items()):
            if given.agent == agent and set_[1] not in there:
                del self._given[set_]
                self._bound.pop(given.uid, None)
        before = self._by_agent.get(agent)
        for gone in (set(before.states) if before else set()) - there:
            self.sightings.forget((agent[0], gone))

    def observed(self, namespace: str, each: WarmSet) -> WarmSet:
        """The set with what its sidecar has told."""
        seen = self.sightings.of((namespace, each.name), each.pod["metadata"]["uid"] if each.pod else None)
        return replace(each, report=seen.report, silent=seen.silent) if seen else each

    def note_refusal(self, agent: Meta, problem: Verdict | None) -> None:
        """The API server refuses what a set of this agent needs; or does no more, if there is no problem."""
        self._refused.pop((agent.namespace, agent.name), None)
        if problem is not None:
            self._refused[agent.namespace, agent.name] = agent, problem

    def refused(self, agent: Meta) -> Verdict | None:
        """What the API server has refused of the agent as it is now."""
        of, problem = self._refused.get((agent.namespace, agent.name), (agent, None))
        return problem if of.generation == agent.generation else None

    # --- when to refill ------------------------------------------------------------------------------------------

    def note_start(self) -> None:
        """A session is started, from a pool or without one: its start must not wait for pools that are filled."""
        now = self._clock()
        if now - self._rush >= QUIET_SECONDS:
            self._rush_began = now
        self._rush = now

    def is_rush(self) -> bool:
        """Whether a session was started just now."""
        return self._clock() - self._rush < QUIET_SECONDS

    def quiet(self) -> float:
        """Seconds until pools may be refilled."""
        until = min(self._rush + QUIET_SECONDS, self._rush_began + LONGEST_QUIET_SECONDS)
        return max(0.0, until - self._clock())


def pool_status(agent: Agent, pool: Pool | None) -> WarmPoolStatus | None:
    """What an agent's status says of its pool: what it said before while this process does not know."""
    if not agent.spec.session.warm_pool.size:
        return None
    return agent.status.warm_pool if pool is None else pool.status


def pool_conditions(agent: Meta, pool: Pool | None, before: AgentStatus) -> list[Condition]:
    """The condition of an agent whose sets do not start, while they do not."""
    type_ = ConditionType.WARM_POOL_BLOCKED
    if pool is None:
        return [known for known in before.conditions if known.type == type_]
    if pool.problem is None or not pool.size:
        return []
    said = f"Sets of the warm pool do not start, so sessions are started without one. {pool.problem.message}"
    return [condition(type_, ConditionStatus.TRUE, pool.problem.reason, said, agent.generation)]
