"""What is known of a session, gathered: the cache, and what only the API server itself can tell."""

import re
from dataclasses import replace

from tenure_api import names
from tenure_api.agent import Agent
from tenure_api.names import CALL_ANNOTATION, PARENT_LABEL
from tenure_api.session import AgentSession, Lineage
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.pod import pod_hash
from tenure_operator.errors import (
    WaitingError,
)
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import forks, node_lookup
from tenure_operator.reconcile.belonging import Belonging
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.forks import SourceSeen
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session_plan import (
    Observed,
    ObservedAgent,
)
from tenure_operator.reconcile.sleep import Sleep
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address
from tenure_operator.wakes import is_running, ready_status, recovered_of, wake_of


class Observer:
    """Looks at sessions. Writes nothing."""

    def __init__(self, world: World, rollout: Rollout) -> None:
        self._world = world
        self._fixed = world.fixed
        self._rollout = rollout

    async def observe(self, manifest: Manifest, session: AgentSession) -> Observed:
        """A session with all that belongs to it."""
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
            sleep=Sleep(wake_of(manifest), self._world.needs.is_needed(name)),
            source=self._source(name, session),
            lineage=lineage_of(manifest),
            recovered=recovered_of(manifest),
            trouble=await node_lookup.trouble(self._world.api, pod.ours, claim.ours, self._world.now()),
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
        template = pod_hash(meta.name, agent.spec, self._fixed.pods)
        return ObservedAgent(
            meta=meta,
            spec=agent.spec,
            ready=known[0] == "True" if known and known[1] == meta.generation else None,
            problem=ready.message if ready else "",
            pod_hash=template,
            rollout_blocked=self._rollout.is_blocked(name, session, template),
        )

    def _source(self, name: Name, session: AgentSession) -> SourceSeen | None:
        """The session that this one is made from, which is kept awake until it is."""
        fork = forks.fork_of(session)
        if fork is None:
            self._world.release(name)
            return None
        source = self._world.cache.get(SESSIONS, name[0], fork.session)
        if source is None or is_deleting(source):
            return None
        if self._world.needs.need(name_of(source), name):
            self._world.ask(Key(SESSIONS, *name_of(source)), 0.0)
        status = source.get("status", {})
        runs = is_running(source) and status.get("podIP")
        address = Address(status["identity"], status["podIP"]) if runs else None
        unfit = self._world.needs.unfit.get(name)
        return SourceSeen(agent_of(source)[1], source["spec"]["subject"], address, unfit)


def again(world: World, seen: Observed) -> Observed:
    """The same, with the session as it is by now: its status may have been written since."""
    manifest = world.cache.get(SESSIONS, seen.meta.namespace, seen.meta.name)
    if manifest is None or manifest["metadata"]["uid"] != seen.meta.uid:
        raise WaitingError("the session was deleted meanwhile")
    return replace(seen, meta=Meta.of(manifest), session=AgentSession.model_validate(manifest))


CALL = re.compile(r"[0-9a-f]{32}/[0-9]{1,9}")


def lineage_of(session: Manifest) -> Lineage | None:
    """Where a session comes from, by what the gateway has written on it; None if that is not well formed."""
    meta = session["metadata"]
    parent, call = meta.get("labels", {}).get(PARENT_LABEL), meta.get("annotations", {}).get(CALL_ANNOTATION, "")
    return Lineage(parent=parent, call=call) if parent and CALL.fullmatch(call) else None
