"""Reconciles the warm pools of agents: observe, decide, act. What is reported, the agent's status says."""

import asyncio
import logging
import secrets
import string
from collections.abc import Coroutine, Iterable

from tenure_api import names
from tenure_api.agent import Agent, WarmPoolStatus
from tenure_api.conditions import Reason
from tenure_api.names import AGENT_LABEL, SET_LABEL, WARM_LABEL
from tenure_api.report import Binding
from tenure_operator.cache import name_of
from tenure_operator.desired.pod import pod_hash, revision_of
from tenure_operator.desired.quantity import of_bytes, of_cpus
from tenure_operator.desired.sets import SetOf
from tenure_operator.desired.warm import reserve, storage_of, warm_claim, warm_network, warm_pod
from tenure_operator.errors import NoRoomError, OperatorError, RefusedError, TakenError, UnavailableError, WaitingError
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, POOLS, SESSIONS, Key, Manifest, Meta
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.pool_plan import (
    NOBODY,
    Bound,
    Discard,
    Give,
    Make,
    ObservedPool,
    PoolPlan,
    State,
    Visit,
    WarmSet,
    count,
    decide,
)
from tenure_operator.reconcile.pool_sets import Pool
from tenure_operator.reconcile.session_conditions import FactsOfAgent
from tenure_operator.reconcile.verdict import stalled
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import TOKEN_SECONDS, Address, Sidecars
from tenure_operator.wakes import ready_status, warm_pool_size

SUFFIX = 6
AT_A_TIME = 4
"""Sets of one pool that are made or discarded at a time."""
STATUS_DELAY = 10.0
"""Seconds after which an agent's status says how its pool is: longer than a set takes to be made."""
PROBLEM_DELAY = 1.0
WARM_SECONDS = TOKEN_SECONDS + 1.0
"""Between two visits to a set that is ready: each makes another token known, and keeps the connection open."""
AGAIN_SECONDS = 1.0
"""After which a set that could not be discarded is looked at again."""

logger = logging.getLogger(__name__)


