"""Reconciles sessions: observe, decide, act, report."""

import logging
import re
import secrets
from datetime import datetime
from typing import Literal

from tenure_api import names
from tenure_api.agent import Agent
from tenure_api.conditions import Reason
from tenure_api.configuration import EffectivePolicy
from tenure_api.names import CALL_ANNOTATION, PARENT_LABEL
from tenure_api.policy import MemoryPolicy
from tenure_api.session import AgentSession, AgentSessionStatus, Lineage
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.config import effective_policy
from tenure_operator.desired.key import DATA_KEY_BYTES, key
from tenure_operator.desired.pod import pod_hash
from tenure_operator.errors import (
    ConflictError,
    ContendedError,
    ExistsError,
    NotFoundError,
    RefusedError,
    WaitingError,
)
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, POLICIES, SECRETS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import Create, Repair, child, is_deleting
from tenure_operator.reconcile.session_conditions import Facts, FactsOfAgent
from tenure_operator.reconcile.session_plan import (
    CreateKey,
    EndPod,
    Observed,
    ObservedAgent,
    Plan,
    Step,
    Surroundings,
    decide,
    is_idle,
    is_outdated,
)
from tenure_operator.reconcile.session_status import COUNTERS_SECONDS, is_urgent, news, session_status
from tenure_operator.reconcile.verdict import Progress, Verdict, comparable, stalled
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.wakes import ready_status, recovered_of

logger = logging.getLogger(__name__)


