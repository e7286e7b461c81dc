"""Reconciles policies: only their status. Delivery is the business of the agents that refer to them."""

from tenure_api.conditions import Reason, merge
from tenure_api.policy import Delivery, MemoryPolicy, MemoryPolicyStatus
from tenure_operator.cache import Cache, name_of
from tenure_operator.kinds import POLICIES, Key, Manifest, Meta
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.verdict import Verdict, comparable, conditions, ready, waiting
from tenure_operator.reconcile.world import World
from tenure_operator.wakes import is_running


def delivery(cache: Cache, policy: Meta) -> tuple[int, Delivery]:
    """Agents that refer to the policy, and how many of their running sessions enforce its current generation."""
    agents = cache.agents_with((policy.namespace, policy.name))
    running = [s for agent in agents for s in cache.sessions_of(name_of(agent)) if is_running(s)]
    wanted = {"name": policy.name, "generation": policy.generation}
    current = sum(1 for session in running if session["status"].get("policy") == wanted)
    return len(agents), Delivery(total=len(running), current=current)


def judge(policy: Meta, sessions: Delivery) -> Verdict:
    """What to say of a policy."""
    if sessions.current < sessions.total:
        said = f"{sessions.current} of {sessions.total} running sessions enforce generation {policy.generation}."
        return waiting(Reason.DELIVERING, said)
    if sessions.total == 0:
        return ready("No session that this policy governs is running.", Reason.DELIVERED)
    return ready(f"All running sessions enforce generation {policy.generation}.", Reason.DELIVERED)


class PolicyReconciler:
    """Tells how far each policy has come."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reconcile(self, at: Key) -> float | None:
        """Looks at one policy."""
        manifest = self._world.cache.get(POLICIES, at.namespace, at.name)
        if manifest is None or is_deleting(manifest):
            return None
        await self._report(Meta.of(manifest), manifest)
        return None

    async def _report(self, meta: Meta, manifest: Manifest) -> None:
        before = MemoryPolicy.model_validate(manifest).status
        agents, sessions = delivery(self._world.cache, meta)
        said = conditions(judge(meta, sessions), meta.generation)
        after = MemoryPolicyStatus(
            observed_generation=meta.generation,
            agents=agents,
            sessions=sessions,
            conditions=merge(before.conditions, said, self._world.now()),
        )
        if comparable(after) != comparable(before):
            await self._world.write_status(POLICIES, meta, after)
