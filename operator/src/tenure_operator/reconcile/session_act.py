"""Takes the steps of a plan for a session. Each may be the last before a kill, and each may be taken again."""

from dataclasses import replace

from tenure_api import names
from tenure_api.session import ForkFrom
from tenure_operator.desired.pod import Run, pod
from tenure_operator.errors import (
    NoRoomError,
    RefusedError,
    UnfitError,
    WaitingError,
)
from tenure_operator.kinds import CLAIMS, PODS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods, sleep
from tenure_operator.reconcile.children import Create, Repair
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session_observe import again
from tenure_operator.reconcile.session_plan import (
    CreateKey,
    EndPod,
    GiveUp,
    Grow,
    Hibernate,
    Observed,
    Plan,
    Restore,
    StartPod,
)
from tenure_operator.reconcile.session_report import Reporter
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars


class Actor:
    """Takes steps."""

    def __init__(self, world: World, sidecars: Sidecars, rollout: Rollout, reporter: Reporter) -> None:
        self._world = world
        self._fixed = world.fixed
        self._sidecars = sidecars
        self._rollout = rollout
        self._reporter = reporter

    async def act(self, seen: Observed, plan: Plan) -> Observed:
        """Takes the steps; returns what was seen, with what has changed of it since."""
        for step in plan.steps:
            match step:
                case CreateKey():
                    await self._world.create_key(seen.set, self._live_claim(seen))
                case Create(kind, manifest):
                    await self._world.create(kind, manifest)
                case Repair(kind, manifest):
                    await self._world.repair(kind, manifest)
                case Grow(manifest, size):
                    await self._grow(seen, manifest, size)
                case StartPod(generation):
                    seen = await self._start_pod(seen, plan, generation)
                case Restore(source, fork):
                    await self._reporter.report(seen, plan)  # first: it may take long
                    seen = await self._restore(again(self._world, seen), source, fork)
                case Hibernate(pod, idle_seconds):
                    seen = await self._drain(seen, pod, idle_seconds)
                case GiveUp(pod):
                    await self._world.give_up(pod)
                case EndPod(pod, between_turns, in_turn):
                    await self._end_pod(seen, pod, between_turns, in_turn)
        return seen

    def _live_claim(self, seen: Observed) -> Meta:
        found = self._world.cache.get(CLAIMS, seen.meta.namespace, names.session_claim(seen.set_name))
        if found is None:
            raise WaitingError("its claim was deleted meanwhile")
        return Meta.of(found)

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
        name = (seen.meta.namespace, seen.meta.name)
        if self._world.unused_leases.get(name) == sleep.generation_of(seen.session):
            generation = self._world.unused_leases.pop(name)
        else:
            await self._reporter.report(seen, plan, generation)
        claim, status = self._live_claim(seen).uid, seen.session.status
        prepared = status.identity == claim and status.journal is not None
        run = Run(claim, generation, seen.session.spec.source, prepared)
        self._world.pools.note_start()
        try:
            await self._world.create(PODS, pod(seen.set, run, seen.agent.spec, self._fixed.pods))
        except (NoRoomError, RefusedError):
            self._world.unused_leases[name] = generation
            raise
        return again(self._world, seen)

    async def _restore(self, seen: Observed, source: Address, fork: ForkFrom) -> Observed:
        name, pod = (seen.meta.namespace, seen.meta.name), seen.pod.live
        if pod is None:
            return seen
        target = Address(self._live_claim(seen).uid, pod["status"].get("podIP", ""))
        try:
            report = await self._sidecars.carry(source, target, fork.at_sequence)
        except WaitingError as error:
            if isinstance(error, UnfitError):
                self._world.needs.unfit[name] = f"{error}."
            said = f"The state of AgentSession {fork.session} could not be brought to it: {error}"
            await self._world.events.tell((SESSIONS, seen.meta), "Warning", "RestoreFailed", "Restore", said)
            raise
        self._world.sightings.saw(name, pod["metadata"]["uid"], report)
        return replace(seen, sighting=self._world.sightings.of(name, pod["metadata"]["uid"]))

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
