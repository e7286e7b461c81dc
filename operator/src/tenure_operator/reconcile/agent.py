"""Reconciles agents: ServiceAccount, configuration, status."""

from dataclasses import dataclass

from tenure_api import names
from tenure_api.agent import Agent, AgentStatus, SessionCount
from tenure_api.conditions import Condition, ConditionStatus, ConditionType, Reason, merge
from tenure_api.configuration import SessionConfig
from tenure_api.policy import MemoryPolicy
from tenure_operator.cache import Name, name_of
from tenure_operator.desired.account import account
from tenure_operator.desired.config import config_map, effective_policy, session_config
from tenure_operator.desired.credentials import credentials
from tenure_operator.desired.pod import pod_hash, revision_of
from tenure_operator.errors import ContendedError, RefusedError
from tenure_operator.kinds import ACCOUNTS, AGENTS, CONFIG_MAPS, HOSTS, POLICIES, POOLS, SESSIONS, Key, Manifest, Meta
from tenure_operator.probes import MISSING_SECONDS, PRESENT_SECONDS, SecretProbes
from tenure_operator.reconcile.children import Child, Create, Owner, Repair, Standing, is_deleting, step
from tenure_operator.reconcile.pool_sets import pool_conditions, pool_status
from tenure_operator.reconcile.rollout import Progression, progression
from tenure_operator.reconcile.verdict import (
    Progress,
    Verdict,
    comparable,
    condition,
    conditions,
    ready,
    stalled,
    waiting,
)
from tenure_operator.reconcile.world import Wanted, World
from tenure_operator.wakes import is_hibernated, is_running

FOREIGN_SECONDS = 10.0
ALARMS = (ConditionType.ROLLOUT_BLOCKED, ConditionType.WARM_POOL_BLOCKED)
"""Conditions that are there only while something is wrong, and worth an event."""
FIX = "which is not in this namespace: create it or change the field."


@dataclass(frozen=True)
class Observed:
    """All that is known of an agent."""

    meta: Meta
    agent: Agent
    account: Child
    config_map: Child
    config: SessionConfig | None
    """None if the policy that it refers to is missing."""
    missing_secrets: tuple[tuple[str, str], ...]
    """Field and name of each Secret that it refers to in vain."""
    sessions: SessionCount
    rollout: Progression
    """How far its sessions have come to its current spec."""


@dataclass(frozen=True)
class Plan:
    """Steps in their order, what to say, and after how many seconds to look again."""

    steps: list[Create | Repair]
    verdict: Verdict
    again: float | None = None


def decide(seen: Observed, public_keys: dict[str, str]) -> Plan:
    """The plan for an agent that is not being deleted: pure."""
    for have in (seen.account, seen.config_map):
        if have.standing is Standing.FOREIGN:
            said = f"{have.name} is not Tenure's but has the name that this agent needs: rename or delete it."
            return Plan([], stalled(Reason.NAME_CONFLICT, said), FOREIGN_SECONDS)
        if have.standing is Standing.STALE:
            said = f"{have.name} of a deleted agent of the same name is still being removed."
            return Plan([], waiting(Reason.PROGRESSING, said), 1.0)
    steps = step(seen.account, account(seen.meta))
    if seen.config is None:
        # The ConfigMap stays as it is: one without a policy would loosen what the sessions keep to.
        reference = seen.agent.spec.memory_policy_ref
        name = reference.name if reference else ""
        said = f"spec.memoryPolicyRef names MemoryPolicy {name}, {FIX}"
        return Plan(steps, waiting(Reason.POLICY_NOT_FOUND, said))
    steps += step(seen.config_map, config_map(seen.meta, seen.config, public_keys))
    if seen.missing_secrets:
        which = "; ".join(f"{field} names Secret {name}" for field, name in seen.missing_secrets)
        said = f"{which}, {FIX}"
        return Plan(steps, waiting(Reason.SECRET_NOT_FOUND, said), MISSING_SECONDS)
    return Plan(
        steps,
        ready("Sessions of this agent can be started."),
        PRESENT_SECONDS if credentials(seen.agent.spec) else None,
    )


def blocked(meta: Meta, rollout: Progression) -> list[Condition]:
    """That sessions do not start with the agent's current spec, while that is so."""
    if not rollout.failing:
        return []
    first, why = rollout.failing[0]
    more = f" and {len(rollout.failing) - 1} more" if len(rollout.failing) > 1 else ""
    kept = f" {rollout.behind} sessions go on with the previous one until then." if rollout.behind else ""
    said = f"AgentSession {first}{more} does not start with the current spec: {why} Mend the spec.{kept}"
    type_, true = ConditionType.ROLLOUT_BLOCKED, ConditionStatus.TRUE
    return [condition(type_, true, Reason.SESSIONS_FAILING, said, meta.generation)]