class PoolReconciler:
    """Keeps as many sets ready as each agent asks for."""

    def __init__(self, world: World, sidecars: Sidecars) -> None:
        self._world = world
        self._pools = world.pools
        self._sidecars = sidecars

    async def reconcile(self, at: Key) -> float | None:
        """Looks at the pool of one agent; returns the seconds after which to look again."""
        name = (at.namespace, at.name)
        manifest = self._world.cache.get(AGENTS, *name)
        if manifest is None or is_deleting(manifest):
            self._pools.forget(name)
            return None  # its sets go with it, by Kubernetes' own garbage collection
        if not warm_pool_size(manifest) and not self._world.cache.warm_of(name):
            if self._pools.of(name) is not None:
                self._pools.forget(name)
                self._world.ask(Key(AGENTS, *name), PROBLEM_DELAY)
            return None
        meta, agent = Meta.of(manifest), Agent.model_validate(manifest)
        seen = self._observe(manifest, meta, agent)
        plan = decide(seen, self._world.now())
        self._remember(meta, agent, seen, plan)  # before anything is awaited: a claim takes from what is remembered
        await self._act(meta, agent, plan)
        return plan.again

    # --- observe -------------------------------------------------------------------------------------------------

    def _observe(self, manifest: Manifest, meta: Meta, agent: Agent) -> ObservedPool:
        name, cache = (meta.namespace, meta.name), self._world.cache
        wanted = self._world.wanted.get(name)
        hash_ = pod_hash(meta.name, agent.spec, self._world.fixed.pods)
        sessions = {session["metadata"]["uid"]: session for session in cache.sessions_of(name)}
        taken = {set_of(session) for session in sessions.values()}
        sets = [self._pools.observed(meta.namespace, each) for each in self._sets(meta)]
        held = {each.name for each in sets if each.name in taken or self._is_given(meta.namespace, each.name)}
        bound = {each.report.bound for each in sets if each.report is not None and each.report.bound is not None}
        return ObservedPool(
            size=agent.spec.session.warm_pool.size,
            can_start=ready_status(manifest) == ("True", meta.generation) and wanted is not None,
            pod_hash=hash_,
            storage=storage_of(agent.spec.session.storage),
            digest=wanted.digest if wanted else None,
            sets=tuple(sets),
            held=frozenset(held),
            making=frozenset(each for namespace, each in self._pools.making if namespace == meta.namespace),
            bound={uid: Bound(name_of(sessions[uid]), set_of(sessions[uid])) for uid in bound if uid in sessions},
            rest=self._world.restraint.delay(("warm", name, hash_)),
            quiet=self._pools.quiet(),
            rush=self._pools.is_rush(),
        )

    def _sets(self, agent: Meta) -> Iterable[WarmSet]:
        """The agent's own sets; those of a deleted one of its name are collected."""
        parts: dict[str, dict[str, Manifest]] = {}
        for kind, manifest in self._world.cache.warm_of((agent.namespace, agent.name)):
            owners = {reference["uid"] for reference in manifest["metadata"].get("ownerReferences", [])}
            if agent.uid in owners:
                parts.setdefault(manifest["metadata"]["labels"][SET_LABEL], {})[kind.name] = manifest
        return [WarmSet(each, found.get(PODS.name), found.get(CLAIMS.name)) for each, found in parts.items()]

    def _is_given(self, namespace: str, set_name: str) -> bool:
        given = self._pools.given((namespace, set_name))
        session = self._world.cache.get(SESSIONS, *given.session) if given else None
        if given is None or session is None or session["metadata"]["uid"] != given.uid:
            return False
        return set_of(session) in (None, set_name)

    # --- remember ------------------------------------------------------------------------------------------------

    def _remember(self, meta: Meta, agent: Agent, seen: ObservedPool, plan: PoolPlan) -> None:
        name, policy = (meta.namespace, meta.name), agent.spec.memory_policy_ref
        before = self._pools.of(name)
        self._pools.prune(name, set(plan.states))
        ready = [each for each, state in plan.states.items() if state is State.READY] if seen.can_start else []
        by_name = {each.name: each for each in seen.sets}
        unsure = any(
            state is State.STARTING and (pod := by_name[each].pod) is not None and pods.is_ready(pod)
            for each, state in plan.states.items()
            if each in by_name
        )
        pool = Pool(
            agent=meta,
            size=seen.size,
            facts=FactsOfAgent(meta.generation, len(agent.spec.tools), policy.name if policy else None),
            revision=revision_of(seen.pod_hash, seen.digest or ""),
            digest=seen.digest or "",
            ready=sorted(ready, key=lambda each: _age(by_name[each])),
            unsure=unsure,
            status=self._status(meta, agent, seen, plan) if seen.size else None,
            problem=plan.problem or self._pools.refused(meta),
            states=dict(plan.states),
        )
        self._pools.put(name, pool)
        told = before is not None and (before.problem is None) == (pool.problem is None)
        if before is None or before.status != pool.status or not told:
            self._world.ask(Key(AGENTS, *name), STATUS_DELAY if told or pool.problem is None else PROBLEM_DELAY)

    def _status(self, meta: Meta, agent: Agent, seen: ObservedPool, plan: PoolPlan) -> WarmPoolStatus:
        counted = count(plan.states.values())
        there = counted[State.READY] + counted[State.STARTING] + counted[State.FAILING]
        each = reserve(meta, agent.spec, self._world.fixed.pods)
        return WarmPoolStatus(
            ready=counted[State.READY],
            starting=counted[State.STARTING] + counted[State.FAILING],
            cpu=of_cpus(each.cpu * there),
            memory=of_bytes(each.memory * there),
            storage=of_bytes(each.storage * there),
        )

    # --- act -----------------------------------------------------------------------------------------------------

    async def _act(self, meta: Meta, agent: Agent, plan: PoolPlan) -> None:
        discards: list[Discard] = []
        missing = 0
        for step in plan.steps:
            match step:
                case Visit(pod):
                    self._world.visit(Key(PODS, meta.namespace, pod), 0.0)
                case Give(uid, session, set_name):
                    self._pools.bind(uid, (meta.namespace, set_name))
                    self._world.ask(Key(SESSIONS, *session), 0.0)
                case Discard():
                    discards.append(step)
                case Make(number):
                    missing = number
        await self._discard_all(meta, agent, discards)
        await _some_at_a_time(self._make(meta, agent) for _ in range(missing))

    async def _discard_all(self, meta: Meta, agent: Agent, discards: list[Discard]) -> None:
        sure: list[Discard] = []
        unasked: list[Discard] = []
        for each in discards:
            match await self._is_nobodys(meta, each.set):
                case True:
                    sure.append(each)
                case None:
                    unasked.append(each)
        if unasked:
            taken = await self._taken(meta, unasked)
            sure += [each for each in unasked if each.set.name not in taken]
        for each in sure:
            logger.info("discarding set %s/%s: %s", meta.namespace, each.set.name, each.why)
            if each.failed:
                self._note_failure(meta, agent)
        if len(sure) < len(discards):
            self._world.ask(Key(POOLS, meta.namespace, meta.name), AGAIN_SECONDS)
        await _some_at_a_time(self._discard(each.set) for each in sure)

    async def _is_nobodys(self, meta: Meta, each: WarmSet) -> bool | None:
        """Whether the sidecar, which decides who gets a set, has agreed that nobody does; None if it cannot say."""
        if each.report is not None and each.report.bound is not None:
            return True if each.report.bound == NOBODY else None
        if each.pod is None or each.claim is None or not pods.sidecar_answers(each.pod):
            return None
        at, pod_uid = (meta.namespace, each.name), each.pod["metadata"]["uid"]
        address = Address(each.claim["metadata"]["uid"], each.pod["status"]["podIP"])
        try:
            report = await self._sidecars.bind(address, Binding(session="", uid=NOBODY))
        except TakenError:
            self._pools.sightings.forget(at)
            self._world.visit(Key(PODS, meta.namespace, each.pod["metadata"]["name"]), 0.0)
            return False
        except UnavailableError:
            return None
        self._pools.sightings.saw(at, pod_uid, report)
        return True

    async def _taken(self, meta: Meta, discards: list[Discard]) -> set[str]:
        """Those that a session has, or is getting, as the API server knows it: the cache may be behind."""
        sets: set[str] = set()
        waiting: set[str] = set()
        async for sessions, _ in self._world.api.pages(SESSIONS, meta.namespace):
            for session in sessions:
                self._world.learn(SESSIONS, session)
                if (set_name := set_of(session)) is None:
                    waiting.add(session["metadata"]["uid"])
                else:
                    sets.add(set_name)
        bound = {each.set.name: each.set.report.bound for each in discards if each.set.report is not None}
        return {each.set.name for each in discards if each.set.name in sets or bound.get(each.set.name) in waiting}

    async def _discard(self, each: WarmSet) -> None:
        for kind, part in ((PODS, each.pod), (CLAIMS, each.claim)):
            if part is not None and not is_deleting(part):
                await self._world.delete(kind, part)

    def _note_failure(self, meta: Meta, agent: Agent) -> None:
        hash_ = pod_hash(meta.name, agent.spec, self._world.fixed.pods)
        self._world.restraint.note(("warm", (meta.namespace, meta.name), hash_))

    async def _make(self, meta: Meta, agent: Agent) -> None:
        """Claim, key, network, pod. What is left of a set that was not finished is discarded at the next look."""
        alphabet = string.ascii_lowercase + string.digits
        name = names.warm_set(meta.name, "".join(secrets.choice(alphabet) for _ in range(SUFFIX)))
        of, fixed = SetOf.warm(meta, name), self._world.fixed
        excepted = (*self._world.api_networks, *fixed.excepted_networks)
        self._pools.making.add((meta.namespace, name))
        try:
            await self._world.create(CLAIMS, warm_claim(of, agent.spec.session.storage))
            live = self._world.cache.get(CLAIMS, meta.namespace, names.session_claim(name))
            if live is None:
                raise WaitingError(f"the claim of set {name} was deleted at once")
            claim = Meta.of(live)
            await self._world.create_key(of, claim)
            await self._world.create(NETWORKS, warm_network(of, claim, fixed.namespace, excepted))
            await self._world.create(PODS, warm_pod(of, claim.uid, agent.spec, fixed.pods))
            self._pools.note_refusal(meta, None)
        except OperatorError as error:
            self._note_failure(meta, agent)
            if isinstance(error, RefusedError | NoRoomError):
                said = f"The API server refuses what a set needs: {error}"
                self._pools.note_refusal(meta, stalled(Reason.POD_FAILING, said))
            raise
        finally:
            self._pools.making.discard((meta.namespace, name))


