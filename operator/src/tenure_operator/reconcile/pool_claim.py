"""Gives a new session a set of a warm pool: the sidecar decides who gets it, then one write makes the session Ready.

Nothing else comes before that write. Labels and owners of the set's objects are put right by the session's next look.
"""

from collections.abc import Callable
from datetime import datetime

from tenure_api import names
from tenure_api.report import Binding, Report
from tenure_api.session import AgentSession, OperatingMode
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.warm import FIRST_GENERATION
from tenure_operator.errors import TakenError, UnavailableError
from tenure_operator.kinds import AGENTS, CLAIMS, PODS, POOLS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.pool_sets import PATIENCE_SECONDS, Pool
from tenure_operator.reconcile.session_conditions import Facts
from tenure_operator.reconcile.session_observe import lineage_of
from tenure_operator.reconcile.session_report import policy_named
from tenure_operator.reconcile.session_status import session_status
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.wakes import ready_status, recovered_of, warm_pool_size

TIDY_SECONDS = 1.5
"""After which the objects of a claimed set are labelled as the session's: not in the way of claims every second."""
VISIT_SECONDS = 5.0
"""After which the sidecar of a claimed set is visited: what it says now is in the status already."""
WAIT_SECONDS = 0.1
ATTEMPTS = 3
"""Sets that are tried for one session before it is started without."""
BIND_SECONDS = 1.0
"""How long a sidecar may take to answer: starting without a set takes little longer."""


class Claims:
    """Claims sets of warm pools for new sessions."""

    def __init__(self, world: World, sidecars: Sidecars, count: Callable[[str], None] = lambda _: None) -> None:
        self._world = world
        self._pools = world.pools
        self._sidecars = sidecars
        self._count = count

    async def claim(self, manifest: Manifest, session: AgentSession, now: datetime) -> float | None:
        """Makes a session Ready if it is new and there is a set for it.

        Returns the seconds after which to look at it again; None if it is to go on without a set. Raises
        `ConflictError` if the session has changed meanwhile; the set is kept for it.
        """
        meta, agent = Meta.of(manifest), agent_of(manifest)
        if not self._may_claim(manifest, session):
            self._pools.settle(meta.uid)
            return None
        self._pools.note_start()
        pool = self._pools.of(agent)
        for _ in range(ATTEMPTS):
            taken = self._pools.take(agent, name_of(manifest), meta.uid) if pool is not None else None
            if pool is None or taken is None:
                break
            if await self._give(taken, manifest, session, pool, now):
                self._pools.settle(meta.uid)
                self._world.ask(Key(POOLS, *agent), self._pools.quiet())
                self._count("warm")
                return TIDY_SECONDS
        if self._may_come(pool, manifest, now):
            self._world.ask(Key(POOLS, *agent), 0.0)
            return WAIT_SECONDS
        self._count("cold")
        return None

    def _may_claim(self, manifest: Manifest, session: AgentSession) -> bool:
        """Whether a session is new, of an agent with a pool: nothing was made for it, or retained for one of its name.

        A session whose agent is not ready waits for that; what is said meanwhile is the reconciler's.
        """
        status, spec, meta = session.status, session.spec, manifest["metadata"]
        agent = self._world.cache.get(AGENTS, *agent_of(manifest))
        if agent is None or is_deleting(agent) or not warm_pool_size(agent):
            return False
        if ready_status(agent) != ("True", agent["metadata"]["generation"]):
            return False
        if status.lease is not None or status.identity is not None or status.volume_claim_name is not None:
            return False
        if spec.source is not None or spec.operating_mode is not OperatingMode.RUNNING:
            return False
        own = self._world.cache.get(CLAIMS, meta["namespace"], names.session_claim(meta["name"]))
        return own is None and not self._world.cache.claims_of(name_of(manifest))

    def _may_come(self, pool: Pool | None, manifest: Manifest, now: datetime) -> bool:
        """Whether a set may turn out to be ready in a moment: this process has just begun, or the set has."""
        since = (now - datetime.fromisoformat(manifest["metadata"]["creationTimestamp"])).total_seconds()
        if min(since, self._pools.age()) >= PATIENCE_SECONDS:
            return False
        return pool is None or pool.unsure

    async def _give(self, taken: Name, manifest: Manifest, session: AgentSession, pool: Pool, now: datetime) -> bool:
        """Whether the session has the set now."""
        meta, agent, (namespace, set_name) = Meta.of(manifest), agent_of(manifest), taken
        pod = self._world.cache.get(PODS, namespace, names.session_pod(set_name))
        claim = self._world.cache.get(CLAIMS, namespace, names.session_claim(set_name))
        if pod is None or claim is None or is_deleting(claim) or not pods.is_ready(pod):
            self._fail(taken, meta, agent)
            return False
        try:
            report = await self._bind(pod, claim, meta, agent)
        except (TakenError, UnavailableError):
            self._fail(taken, meta, agent)
            return False
        self._pools.bind(meta.uid, taken)
        name, pod_uid = name_of(manifest), pod["metadata"]["uid"]
        self._world.sightings.saw(name, pod_uid, report)
        self._pools.sightings.saw(taken, pod_uid, report)
        facts = Facts(
            meta=meta,
            agent_name=agent[1],
            set_name=set_name,
            verdict=pods.READY,
            pod=pod,
            claim=claim,
            sighting=self._world.sightings.of(name, pod_uid),
            lease=FIRST_GENERATION,
            revision=pool.revision if report.config_digest == pool.digest else None,
            agent=pool.facts,
            policy=policy_named(self._world, namespace, pool.facts.policy_name),
            lineage=lineage_of(manifest),
            recovered=recovered_of(manifest),
        )
        await self._world.write_status(SESSIONS, meta, session_status(session.status, facts, now))
        self._world.visit(Key(SESSIONS, *name), VISIT_SECONDS)
        return True

    async def _bind(self, pod: Manifest, claim: Manifest, meta: Meta, agent: Name) -> Report:
        address = Address(claim["metadata"]["uid"], pod["status"]["podIP"])
        binding = Binding(session=f"{meta.namespace}/{meta.name}", uid=meta.uid)
        report = await self._sidecars.bind(address, binding, BIND_SECONDS)
        wanted = self._world.wanted.get(agent)
        if wanted is not None and report.config_digest != wanted.digest:
            report = await self._sidecars.configure(address, wanted.config)
        return report

    def _fail(self, taken: Name, meta: Meta, agent: Name) -> None:
        self._pools.fail(taken, meta.uid)
        self._world.ask(Key(POOLS, *agent), 0.0)
