"""Reconciles sessions: observe, decide, act, report."""

import logging
import re
import secrets
from dataclasses import replace
from datetime import datetime
from typing import Literal

from tenure_api import names
from tenure_api.agent import Agent
from tenure_api.conditions import Reason
from tenure_api.configuration import EffectivePolicy
from tenure_api.names import CALL_ANNOTATION, PARENT_LABEL
from tenure_api.policy import MemoryPolicy
from tenure_api.session import AgentSession, AgentSessionStatus, Hibernation, Lineage
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.config import effective_policy
from tenure_operator.desired.key import DATA_KEY_BYTES, key
from tenure_operator.desired.pod import Run, pod, pod_hash, revision_of
from tenure_operator.errors import (
    ConflictError,
    ContendedError,
    ExistsError,
    NotFoundError,
    RefusedError,
    WaitingError,
)
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, POLICIES, SECRETS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods, sleep
from tenure_operator.reconcile.belonging import Belonging
from tenure_operator.reconcile.children import Create, Repair, is_deleting
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session_conditions import Facts, FactsOfAgent
from tenure_operator.reconcile.session_plan import (
    CreateKey,
    EndPod,
    Grow,
    Hibernate,
    Observed,
    ObservedAgent,
    Plan,
    StartPod,
    Surroundings,
    decide,
    growth,
    is_outdated,
)
from tenure_operator.reconcile.session_status import COUNTERS_SECONDS, is_urgent, news, session_status
from tenure_operator.reconcile.sleep import Sleep
from tenure_operator.reconcile.verdict import Progress, comparable, stalled
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.wakes import ready_status, recovered_of, wake_of

logger = logging.getLogger(__name__)