class WarmVisitor:
    """Visits the sidecars of sets that no session has.

    Also those whose report is as it must be, so that a claim finds an open connection and a token that is known there.
    """

    def __init__(self, world: World, sidecars: Sidecars) -> None:
        self._world = world
        self._sidecars = sidecars

    async def visit(self, at: Key) -> float | None:
        """Visits the sidecar in a pod. Raises `UnavailableError` if it does not answer."""
        pod = self._world.cache.get(PODS, at.namespace, at.name)
        labels = pod["metadata"].get("labels", {}) if pod else {}
        if pod is None or WARM_LABEL not in labels or not pods.sidecar_answers(pod):
            return None
        name, agent = labels[SET_LABEL], (at.namespace, labels.get(AGENT_LABEL, ""))
        claim = self._world.cache.get(CLAIMS, at.namespace, names.session_claim(name))
        wanted = self._world.wanted.get(agent)
        if claim is None or wanted is None:
            return None
        address, pod_uid = Address(claim["metadata"]["uid"], pod["status"]["podIP"]), pod["metadata"]["uid"]
        sightings = self._world.pools.sightings
        try:
            report = await self._sidecars.report(address)
            if report.bound is None and report.config_digest != wanted.digest:
                report = await self._sidecars.configure(address, wanted.config)
        except UnavailableError as error:
            sightings.missed((at.namespace, name), pod_uid, str(error))
            self._world.ask(Key(POOLS, *agent), 0.0)
            raise
        if sightings.saw((at.namespace, name), pod_uid, report):
            self._world.ask(Key(POOLS, *agent), 0.0)
        return WARM_SECONDS if report.bound is None else None


def set_of(session: Manifest) -> str | None:
    """The set that a session has: what its status says, once it has a volume or was about to run."""
    status = session.get("status", {})
    found: str | None = status.get("setName")
    return found if "identity" in status or "lease" in status else None


def _age(each: WarmSet) -> str:
    """The oldest first: it has had the most time to become quick."""
    return str(each.pod["metadata"]["creationTimestamp"]) if each.pod else ""


async def _some_at_a_time(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Does all of it, whatever fails; raises the first failure."""
    free = asyncio.Semaphore(AT_A_TIME)

    async def one(each: Coroutine[None, None, None]) -> None:
        async with free:
            await each

    for outcome in await asyncio.gather(*map(one, work), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