class SessionReconciler:
    """Makes pod, volume, key and NetworkPolicy of each session as they should be."""

    def __init__(self, world: World, sidecars: Sidecars) -> None:
        self._world = world
        self._sidecars = sidecars
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
        seen = await self._observe(manifest, session)
        plan = decide(seen, self._surroundings(), now)
        try:
            await self._act(seen, plan.steps)
        except ContendedError as error:
            await self._world.events.tell((SESSIONS, seen.meta), "Warning", "Contended", "Repair", str(error))
            raise
        except RefusedError as error:
            said = f"The API server refuses what the session needs: {error}"
            await self._report(seen, Plan(verdict=stalled(Reason.POD_FAILING, said)), now)
            raise
        later = await self._report(seen, plan, now)
        self._keep_contact(name)
        return min((delay for delay in (plan.again, later) if delay is not None), default=None)

    # --- observe -------------------------------------------------------------------------------------------------

    async def _observe(self, manifest: Manifest, session: AgentSession) -> Observed:
        meta = Meta.of(manifest)
        agent = self._agent(manifest)
        pod = await self._world.child(PODS, names.session_pod(meta.name), SESSIONS, meta)
        claim = await self._world.child(CLAIMS, names.session_claim(meta.name), SESSIONS, meta)
        key_exists = None
        if agent is not None and claim.live is None:
            # The cache may be behind, and a key must never be made anew over a journal: ask the API server itself.
            claim = child(CLAIMS, await self._world.refresh(CLAIMS, (meta.namespace, claim_name(meta))), SESSIONS, meta)
        if agent is not None and claim.ours is not None and pod.live is None:
            key_exists = await self._world.api.secret_exists(meta.namespace, names.session_key(meta.name, meta.uid))
        pod_uid = pod.live["metadata"]["uid"] if pod.live else None
        return Observed(
            meta=meta,
            session=session,
            agent=agent,
            network=await self._world.child(NETWORKS, names.session_network(meta.name), SESSIONS, meta),
            claim=claim,
            pod=pod,
            key_exists=key_exists,
            sighting=self._world.sightings.of(name_of(manifest), pod_uid),
            lineage=lineage_of(manifest),
            recovered=recovered_of(manifest),
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
            rollout_blocked=self._rollout_blocked(name, name_of(session), meta, agent),
        )

    def _rollout_blocked(self, agent: Name, session: Name, meta: Meta, spec: Agent) -> bool:
        """Whether another session's pod is being replaced or is not ready. Looks only if ours is to be replaced."""
        ours = self._pod(session)
        wanted = pod_hash(meta.name, spec.spec, self._world.fixed.pods)
        if ours is None or not is_outdated(ours, wanted):
            return False
        holder = self._world.replacing.get(agent)
        held = self._pod(holder) if holder else None
        if held is not None and pods.is_ready(held) and not is_outdated(held, wanted):
            del self._world.replacing[agent]  # done, though its status has not told us
        others = [name_of(s) for s in self._world.cache.sessions_of(agent) if name_of(s) != session]
        return self._world.replacing.get(agent) in others or any(
            (pod := self._pod(other)) is not None and not pods.is_ready(pod) for other in others
        )

    def _pod(self, session: Name) -> Manifest | None:
        return self._world.cache.get(PODS, session[0], names.session_pod(session[1]))

    def _surroundings(self) -> Surroundings:
        fixed = self._world.fixed
        return Surroundings(fixed.namespace, fixed.pods, (*self._world.api_networks, *fixed.excepted_networks))

    # --- act -----------------------------------------------------------------------------------------------------

    async def _act(self, seen: Observed, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case CreateKey():
                    await self._create_key(seen)
                case Create(kind, manifest):
                    await self._world.create(kind, manifest)
                case Repair(kind, manifest):
                    await self._world.repair(kind, manifest)
                case EndPod(pod, between_turns):
                    await self._end_pod(seen, pod, between_turns)

    async def _create_key(self, seen: Observed) -> None:
        made = key(
            seen.meta,
            seen.session.spec.agent_ref.name,
            data_key=secrets.token_bytes(DATA_KEY_BYTES),
            pod_token=secrets.token_urlsafe(32),
        )
        try:
            await self._world.api.create(SECRETS, made)
        except ExistsError:
            return  # made by a run of ours that got no further: its name has the session's UID

    async def _end_pod(self, seen: Observed, pod: Manifest, between_turns: bool) -> None:
        session, agent = (seen.meta.namespace, seen.meta.name), (seen.meta.namespace, seen.session.spec.agent_ref.name)
        if between_turns:
            # Taken before the next await: two sessions must not find the place free at the same time.
            if self._world.replacing.setdefault(agent, session) != session:
                raise WaitingError("another session of this agent is being replaced")
            try:
                await self._must_be_idle(seen, pod)
            except WaitingError:
                del self._world.replacing[agent]
                raise
        else:
            if delay := self._world.restraint.delay((PODS, session)):
                raise WaitingError(f"its pod ends again and again; {delay:.0f} s rest")
            self._world.restraint.note((PODS, session))
        try:
            meta = pod["metadata"]
            ended = await self._world.api.delete(PODS, meta["namespace"], meta["name"], meta["uid"])
        except (NotFoundError, ConflictError):
            await self._world.refresh(PODS, name_of(pod))
            return
        if ended.get("kind") == "Pod":
            self._world.learn(PODS, ended)

    async def _must_be_idle(self, seen: Observed, pod: Manifest) -> None:
        report = await self._sidecars.report(Address(seen.meta.uid, pod["status"]["podIP"]))
        if not is_idle(report):
            raise WaitingError("a turn has begun")

    # --- report --------------------------------------------------------------------------------------------------

    async def _report(self, seen: Observed, plan: Plan, now: datetime) -> float | None:
        """Writes the status if it says anything new; returns the seconds until counters alone may be written."""
        if plan.verdict is None:
            return None
        name, before = (seen.meta.namespace, seen.meta.name), seen.session.status
        after = session_status(before, self._facts(seen, plan.verdict), now)
        if comparable(after) == comparable(before):
            return None
        since = (now - self._written.setdefault(name, now)).total_seconds()
        if not is_urgent(before, after) and since < COUNTERS_SECONDS:
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

    def _facts(self, seen: Observed, verdict: Verdict) -> Facts:
        where = seen.meta.namespace
        claim = self._world.cache.get(CLAIMS, where, claim_name(seen.meta))
        agent = facts_of(seen.agent) if seen.agent else None
        return Facts(
            meta=seen.meta,
            agent_name=seen.session.spec.agent_ref.name,
            verdict=verdict,
            pod=child(PODS, self._pod((where, seen.meta.name)), SESSIONS, seen.meta).ours,
            claim=child(CLAIMS, claim, SESSIONS, seen.meta).ours,
            sighting=seen.sighting,
            agent=agent,
            policy=self._policy(where, agent.policy_name if agent else None),
            lineage=seen.lineage,
            recovered=seen.recovered,
        )

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
        if manifest is None:
            return
        agent = agent_of(manifest)
        if self._world.replacing.get(agent) == session:
            del self._world.replacing[agent]
        found = self._world.cache.get(AGENTS, *agent)
        if found is None:
            return
        wanted = pod_hash(agent[1], Agent.model_validate(found).spec, self._world.fixed.pods)
        for other in self._world.cache.sessions_of(agent):
            pod = self._pod(name_of(other))
            if pod is not None and is_outdated(pod, wanted):
                self._world.ask(Key(SESSIONS, *name_of(other)), 0.0)
                return

    def _keep_contact(self, session: Name) -> None:
        """Has a sidecar visited as soon as it has started; each visit asks for the next."""
        pod = self._pod(session)
        if (
            pod is not None
            and pods.sidecar_answers(pod)
            and not self._world.sightings.of(session, pod["metadata"]["uid"])
        ):
            self._world.visit(Key(SESSIONS, *session), 0.0)

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
        for agent in [agent for agent, replaced in self._world.replacing.items() if replaced == session]:
            del self._world.replacing[agent]


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


def claim_name(session: Meta) -> str:
    """Name of a session's claim."""
    return names.session_claim(session.name)