class AgentReconciler:
    """Makes ServiceAccount and ConfigMap of each agent as they should be, and delivers its configuration."""

    def __init__(self, world: World, probes: SecretProbes) -> None:
        self._world = world
        self._probes = probes

    async def reconcile(self, at: Key) -> float | None:
        """Looks at one agent; returns the seconds after which to look again."""
        name = (at.namespace, at.name)
        manifest = self._world.cache.get(AGENTS, *name)
        if manifest is None or is_deleting(manifest):
            self._world.wanted.pop(name, None)
            return None
        seen = await self._observe(manifest)
        plan = decide(seen, self._world.fixed.public_keys)
        try:
            await self._act(plan.steps)
        except ContendedError as error:
            await self._world.events.tell((AGENTS, seen.meta), "Warning", "Contended", "Repair", str(error))
            raise
        except RefusedError as error:
            said = f"The API server refuses what the agent needs: {error}"
            await self._report(seen, stalled(Reason.PROGRESSING, said))
            raise
        self._deliver(name, seen.config)
        await self._report(seen, plan.verdict)
        return plan.again

    async def _observe(self, manifest: Manifest) -> Observed:
        meta, agent = Meta.of(manifest), Agent.model_validate(manifest)
        sessions = self._world.cache.sessions_of(name_of(manifest))
        missing = [
            (field, reference.name)
            for field, reference in credentials(agent.spec)
            if not await self._probes.exists(meta.namespace, reference.name)
        ]
        return Observed(
            meta=meta,
            agent=agent,
            account=await self._world.child(ACCOUNTS, names.agent_account(meta.name), Owner(AGENTS, meta)),
            config_map=await self._world.child(CONFIG_MAPS, names.agent_config(meta.name), Owner(AGENTS, meta)),
            config=self._config(meta, agent),
            missing_secrets=tuple(missing),
            sessions=SessionCount(
                total=len(sessions),
                running=sum(1 for session in sessions if is_running(session)),
                hibernated=sum(1 for session in sessions if is_hibernated(session)),
            ),
            rollout=progression(self._world.cache, sessions, self._pod_hash(meta, agent)),
        )

    def _pod_hash(self, meta: Meta, agent: Agent) -> str:
        return pod_hash(meta.name, agent.spec, self._world.fixed.pods)

    def _config(self, meta: Meta, agent: Agent) -> SessionConfig | None:
        gateway = self._world.fixed.gateway_url
        if agent.spec.memory_policy_ref is None:
            return session_config(meta, agent.spec, None, gateway)
        policy = self._world.cache.get(POLICIES, meta.namespace, agent.spec.memory_policy_ref.name)
        if policy is None or is_deleting(policy):
            return None
        effective = effective_policy(Meta.of(policy), MemoryPolicy.model_validate(policy).spec)
        return session_config(meta, agent.spec, effective, gateway)

    async def _act(self, steps: list[Create | Repair]) -> None:
        for each in steps:
            match each:
                case Create(kind, manifest):
                    await self._world.create(kind, manifest)
                case Repair(kind, manifest):
                    await self._world.repair(kind, manifest)

    def _deliver(self, agent: Name, config: SessionConfig | None) -> None:
        """Has every sidecar of the agent visited if the configuration is new to us."""
        if config is None:
            return
        digest = config.digest()
        known = self._world.wanted.get(agent)
        if known is not None and known.digest == digest:
            return
        self._world.wanted[agent] = Wanted(config, digest)
        for session in self._world.cache.sessions_of(agent):
            self._world.visit(Key(SESSIONS, *name_of(session)), 0.0)
        if self._world.pools.of(agent) is not None:
            self._world.ask(Key(POOLS, *agent), 0.0)
        if self._world.cache.hosts_of(agent):
            self._world.ask(Key(HOSTS, *agent), 0.0)

    async def _report(self, seen: Observed, verdict: Verdict) -> None:
        before = seen.agent.status
        pool = self._world.pools.of((seen.meta.namespace, seen.meta.name))
        said = [
            *conditions(verdict, seen.meta.generation),
            *blocked(seen.meta, seen.rollout),
            *pool_conditions(seen.meta, pool, before),
        ]
        template = self._pod_hash(seen.meta, seen.agent)
        after = AgentStatus(
            observed_generation=seen.meta.generation,
            revision=revision_of(template, seen.config.digest()) if seen.config else before.revision,
            sessions=seen.sessions,
            warm_pool=pool_status(seen.agent, pool),
            conditions=merge(before.conditions, said, self._world.now()),
        )
        if comparable(after) == comparable(before):
            return
        await self._world.write_status(AGENTS, seen.meta, after)
        await self._tell(seen.meta, before, after)
        was = next((condition for condition in before.conditions if condition.type == "Ready"), None)
        if verdict.progress is Progress.SETTLED or verdict.reason is Reason.PROGRESSING:
            return
        if was is None or was.reason != verdict.reason:
            await self._world.events.tell((AGENTS, seen.meta), "Warning", verdict.reason, "Reconcile", verdict.message)

    async def _tell(self, meta: Meta, before: AgentStatus, after: AgentStatus) -> None:
        was = {known.type for known in before.conditions}
        for news in after.conditions:
            if news.type in ALARMS and news.type not in was:
                await self._world.events.tell((AGENTS, meta), "Warning", news.reason, "Rollout", news.message)
