"""One session of an agent after the other is moved to a new revision, and none while one does not start with it."""

from dataclasses import dataclass
from datetime import datetime

from tenure_api import names
from tenure_operator.cache import Cache, Name, agent_of, name_of
from tenure_operator.kinds import PODS, SESSIONS, Key, Manifest
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.session_plan import is_outdated
from tenure_operator.reconcile.world import World
from tenure_operator.wakes import failing, is_hibernated

STARTING_SECONDS = 20.0
"""How long a pod may take to become ready before it holds up the others."""


@dataclass(frozen=True)
class Progression:
    """How far an agent's sessions have come to its current spec."""

    failing: tuple[tuple[str, str], ...] = ()
    """Sessions that do not start with it, and why."""
    behind: int = 0
    """Sessions that run with an older one."""


def progression(cache: Cache, sessions: list[Manifest], wanted: str) -> Progression:
    """By the sessions' pods; `wanted` is the hash of those that are made to the current spec."""
    found, behind = [], 0
    for session in sessions:
        pod, why = pod_of(cache, session), failing(session)
        if pod is None:
            continue
        if is_outdated(pod, wanted):
            behind += 1
        elif why is not None:
            found.append((session["metadata"]["name"], why))
    return Progression(tuple(sorted(found)), behind)


def pod_of(cache: Cache, session: Manifest) -> Manifest | None:
    """The pod of a session, if it has one."""
    set_name = session.get("status", {}).get("setName") or session["metadata"]["name"]
    return cache.get(PODS, session["metadata"]["namespace"], names.session_pod(set_name))


class Rollout:
    """Whose turn it is. In memory only: after a restart another session may be the first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._replacing: dict[Name, Name] = {}

    def is_blocked(self, agent: Name, session: Manifest, wanted: str) -> bool:
        """Whether another session is being replaced, or does not start with the settings that ours is to have.

        `wanted` is the hash of those. Looks around only if ours is to be replaced.
        """
        ours = self._pod(session)
        if ours is None or not is_outdated(ours, wanted):
            return False
        self._settle(agent, wanted)
        mine = name_of(session)
        others = [other for other in self._world.cache.sessions_of(agent) if name_of(other) != mine]
        return self._replacing.get(agent, mine) != mine or any(
            (pod := self._pod(other)) is not None and self._fails(pod) for other in others
        )

    def take(self, agent: Name, session: Name) -> bool:
        """Takes the place before the next await: two sessions must not find it free at the same time."""
        return self._replacing.setdefault(agent, session) == session

    def give_back(self, agent: Name, session: Name) -> None:
        """The session is not replaced now."""
        if self._replacing.get(agent) == session:
            del self._replacing[agent]

    def done(self, agent: Name, session: Name, wanted: str) -> None:
        """The session is ready with the settings of this hash: asks for the next one that is not."""
        self.give_back(agent, session)
        for other in self._world.cache.sessions_of(agent):
            pod = self._pod(other)
            if pod is not None and is_outdated(pod, wanted):
                self._world.ask(Key(SESSIONS, *name_of(other)), 0.0)
                return

    def forget(self, session: Name) -> None:
        """The session is gone."""
        for agent in [agent for agent, replaced in self._replacing.items() if replaced == session]:
            del self._replacing[agent]

    def _settle(self, agent: Name, wanted: str) -> None:
        """Frees the place of one that is done, though its status has not told us, or that sleeps."""
        holder = self._replacing.get(agent)
        manifest = self._world.cache.get(SESSIONS, *holder) if holder else None
        if holder is None:
            return
        if manifest is None or agent_of(manifest) != agent or is_hibernated(manifest):
            del self._replacing[agent]
            return
        held = self._pod(manifest)
        if held is not None and pods.is_ready(held) and not is_outdated(held, wanted):
            del self._replacing[agent]

    def _fails(self, pod: Manifest) -> bool:
        """Whether a pod has had the time to become ready and is not. One that starts says nothing: sessions wake."""
        age = (self._world.now() - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()
        return age > STARTING_SECONDS and not pods.is_ready(pod)

    def _pod(self, session: Manifest) -> Manifest | None:
        return pod_of(self._world.cache, session)
