"""Makes and keeps the sets that the sessions of an agent share: each has a sidecar that is the host of many."""

from datetime import datetime
from typing import NamedTuple

from tenure_api import names
from tenure_api.agent import Agent
from tenure_api.conditions import Reason
from tenure_api.names import GENERATION_ANNOTATION, SET_LABEL
from tenure_api.report import JournalState, Report
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.claim import claim, grown
from tenure_operator.desired.pod import Run, pod, pod_hash
from tenure_operator.desired.sets import SetOf
from tenure_operator.desired.warm import warm_network
from tenure_operator.errors import OperatorError, RefusedError, UnavailableError, WaitingError
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import node_lookup, pods
from tenure_operator.reconcile.children import Create, Owner, Standing, is_deleting, step
from tenure_operator.reconcile.session_plan import is_outdated
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.sightings import SILENT_AFTER
from tenure_operator.wakes import is_shared, ready_status

VISIT_SECONDS = 10.0
"""Between two visits to a host."""
STARTING_SECONDS = 1.0
"""The same while it starts: sessions may wait for it."""
AGAIN_SECONDS = 10.0


class _Set(NamedTuple):
    """One set of an agent."""

    of: SetOf
    meta: Meta
    """Of the agent."""
    agent: Agent
    may_start: bool
    """Whether the agent is ready, so that something may be made for it."""

    @property
    def at(self) -> Name:
        """Namespace and name of the set."""
        return self.meta.namespace, self.of.name


