"""Reconciles sessions: observe, decide, act, report."""

from datetime import datetime

from tenure_api import names
from tenure_api.conditions import Reason
from tenure_api.session import AgentSession
from tenure_operator.cache import Name
from tenure_operator.errors import (
    ConflictError,
    ContendedError,
    NoRoomError,
    NotFoundError,
    RefusedError,
)
from tenure_operator.kinds import PODS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.belonging import with_set
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.pool_claim import Claims
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session_act import Actor
from tenure_operator.reconcile.session_observe import Observer, again
from tenure_operator.reconcile.session_plan import (
    Observed,
    Plan,
    Surroundings,
    decide,
)
from tenure_operator.reconcile.session_report import Reporter
from tenure_operator.reconcile.shared import SharedSessions
from tenure_operator.reconcile.verdict import stalled, waiting
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Sidecars

ROOM_SECONDS = 1.0
"""How often a session for which there is no room looks again: a request may wait for it, and no watch tells of room."""


class SessionReconciler:
    """Makes pod, volume, key and NetworkPolicy of each session as they should be."""

    def __init__(self, world: World, sidecars: Sidecars, rollout: Rollout, claims: Claims) -> None:
        self._world = world
        self._shared = SharedSessions(world, sidecars)
        self._claims = claims
        self._fixed = world.fixed
        self._rollout = rollout
        self._observer = Observer(world, rollout)
        self._reporter = Reporter(world, rollout)
        self._actor = Actor(world, sidecars, rollout, self._reporter)

    async def reconcile(self, at: Key) -> float | None:
        """Looks at one session; returns the seconds after which to look again."""
        name, now = (at.namespace, at.name), self._world.now()
        manifest = self._world.cache.get(SESSIONS, *name)
        if manifest is None or is_deleting(manifest):
            self._forget(name)
            return None
        meta, session = Meta.of(manifest), AgentSession.model_validate(manifest)
        session = with_set(meta, session, self._world.cache.claims_of(name))
        lifetime = (session.spec.expires_at - now).total_seconds() if session.spec.expires_at else None
        if lifetime is not None and lifetime <= 0:
            return await self._expire(manifest)
        if lifetime is not None:
            self._world.ask(at, lifetime)  # now, since this look may fail and be backed off beyond that time
        try:
            if self._shared.has(manifest):
                return await self._shared.look(manifest, session, now)
            if (later := await self._claims.claim(manifest, session, now)) is not None:
                return later
            return await self._look(manifest, session, now)
        except ConflictError:
            # Somebody has written to it meanwhile, such as a gateway that wants it awake: that must not cost a second.
            await self._world.refresh(SESSIONS, name)
            return 0.0

    async def _look(self, manifest: Manifest, session: AgentSession, now: datetime) -> float | None:
        seen = await self._observer.observe(manifest, session)
        plan = decide(seen, self._surroundings(), now)
        try:
            seen = await self._actor.act(seen, plan)
        except ContendedError as error:
            await self._world.events.tell((SESSIONS, seen.meta), "Warning", "Contended", "Repair", str(error))
            raise
        except NoRoomError as error:
            said = f"There is no room for the session in this namespace; it starts when there is: {error}"
            await self._reporter.report(again(self._world, seen), Plan(verdict=waiting(Reason.POD_UNSCHEDULABLE, said)))
            return ROOM_SECONDS
        except RefusedError as error:
            said = f"The API server refuses what the session needs: {error}"
            await self._reporter.report(again(self._world, seen), Plan(verdict=stalled(Reason.POD_FAILING, said)))
            raise
        later = await self._reporter.report(seen, plan)
        self._keep_contact(seen)
        if plan.asleep and seen.pod.live is None:
            self._world.sightings.forget((seen.meta.namespace, seen.meta.name))  # its status remembers what is needed
        return min((delay for delay in (plan.again, later) if delay is not None), default=None)

    def _surroundings(self) -> Surroundings:
        fixed = self._fixed
        return Surroundings(fixed.namespace, fixed.pods, (*self._world.api_networks, *fixed.excepted_networks))

    def _keep_contact(self, seen: Observed) -> None:
        """Has a sidecar visited as soon as it has started; each visit asks for the next."""
        name = (seen.meta.namespace, seen.meta.name)
        pod = self._world.cache.get(PODS, seen.meta.namespace, names.session_pod(seen.set_name))
        if pod is not None and pods.sidecar_answers(pod) and not self._world.sightings.of(name, pod["metadata"]["uid"]):
            self._world.visit(Key(SESSIONS, *name), 0.0)

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
        self._reporter.forget(session)
        self._shared.forget(session)
        self._world.growth_refused.pop(session, None)
        self._world.unused_leases.pop(session, None)
        self._world.release(session)
        self._rollout.forget(session)