class SessionReconciler:
    """Makes pod, volume, key and NetworkPolicy of each session as they should be."""

    def __init__(self, world: World, sidecars: Sidecars, rollout: Rollout) -> None:
        self._world = world
        self._fixed = world.fixed
        self._sidecars = sidecars
        self._rollout = rollout
        self._written: dict[Name, datetime] = {}

    async def reconcile(self, at: Key) -> float | None:
        """Looks at one session; returns the seconds after which to look again."""
        name, now = (at.namespace, at.name), self._world.now()
        manifest = self._world.cache.get(SESSIONS, *name)
        if manifest is None or is_deleting(manifest):
            self._forget(name)
            return None
        session = AgentSession.model_validate(manifest)
        lifetime = (session.spec.expires_at - now).total_seconds() if session.spec.expires_at else None
        if lifetime is not None and lifetime <= 0:
            return await self._expire(manifest)
        if lifetime is not None:
            self._world.ask(at, lifetime)  # now, since this look may fail and be backed off beyond that time
        try:
            return await self._look(manifest, session, now)
        except ConflictError:
            # Somebody has written to it meanwhile, such as a gateway that wants it awake: that must not cost a second.
            await self._world.refresh(SESSIONS, name)
            return 0.0

    async def _look(self, manifest: Manifest, session: AgentSession, now: datetime) -> float | None:
        seen = await self._observe(manifest, session)
        plan = decide(seen, self._surroundings(), now)
        try:
            seen = await self._act(seen, plan)
        except ContendedError as error:
            await self._world.events.tell((SESSIONS, seen.meta), "Warning", "Contended", "Repair", str(error))
            raise
        except RefusedError as error:
            said = f"The API server refuses what the session needs: {error}"
            await self._report(self._again(seen), Plan(verdict=stalled(Reason.POD_FAILING, said)))
            raise
        later = await self._report(seen, plan)
        self._keep_contact(seen)
        return min((delay for delay in (plan.again, later) if delay is not None), default=None)

    # --- observe -------------------------------------------------------------------------------------------------

    async def _observe(self, manifest: Manifest, session: AgentSession) -> Observed:
        meta = Meta.of(manifest)
        agent = self._agent(manifest)
        set_name = session.status.set_name or meta.name
        of = Belonging(meta, session, set_name)
        pod = await self._world.child(PODS, names.session_pod(set_name), of)
        claim = await self._world.child(CLAIMS, names.session_claim(set_name), of)
        key_exists = None
        if agent is not None and claim.live is None:
            # The cache may be behind, and a key must never be made anew over a journal: ask the API server itself.
            claim = of.child(CLAIMS, await self._world.refresh(CLAIMS, (meta.namespace, names.session_claim(set_name))))
        if agent is not None and claim.ours is not None and pod.live is None:
            key_name = names.session_key(set_name, claim.ours["metadata"]["uid"])
            key_exists = await self._world.api.secret_exists(meta.namespace, key_name)
        pod_uid = pod.live["metadata"]["uid"] if pod.live else None
        name = name_of(manifest)
        return Observed(
            meta=meta,
            session=session,
            agent=agent,
            network=await self._world.child(NETWORKS, names.session_network(set_name), of),
            claim=claim,
            pod=pod,
            key_exists=key_exists,
            sighting=self._world.sightings.of(name, pod_uid),
            idle=self._world.sightings.idle(name, pod_uid),
            sleep=Sleep(wake_of(manifest), name in self._world.needed),
            lineage=lineage_of(manifest),
            recovered=recovered_of(manifest),
            growth_refused=self._world.growth_refused.get(name),
        )

    def _agent(self, session: Manifest) -> ObservedAgent | None:
        name = agent_of(session)
        manifest = self._world.cache.get(AGENTS, *name)
        if manifest is None or is_deleting(manifest):
            return None
        meta, agent = Meta.of(manifest), Agent.model_validate(manifest)
        known = ready_status(manifest)
        ready = next((c for c in agent.status.conditions if c.type == "Ready"), None)
        return ObservedAgent(
            meta=meta,
            spec=agent.spec,
            ready=known[0] == "True" if known and known[1] == meta.generation else None,
            problem=ready.message if ready else "",
            rollout_blocked=self._rollout.is_blocked(name, session, pod_hash(meta.name, agent.spec, self._fixed.pods)),
        )

    def _surroundings(self) -> Surroundings:
        fixed = self._fixed
        return Surroundings(fixed.namespace, fixed.pods, (*self._world.api_networks, *fixed.excepted_networks))

    def _again(self, seen: Observed) -> Observed:
        """The same, with the session as it is by now: its status may have been written since."""
        manifest = self._world.cache.get(SESSIONS, seen.meta.namespace, seen.meta.name)
        if manifest is None or manifest["metadata"]["uid"] != seen.meta.uid:
            raise WaitingError("the session was deleted meanwhile")
        return replace(seen, meta=Meta.of(manifest), session=AgentSession.model_validate(manifest))

    # --- act -----------------------------------------------------------------------------------------------------

    async def _act(self, seen: Observed, plan: Plan) -> Observed:
        """Takes the steps; returns what was seen, with what has changed of it since."""
        for step in plan.steps:
            match step:
                case CreateKey():
                    await self._create_key(seen)
                case Create(kind, manifest):
                    await self._world.create(kind, manifest)
                case Repair(kind, manifest):
                    await self._world.repair(kind, manifest)
                case Grow(manifest, size):
                    await self._grow(seen, manifest, size)
                case StartPod(generation):
                    seen = await self._start_pod(seen, plan, generation)
                case Hibernate(pod, idle_seconds):
                    seen = await self._drain(seen, pod, idle_seconds)
                case EndPod(pod, between_turns, in_turn):
                    await self._end_pod(seen, pod, between_turns, in_turn)
        return seen

    def _live_claim(self, seen: Observed) -> Meta:
        found = self._world.cache.get(CLAIMS, seen.meta.namespace, names.session_claim(seen.set_name))
        if found is None:
            raise WaitingError("its claim was deleted meanwhile")
        return Meta.of(found)

    async def _create_key(self, seen: Observed) -> None:
        made = key(
            seen.set,
            self._live_claim(seen),
            data_key=secrets.token_bytes(DATA_KEY_BYTES),
            pod_token=secrets.token_urlsafe(32),
        )
        try:
            await self._world.api.create(SECRETS, made)
        except ExistsError:
            return  # made by a run of ours that got no further: its name has the claim's UID

    async def _grow(self, seen: Observed, manifest: Manifest, size: str) -> None:
        """Not every StorageClass lets its volumes grow; the session goes on with what it has."""
        name = (seen.meta.namespace, seen.meta.name)
        try:
            await self._world.repair(CLAIMS, manifest)
        except RefusedError as error:
            self._world.growth_refused[name] = size
            said = f"The volume cannot grow to {size}: {error}"
            await self._world.events.tell((SESSIONS, seen.meta), "Warning", "ExpansionRefused", "Grow", said)

    async def _start_pod(self, seen: Observed, plan: Plan, generation: int) -> Observed:
        """The lease is taken in the status before there is the pod: no two pods are ever given the same one."""
        if seen.agent is None:
            raise ValueError("a pod is made of its agent's spec")
        await self._report(seen, plan, generation)
        run = Run(self._live_claim(seen).uid, generation, seen.session.spec.source)
        await self._world.create(PODS, pod(seen.set, run, seen.agent.spec, self._fixed.pods))
        return self._again(seen)

    async def _drain(self, seen: Observed, pod: Manifest, idle_seconds: float) -> Observed:
        """Raises `WaitingError` if the session is in use after all; it is looked at again after the next visit."""
        name, uid = (seen.meta.namespace, seen.meta.name), pod["metadata"]["uid"]
        address = Address(self._live_claim(seen).uid, pod["status"].get("podIP", ""))
        try:
            report = await self._sidecars.drain(address, idle_seconds)
        except WaitingError:
            self._world.visit(Key(SESSIONS, *name), 0.0)
            raise
        self._world.sightings.saw(name, uid, report)
        return replace(seen, sighting=self._world.sightings.of(name, uid))

    async def _end_pod(self, seen: Observed, pod: Manifest, between_turns: bool, in_turn: bool) -> None:
        session, agent = (seen.meta.namespace, seen.meta.name), (seen.meta.namespace, seen.session.spec.agent_ref.name)
        if in_turn and not self._rollout.take(agent, session):
            raise WaitingError("another session of this agent is being replaced")
        if between_turns and pods.sidecar_answers(pod):
            try:
                await self._drain(seen, pod, 0.0)
            except WaitingError:
                self._rollout.give_back(agent, session)
                raise
        if not between_turns:
            if delay := self._world.restraint.delay((PODS, session)):
                raise WaitingError(f"its pod ends again and again; {delay:.0f} s rest")
            self._world.restraint.note((PODS, session))
        await self._world.delete(PODS, pod)

    # --- report --------------------------------------------------------------------------------------------------

    async def _report(self, seen: Observed, plan: Plan, generation: int | None = None) -> float | None:
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
        since = (now - self._written.setdefault(name, now)).total_seconds()
        if generation is None and not is_urgent(before, after) and since < COUNTERS_SECONDS:
            return COUNTERS_SECONDS - since
        await self._world.write_status(SESSIONS, seen.meta, after)
        self._written[name] = now
        await self._tell(seen.meta, before, plan)
        for condition in news(before.conditions, after.conditions):
            about, reason = (SESSIONS, seen.meta), condition.reason
            type_: Literal["Normal", "Warning"] = "Warning" if reason == Reason.OUTCOME_UNKNOWN else "Normal"
            await self._world.events.tell(about, type_, reason, "Report", condition.message)
        if plan.verdict.is_ready and before.pod_ip != after.pod_ip:
            self._next_in_rollout(name)
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
            revision=self._revision(seen),
            growth=growth(seen),
            growth_refused=seen.growth_refused is not None,
            agent=facts_of(seen.agent) if seen.agent else None,
            policy=self._policy(where, policy_name),
            lineage=seen.lineage,
            recovered=seen.recovered,
        )

    def _hibernation(self, seen: Observed) -> Hibernation:
        known = seen.session.status.hibernation
        return known or sleep.hibernation(seen.session, seen.report, self._world.now())

    def _revision(self, seen: Observed) -> str | None:
        """The agent's revision, once the session's pod is made to it and its sidecar has acknowledged it."""
        wanted = self._world.wanted.get((seen.meta.namespace, seen.session.spec.agent_ref.name))
        if seen.agent is None or seen.pod.live is None or wanted is None or seen.report is None:
            return None
        current = pod_hash(seen.agent.meta.name, seen.agent.spec, self._fixed.pods)
        if is_outdated(seen.pod.live, current) or seen.report.config_digest != wanted.digest:
            return None
        return revision_of(current, wanted.digest)

    def _policy(self, namespace: str, name: str | None) -> EffectivePolicy | None:
        manifest = self._world.cache.get(POLICIES, namespace, name) if name else None
        if manifest is None:
            return None
        return effective_policy(Meta.of(manifest), MemoryPolicy.model_validate(manifest).spec)

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

    def _next_in_rollout(self, session: Name) -> None:
        """This session is ready again: lets the next one of its agent have its pod replaced."""
        manifest = self._world.cache.get(SESSIONS, *session)
        agent = self._world.cache.get(AGENTS, *agent_of(manifest)) if manifest else None
        if agent is not None:
            wanted = pod_hash(agent["metadata"]["name"], Agent.model_validate(agent).spec, self._fixed.pods)
            self._rollout.done(name_of(agent), session, wanted)

    def _keep_contact(self, seen: Observed) -> None:
        """Has a sidecar visited as soon as it has started; each visit asks for the next."""
        name = (seen.meta.namespace, seen.meta.name)
        pod = self._world.cache.get(PODS, seen.meta.namespace, names.session_pod(seen.set_name))
        if pod is not None and pods.sidecar_answers(pod) and not self._world.sightings.of(name, pod["metadata"]["uid"]):
            self._world.visit(Key(SESSIONS, *name), 0.0)

    # --- the end -------------------------------------------------------------------------------------------------

    async def _expire(self, manifest: Manifest) -> float | None:
        """Deletes the session, but only as it was when it was found to be expired: it may have been prolonged since."""
        meta = Meta.of(manifest)
        version = manifest["metadata"]["resourceVersion"]
        try:
            await self._world.api.delete(SESSIONS, meta.namespace, meta.name, meta.uid, version)
        except (NotFoundError, ConflictError):
            await self._world.refresh(SESSIONS, (meta.namespace, meta.name))
            return 0.0
        said = f"The session has reached its expiresAt, {manifest['spec']['expiresAt']}, and is deleted with its state."
        await self._world.events.tell((SESSIONS, meta), "Normal", Reason.EXPIRED, "Delete", said)
        return None

    def _forget(self, session: Name) -> None:
        self._world.sightings.forget(session)
        self._written.pop(session, None)
        self._world.growth_refused.pop(session, None)
        self._rollout.forget(session)


WORTH_TELLING = (Reason.AGENT_NOT_FOUND, Reason.AGENT_NOT_READY, Reason.POD_UNSCHEDULABLE, Reason.VOLUME_PENDING)
"""Reasons that pass by themselves but that someone may have to do something about."""


CALL = re.compile(r"[0-9a-f]{32}/[0-9]{1,9}")


def lineage_of(session: Manifest) -> Lineage | None:
    """Where a session comes from, by what the gateway has written on it; None if that is not well formed."""
    meta = session["metadata"]
    parent, call = meta.get("labels", {}).get(PARENT_LABEL), meta.get("annotations", {}).get(CALL_ANNOTATION, "")
    return Lineage(parent=parent, call=call) if parent and CALL.fullmatch(call) else None


def facts_of(agent: ObservedAgent) -> FactsOfAgent:
    """What a session's status says about its agent."""
    policy = agent.spec.memory_policy_ref
    return FactsOfAgent(agent.meta.generation, len(agent.spec.tools), policy.name if policy else None)
