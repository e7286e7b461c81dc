"""Says in a session's status how it is, if that is news, and in events what somebody may have to do something about."""

from datetime import datetime
from typing import Literal

from tenure_api import names
from tenure_api.conditions import Reason
from tenure_api.configuration import EffectivePolicy
from tenure_api.policy import MemoryPolicy
from tenure_api.report import Report
from tenure_api.session import AgentSessionStatus, Hibernation
from tenure_operator.cache import Name
from tenure_operator.desired.config import effective_policy
from tenure_operator.desired.pod import revision_of
from tenure_operator.kinds import CLAIMS, PODS, POLICIES, SESSIONS, Manifest, Meta
from tenure_operator.reconcile import sleep
from tenure_operator.reconcile.belonging import Belonging
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session_conditions import Facts, FactsOfAgent
from tenure_operator.reconcile.session_plan import (
    Observed,
    ObservedAgent,
    Plan,
    growth,
    is_outdated,
)
from tenure_operator.reconcile.session_status import COUNTERS_SECONDS, is_urgent, news, session_status
from tenure_operator.reconcile.verdict import Progress, comparable
from tenure_operator.reconcile.world import World

WORTH_TELLING = (
    Reason.AGENT_NOT_FOUND,
    Reason.AGENT_NOT_READY,
    Reason.POD_UNSCHEDULABLE,
    Reason.VOLUME_PENDING,
    Reason.NODE_UNREACHABLE,
    Reason.VOLUME_UNREACHABLE,
)
"""Reasons that pass by themselves but that someone may have to do something about."""


class Statuses:
    """The statuses of sessions as this process has written them: counters alone are written only now and then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._written: dict[Name, datetime] = {}

    def forget(self, session: Name) -> None:
        """The session is gone."""
        self._written.pop(session, None)

    def pause(self, session: Name, before: AgentSessionStatus, after: AgentSessionStatus, now: datetime) -> float:
        """Seconds for which the status need not be written, since only counters in it are new; 0 if it is to be."""
        since = (now - self._written.setdefault(session, now)).total_seconds()
        return 0.0 if is_urgent(before, after) else max(COUNTERS_SECONDS - since, 0.0)

    async def write(self, meta: Meta, after: AgentSessionStatus, now: datetime) -> None:
        """Writes a status. Raises `ConflictError`."""
        await self._world.write_status(SESSIONS, meta, after)
        self._written[meta.namespace, meta.name] = now


class Reporter:
    """Writes the status of sessions."""

    def __init__(self, world: World, rollout: Rollout) -> None:
        self._world = world
        self._fixed = world.fixed
        self._rollout = rollout
        self._statuses = Statuses(world)

    def forget(self, session: Name) -> None:
        """The session is gone."""
        self._statuses.forget(session)

    async def report(self, seen: Observed, plan: Plan, generation: int | None = None) -> float | None:
        """Writes the status if it says anything new; returns the seconds until counters alone may be written.

        `generation` is that of the lease which is taken with it.
        """
        if plan.verdict is None:
            return None
        now = self._world.now()
        name, before = (seen.meta.namespace, seen.meta.name), seen.session.status
        after = session_status(before, self._facts(seen, plan, generation), now)
        if comparable(after) == comparable(before):
            return None
        if generation is None and (pause := self._statuses.pause(name, before, after, now)):
            return pause
        await self._statuses.write(seen.meta, after, now)
        await self._tell(seen.meta, before, plan)
        await tell_news(self._world, seen.meta, before, after)
        if plan.verdict.is_ready and before.pod_ip != after.pod_ip and seen.agent is not None:
            # It is ready again: the next session of its agent may have its pod replaced.
            self._rollout.done((name[0], seen.agent.meta.name), name, seen.agent.pod_hash)
        return None

    def _facts(self, seen: Observed, plan: Plan, generation: int | None) -> Facts:
        if plan.verdict is None:
            raise ValueError("a status says a verdict")
        where, of = seen.meta.namespace, Belonging(seen.meta, seen.session, seen.set_name)
        policy_name = (
            seen.agent.spec.memory_policy_ref.name if seen.agent and seen.agent.spec.memory_policy_ref else None
        )
        return Facts(
            meta=seen.meta,
            agent_name=seen.session.spec.agent_ref.name,
            set_name=seen.set_name,
            verdict=plan.verdict,
            pod=of.child(PODS, self._world.cache.get(PODS, where, names.session_pod(seen.set_name))).ours,
            claim=of.child(CLAIMS, self._world.cache.get(CLAIMS, where, names.session_claim(seen.set_name))).ours,
            sighting=seen.sighting,
            lease=generation,
            hibernation=self._hibernation(seen) if plan.asleep else None,
            revision=revision(
                self._world, (where, seen.agent.meta.name), seen.agent.pod_hash, seen.pod.live, seen.report
            )
            if seen.agent
            else None,
            growth=growth(seen),
            growth_refused=seen.growth_refused is not None,
            agent=facts_of(seen.agent) if seen.agent else None,
            policy=policy_named(self._world, where, policy_name),
            lineage=seen.lineage,
            recovered=seen.recovered,
        )

    def _hibernation(self, seen: Observed) -> Hibernation:
        known = seen.session.status.hibernation
        return known or sleep.hibernation(seen.session, seen.report, self._world.now())

    async def _tell(self, meta: Meta, before: AgentSessionStatus, plan: Plan) -> None:
        """Records what someone may have to do something about; that all is well, the conditions say."""
        verdict = plan.verdict
        if plan.lost_volume:
            said = f"The volume {before.volume_claim_name} is gone with all that was in it; the session begins anew."
            await self._world.events.tell((SESSIONS, meta), "Warning", "VolumeLost", "Start", said)
        was = next((condition for condition in before.conditions if condition.type == "Ready"), None)
        if verdict is None or (was and (was.status, was.reason) == (verdict.ready, verdict.reason)):
            return
        if verdict.progress is Progress.STALLED or verdict.reason in WORTH_TELLING:
            await self._world.events.tell((SESSIONS, meta), "Warning", verdict.reason, "Reconcile", verdict.message)


async def tell_news(world: World, meta: Meta, before: AgentSessionStatus, after: AgentSessionStatus) -> None:
    """Records what a person is asked for that was not asked for before."""
    for told in news(before.conditions, after.conditions):
        type_: Literal["Normal", "Warning"] = "Warning" if told.reason == Reason.OUTCOME_UNKNOWN else "Normal"
        await world.events.tell((SESSIONS, meta), type_, told.reason, "Report", told.message)


def revision(world: World, agent: Name, template: str, pod: Manifest | None, report: Report | None) -> str | None:
    """The agent's revision, once a pod is made to it and its sidecar has acknowledged it.

    `template` is the hash of what the agent's pods are made to.
    """
    wanted = world.wanted.get(agent)
    if pod is None or wanted is None or report is None:
        return None
    if is_outdated(pod, template) or report.config_digest != wanted.digest:
        return None
    return revision_of(template, wanted.digest)


def policy_named(world: World, namespace: str, name: str | None) -> EffectivePolicy | None:
    """A policy as sidecars enforce it; None if it is missing, or if none is named."""
    manifest = world.cache.get(POLICIES, namespace, name) if name else None
    if manifest is None:
        return None
    return effective_policy(Meta.of(manifest), MemoryPolicy.model_validate(manifest).spec)


def facts_of(agent: ObservedAgent) -> FactsOfAgent:
    """What a session's status says about its agent."""
    policy = agent.spec.memory_policy_ref
    return FactsOfAgent(agent.meta.generation, len(agent.spec.tools), policy.name if policy else None)
