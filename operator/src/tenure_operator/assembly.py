"""The operator's parts, put together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import httpx

from tenure_api.fields import Amounts, Resources
from tenure_operator.api_addresses import api_networks
from tenure_operator.api_client import Api
from tenure_operator.cache import Cache, name_of, version
from tenure_operator.desired.containers import PodSettings
from tenure_operator.errors import OperatorError, UnavailableError
from tenure_operator.events import Events
from tenure_operator.kinds import AGENTS, HOSTS, PODS, POLICIES, POOLS, SESSIONS, Key, Kind, Manifest
from tenure_operator.metrics import Metrics
from tenure_operator.probes import SecretProbes
from tenure_operator.queue import Queue
from tenure_operator.reconcile.agent import AgentReconciler
from tenure_operator.reconcile.hosts import HostReconciler
from tenure_operator.reconcile.policy import PolicyReconciler
from tenure_operator.reconcile.pool import PoolReconciler, WarmVisitor
from tenure_operator.reconcile.pool_claim import Claims
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session import SessionReconciler
from tenure_operator.reconcile.visit import Visitor
from tenure_operator.reconcile.world import Fixed, World
from tenure_operator.restraint import Restraint
from tenure_operator.resync import INTERVAL_SECONDS, Resync, Watches
from tenure_operator.settings import Settings
from tenure_operator.sidecars import Sidecars
from tenure_operator.signing import SigningKeys

VISITS_AT_A_TIME = 32
POOLS_AT_A_TIME = 2
"""Pools that are looked at a time, by workers of their own: no session waits for one that is filled."""

logger = logging.getLogger(__name__)


class Operator:
    """Everything that runs while this process leads."""

    def __init__(
        self, settings: Settings, api: Api, keys: SigningKeys, client: httpx.AsyncClient, metrics: Metrics
    ) -> None:
        self._api = api
        self._cache = Cache()
        self._asks: Queue[Key] = Queue(self._reconcile, settings.workers, metrics.reconciled)
        self._pools: Queue[Key] = Queue(self._reconcile, POOLS_AT_A_TIME, metrics.reconciled)
        self._visits: Queue[Key] = Queue(self._visit, VISITS_AT_A_TIME, metrics.visited)
        self._world = World(
            api=api,
            cache=self._cache,
            events=Events(api, settings.pod_name),
            restraint=Restraint(asyncio.get_running_loop().time),
            fixed=Fixed(
                settings.namespace, _pods(settings), keys.public, settings.gateway_url, settings.excepted_cidrs
            ),
            ask=self._ask,
            visit=self._visits.ask,
        )
        sidecars = Sidecars(client, keys.signer)
        claims = Claims(self._world, sidecars, metrics.claimed)
        self._warm_visitor = WarmVisitor(self._world, sidecars)
        self._visitor = Visitor(self._world, sidecars, settings.scrape_seconds)
        self._reconcilers: dict[Kind, Callable[[Key], Awaitable[float | None]]] = {
            AGENTS: AgentReconciler(self._world, SecretProbes(api)).reconcile,
            SESSIONS: SessionReconciler(self._world, sidecars, Rollout(self._world), claims).reconcile,
            POLICIES: PolicyReconciler(self._world).reconcile,
            POOLS: PoolReconciler(self._world, sidecars).reconcile,
            HOSTS: HostReconciler(self._world, sidecars).reconcile,
        }
        self.watches = Watches(self._cache)
        self._resync = Resync(api, self._cache, self.watches, self._world.learned, metrics.missed)
        metrics.gauge_queue("reconcile", self._asks.depth)
        metrics.gauge_queue("pool", self._pools.depth)
        metrics.gauge_queue("visit", self._visits.depth)
        metrics.gauge_sets(self._world.pools.count)
        metrics.gauge_objects(self._cache.count)

    async def prepare(self) -> None:
        """Learns all that decisions depend on. Nothing is decided on a half-filled cache."""
        self._world.api_networks = await api_networks(self._api)
        await self._resync.all()

    def told(self, kind: Kind, type_: str | None, manifest: Manifest) -> None:
        """A watch has told of an object."""
        self.watches.told(kind, version(manifest))
        if type_ is None:
            self._resync.relisted()
        if type_ == "DELETED":
            if change := self._cache.forget(kind, name_of(manifest), version(manifest)):
                self._world.learned(change)
        else:
            self._world.learn(kind, manifest)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._asks.run())
            group.create_task(self._pools.run())
            group.create_task(self._visits.run())
            group.create_task(self._resync.run())
            group.create_task(self._follow_api_server())

    async def _reconcile(self, key: Key) -> float | None:
        return await self._reconcilers[key.kind](key)

    def _ask(self, key: Key, delay: float) -> None:
        (self._pools if key.kind in (POOLS, HOSTS) else self._asks).ask(key, delay)

    async def _visit(self, key: Key) -> float | None:
        return await (self._warm_visitor if key.kind is PODS else self._visitor).visit(key)

    async def _follow_api_server(self) -> None:
        """An API server that has moved must not become reachable from sessions."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                networks = await api_networks(self._api)
            except OperatorError as error:
                logger.warning("the API server's addresses cannot be read: %s", error)
                continue
            if networks != self._world.api_networks:
                self._world.api_networks = networks
                for session in self._cache.all(SESSIONS):
                    self._asks.ask(Key(SESSIONS, *name_of(session)))


def _pods(settings: Settings) -> PodSettings:
    return PodSettings(
        image=settings.runtime_image,
        pull_policy=settings.image_pull_policy,
        sidecar=Resources(
            requests=Amounts(cpu=settings.sidecar_cpu_request, memory=settings.sidecar_memory_request),
            limits=Amounts(memory=settings.sidecar_memory_limit),
        ),
        audience=settings.audience,
    )


async def patiently(what: str, attempt: Callable[[], Awaitable[None]], seconds: float = 2.0) -> None:
    """Tries until it works; only what is unavailable is tried again."""
    while True:
        try:
            return await attempt()
        except UnavailableError as error:
            logger.warning("%s: %s; again in %g s", what, error, seconds)
            await asyncio.sleep(seconds)