class HostReconciler:
    """Looks after the hosts of an agent."""

    def __init__(self, world: World, sidecars: Sidecars) -> None:
        self._world = world
        self._sidecars = sidecars

    async def reconcile(self, at: Key) -> float | None:
        """Looks at the hosts of one agent; returns the seconds after which to look again."""
        manifest = self._world.cache.get(AGENTS, at.namespace, at.name)
        if manifest is None or is_deleting(manifest) or not is_shared(manifest):
            return None  # what there is goes with the agent
        meta, agent = Meta.of(manifest), Agent.model_validate(manifest)
        may_start = ready_status(manifest) == ("True", meta.generation)
        wanted = [names.host_set(meta.name, number) for number in range(agent.spec.session.replicas)]
        there = {
            each["metadata"]["labels"][SET_LABEL] for _, each in self._world.cache.hosts_of((at.namespace, at.name))
        }
        pauses: list[float] = []
        failed: OperatorError | None = None
        for name in [*wanted, *sorted(there - set(wanted))]:
            each = _Set(SetOf.host(meta, name), meta, agent, may_start and name in wanted)
            try:
                if name not in wanted and await self._is_over(each):
                    continue
                pauses.append(await self._look(each))
            except OperatorError as error:
                failed = failed or error  # the others must not wait for this one
        if failed is not None:
            raise failed
        return min(pauses, default=None)

    async def _is_over(self, each: _Set) -> bool:
        """Whether a set that is one too many has no session any more, as it says itself; then it is deleted."""
        live = self._world.cache.get(PODS, each.meta.namespace, names.session_pod(each.of.name))
        volume = self._world.cache.get(CLAIMS, each.meta.namespace, names.session_claim(each.of.name))
        seen = self._world.hosts.of(each.at, live["metadata"]["uid"]) if live else None
        if volume is not None and not is_deleting(volume) and (seen is None or seen.report is None):
            return False
        if seen is not None and seen.report is not None and seen.report.sessions:
            return False
        if self._sessions(each):
            return False
        for kind, part in self._world.cache.hosts_of((each.meta.namespace, each.meta.name)):
            if part["metadata"]["labels"][SET_LABEL] == each.of.name and not is_deleting(part):
                await self._world.delete(kind, part)
        return True

    async def _look(self, each: _Set) -> float:
        world, owner, where = self._world, Owner(AGENTS, each.meta), each.meta.namespace
        live = await world.child(PODS, names.session_pod(each.of.name), owner)
        volume = await world.child(CLAIMS, names.session_claim(each.of.name), owner)
        if volume.live is None:
            volume = owner.child(CLAIMS, await world.refresh(CLAIMS, (where, names.session_claim(each.of.name))))
        for child in (live, volume):
            if child.standing in (Standing.FOREIGN, Standing.STALE):
                await self._tell(each, Reason.NAME_CONFLICT, f"{child.name} has the name that a shared pod needs.")
                return AGAIN_SECONDS
        if volume.live is None:
            if not each.may_start or live.live is not None:
                return AGAIN_SECONDS
            await world.create(CLAIMS, claim(each.of, each.agent.spec.session.storage))
            volume = await world.child(CLAIMS, names.session_claim(each.of.name), owner)
        if volume.live is None or is_deleting(volume.live):
            return AGAIN_SECONDS
        await self._wall_in(each, volume.live)
        await self._grow(each, volume.live)
        if live.live is None:
            return await self._start(each, volume.live)
        return await self._keep(each, live.live, volume.live)

    # --- what a pod needs ----------------------------------------------------------------------------------------

    async def _wall_in(self, each: _Set, volume: Manifest) -> None:
        fixed, made = self._world.fixed, Meta.of(volume)
        excepted = (*self._world.api_networks, *fixed.excepted_networks)
        name = names.session_network(each.of.name)
        live = await self._world.child(NETWORKS, name, Owner(CLAIMS, made))
        for needed in step(live, warm_network(each.of, made, fixed.namespace, excepted)):
            if isinstance(needed, Create):
                await self._world.create(NETWORKS, needed.manifest)
            else:
                await self._world.repair(NETWORKS, needed.manifest)

    async def _grow(self, each: _Set, volume: Manifest) -> None:
        """Not every StorageClass lets its volumes grow; the host goes on with what it has."""
        storage = each.agent.spec.session.storage
        if (bigger := grown(each.of, volume, storage)) is None:
            return
        if self._world.growth_refused.get(each.at) == storage.size:
            return
        try:
            await self._merge(volume, {"spec": bigger["spec"]})
        except RefusedError as error:
            self._world.growth_refused[each.at] = storage.size
            await self._tell(each, "ExpansionRefused", f"The volume cannot grow to {storage.size}: {error}")

    async def _merge(self, volume: Manifest, fields: Manifest) -> None:
        meta = volume["metadata"]
        named = {name: meta[name] for name in ("namespace", "name", "uid")}
        merged = {**fields, "metadata": {**named, **fields.get("metadata", {})}}
        self._world.learn(CLAIMS, await self._world.api.merge(CLAIMS, merged))

    async def _start(self, each: _Set, volume: Manifest) -> float:
        """The lease is taken on the claim before there is the pod: no two pods are ever given the same one."""
        if delay := self._world.restraint.delay((PODS, each.at)):
            return delay
        made, generation = Meta.of(volume), generation_of(volume)
        name = names.session_key(each.of.name, made.uid)
        if not await self._world.api.secret_exists(made.namespace, name):
            if generation > 0:
                said = f"Secret {name} with the data key is gone; without it no session on this volume can be read."
                await self._tell(each, Reason.KEY_LOST, f"{said} Restore it from a backup.")
                return AGAIN_SECONDS
            await self._world.create_key(each.of, made)
        if not each.may_start and generation == 0:
            return AGAIN_SECONDS
        generation += 1
        await self._merge(volume, {"metadata": {"annotations": {GENERATION_ANNOTATION: str(generation)}}})
        run = Run(made.uid, generation, prepared=generation > 1)
        await self._world.create(PODS, pod(each.of, run, each.agent.spec, self._world.fixed.pods))
        return STARTING_SECONDS

    # --- a pod that is there -------------------------------------------------------------------------------------

    async def _keep(self, each: _Set, live: Manifest, volume: Manifest) -> float:
        trouble = await node_lookup.trouble(self._world.api, live, volume, self._world.now())
        if trouble is not None:
            if trouble.give_up:
                await self._world.give_up(live)
            return trouble.again
        if is_deleting(live):
            return VISIT_SECONDS
        if pods.has_ended(live):
            self._world.restraint.note((PODS, each.at))
            await self._world.delete(PODS, live)
            return STARTING_SECONDS
        if self._is_past(each, live) and each.may_start and self._may_be_replaced(each, live):
            # Its turns end first, as far as its grace period reaches; the others go on in the next pod.
            await self._world.delete(PODS, live)
            return STARTING_SECONDS
        if not pods.sidecar_answers(live):
            return STARTING_SECONDS
        try:
            report = await self._visit(each, live, volume)
        except UnavailableError as error:
            self._note_silence(each, live, str(error))
            raise
        if report.journal is JournalState.SUPERSEDED:
            self._world.restraint.note((PODS, each.at))
            await self._world.delete(PODS, live)
            return STARTING_SECONDS
        return VISIT_SECONDS if pods.is_ready(live) else STARTING_SECONDS

    def _is_past(self, each: _Set, live: Manifest) -> bool:
        """Whether a pod was made to an older template, or is as old as any may be."""
        longest = each.agent.spec.session.max_lifetime_seconds
        age = self._world.now() - datetime.fromisoformat(live["metadata"]["creationTimestamp"])
        if longest is not None and age.total_seconds() >= longest:
            return True
        return is_outdated(live, pod_hash(each.meta.name, each.agent.spec, self._world.fixed.pods))

    def _may_be_replaced(self, each: _Set, live: Manifest) -> bool:
        """One after the other: none that works goes while another of the agent does not."""
        if not pods.is_ready(live):
            return True
        all_ = [p for kind, p in self._world.cache.hosts_of((each.meta.namespace, each.meta.name)) if kind is PODS]
        return all(pods.is_ready(other) for other in all_) and len(all_) >= each.agent.spec.session.replicas

    async def _visit(self, each: _Set, live: Manifest, volume: Manifest) -> Report:
        """Takes the report of a host, gives it its configuration, and has it erase what is gone."""
        address, uid = Address(volume["metadata"]["uid"], live["status"]["podIP"]), live["metadata"]["uid"]
        report = await self._sidecars.report(address)
        wanted = self._world.wanted.get((each.meta.namespace, each.meta.name))
        if wanted is not None and report.config_digest != wanted.digest and report.journal is JournalState.OPEN:
            report = await self._sidecars.configure(address, wanted.config)
        reports = {told.identity: told for told in await self._sidecars.reports(address)} if report.sessions else {}
        before = self._world.hosts.of(each.at, uid)
        self._world.hosts.saw(each.at, uid, report)
        if before is None or before.report is None or before.report.ready != report.ready:
            for session in self._world.cache.sessions_of((each.meta.namespace, each.meta.name)):
                self._world.ask(Key(SESSIONS, *name_of(session)), 0.0)
        for session in self._sessions(each):
            told = reports.get(session["metadata"]["uid"])
            if told is not None and self._world.sightings.saw(name_of(session), uid, told):
                self._world.ask(Key(SESSIONS, *name_of(session)), 0.0)
        await self._erase_gone(each, address, report)
        return report

    def _sessions(self, each: _Set) -> list[Manifest]:
        """The sessions that are placed in a set."""
        sessions = self._world.cache.sessions_of((each.meta.namespace, each.meta.name))
        return [session for session in sessions if session.get("status", {}).get("setName") == each.of.name]

    def _note_silence(self, each: _Set, live: Manifest, why: str) -> None:
        for session in self._sessions(each):
            missed = self._world.sightings.missed(name_of(session), live["metadata"]["uid"], why)
            if missed.failures == SILENT_AFTER:
                self._world.ask(Key(SESSIONS, *name_of(session)), 0.0)

    async def _erase_gone(self, each: _Set, host: Address, report: Report) -> None:
        kept = set(report.sessions or ())
        known = self._world.cache.sessions_of((each.meta.namespace, each.meta.name))
        if not kept - {session["metadata"]["uid"] for session in known}:
            return
        there = set()  # as the API server knows it: the cache may be behind
        async for sessions, _ in self._world.api.pages(SESSIONS, each.meta.namespace):
            for session in sessions:
                self._world.learn(SESSIONS, session)
                if agent_of(session) == (each.meta.namespace, each.meta.name):
                    there.add(session["metadata"]["uid"])
        for uid in sorted(kept - there):
            await self._sidecars.erase(host, uid)

    async def _tell(self, each: _Set, reason: str, said: str) -> None:
        await self._world.events.tell((AGENTS, each.meta), "Warning", reason, "Share", f"{each.of.name}: {said}")


def generation_of(volume: Manifest) -> int:
    """The lease generation of a host's latest pod; 0 if it never had one."""
    written = volume["metadata"].get("annotations", {}).get(GENERATION_ANNOTATION, "0")
    if not written.isdecimal():
        raise WaitingError(f"annotation {GENERATION_ANNOTATION} of {volume['metadata']['name']} is no number")
    return int(written)
