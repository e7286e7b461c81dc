"""The operator over a stand-in of the API server and of the sidecars, on a clock that only tests move."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import httpx
import jwt

from tenure_api import names
from tenure_api.configuration import SessionConfig
from tenure_api.fields import Amounts, Resources
from tenure_api.report import Report, Reports
from tenure_api.tokens import Signer, new_private_key
from tenure_api.wire import Failure
from tenure_operator.cache import Cache, name_of, version
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.sets import SetOf
from tenure_operator.errors import RefusedError, WaitingError
from tenure_operator.events import Events
from tenure_operator.kinds import (
    AGENTS,
    CHILDREN,
    CLAIMS,
    HOSTS,
    PODS,
    POLICIES,
    POOLS,
    SESSIONS,
    WATCHED,
    Key,
    Kind,
    Manifest,
    Meta,
)
from tenure_operator.probes import SecretProbes
from tenure_operator.queue import backoff
from tenure_operator.reconcile.agent import AgentReconciler
from tenure_operator.reconcile.hosts import HostReconciler
from tenure_operator.reconcile.policy import PolicyReconciler
from tenure_operator.reconcile.pool import PoolReconciler, WarmVisitor
from tenure_operator.reconcile.pool_claim import Claims
from tenure_operator.reconcile.pool_sets import Pools
from tenure_operator.reconcile.rollout import Rollout
from tenure_operator.reconcile.session import SessionReconciler
from tenure_operator.reconcile.visit import Visitor
from tenure_operator.reconcile.world import Fixed, World
from tenure_operator.restraint import Restraint
from tenure_operator.resync import Resync, Watches
from tenure_operator.schedule import Schedule
from tenure_operator.sidecars import Sidecars
from tenure_operator.sightings import Sightings
from unit.operator.fake_api import FakeApi

NAMESPACE = "shop"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = PodSettings(
    "tenure/runtime:1", "IfNotPresent", Resources(requests=Amounts(cpu="10m", memory="64Mi")), "tenure"
)
GATEWAY_URL = "http://gateway"
SIGNING_KEY = new_private_key()


class FakeSidecars:
    """The sidecars of all pods: they remember the configuration that they are given."""

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self.kept: dict[str, set[str]] = {}
        """The sessions that hosts of many keep, by the host's identity."""
        self.calls: list[str] = []
        self.silent = False
        self.mute: set[str] = set()
        """Identities of those that do not answer."""
        self.deaf = False
        """They take no configuration."""

    async def later(self, request: httpx.Request) -> httpx.Response:
        """The answer, when it has come."""
        return self.answer(request)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.silent:
            raise httpx.ConnectError("no route")
        uid = request.url.host.removeprefix("ip-")
        if uid in self.mute:
            raise httpx.ConnectError("no route")
        if request.url.path == "/v1/sessions":
            self.calls.append("GET /v1/sessions")
            kept = [self.reports[each] for each in self.kept.get(uid, ()) if each in self.reports]
            return httpx.Response(200, text=Reports(data=kept).model_dump_json(by_alias=True))
        if request.url.path.startswith("/v1/sessions/"):
            return self.shared(uid, request)
        if (audience := _audience(request)) in self.kept.get(uid, ()):
            uid = audience
        report = self.reports.setdefault(
            uid, Report.model_validate({"identity": uid, "journal": "Open", "idleSeconds": 0.0})
        )
        self.calls.append(f"{request.method} {request.url.path}")
        idle = None if report.active_turn and not report.suspended else report.idle_seconds
        draining = False
        if request.url.path == "/v1/drain":
            wanted = json.loads(request.content)["idleSeconds"]
            if idle is None or idle < wanted:
                failure = Failure(code="busy", message="a turn has begun")
                return httpx.Response(409, text=failure.model_dump_json(by_alias=True))
            draining = True
        elif request.url.path == "/v1/binding":
            wanted = json.loads(request.content)["uid"]
            if report.bound not in (None, wanted):
                failure = Failure(code="already_bound", message="it is another session's")
                return httpx.Response(409, text=failure.model_dump_json(by_alias=True))
            report = self.reports[uid] = report.model_copy(update={"bound": wanted})
        elif request.method == "PUT" and not self.deaf:
            config = SessionConfig.model_validate(json.loads(request.content))
            report = report.model_copy(
                update={
                    "config_digest": config.digest(),
                    "agent_generation": config.agent_generation,
                    "policy": config.policy,
                }
            )
            self.reports[uid] = report
        told = report.model_copy(update={"idle_seconds": idle, "draining": draining})
        return httpx.Response(200, text=told.model_dump_json(by_alias=True))

    def shared(self, host: str, request: httpx.Request) -> httpx.Response:
        """A host is told to keep a session, or to erase it."""
        uid = request.url.path.rpartition("/")[2]
        kept = self.kept.setdefault(host, set())
        self.calls.append(f"{request.method} /v1/sessions")
        if request.method == "DELETE":
            kept.discard(uid)
            self.reports.pop(uid, None)
        else:
            kept.add(uid)
            self.reports.setdefault(uid, Report.model_validate({"identity": uid, "journal": "Open", "bound": uid}))
        self.say(host, sessions=sorted(kept))
        if request.method == "DELETE":
            return httpx.Response(204)
        return httpx.Response(200, text=self.reports[uid].model_dump_json(by_alias=True))

    def say(self, uid: str, **fields: object) -> None:
        self.reports[uid] = self.reports[uid].model_copy(update=fields)


class Bench:
    """One process of the operator. Another on the same API is the operator after a restart."""

    def __init__(
        self, api: FakeApi, sidecars: FakeSidecars | None = None, settings: PodSettings = SETTINGS, at: float = 0.0
    ) -> None:
        self.api = api
        self.sidecars = sidecars or FakeSidecars()
        self.clock = at
        self.errors: list[Exception] = []
        self._asks, self._visits = Schedule[Key](), Schedule[Key]()
        self._failures: dict[Key, int] = {}
        self.cache = Cache(lambda: self.clock)
        self.world = World(
            api=api,
            cache=self.cache,
            events=Events(api, "test", lambda: self.clock),
            restraint=Restraint(lambda: self.clock),
            fixed=Fixed("tenure-system", settings, {"operator": "PEM-O", "gateway": "PEM-G"}, GATEWAY_URL),
            ask=lambda key, delay: self._asks.ask(key, self.clock + delay),
            visit=lambda key, delay: self._visits.ask(key, self.clock + delay),
            now=lambda: NOON + timedelta(seconds=self.clock),
            api_networks=("10.96.0.1/32",),
            sightings=Sightings(lambda: self.clock),
            pools=Pools(lambda: self.clock),
            hosts=Sightings(lambda: self.clock),
        )
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.sidecars.later))
        fleet = Sidecars(client, Signer("operator", SIGNING_KEY))
        self.rollout = Rollout(self.world)
        self.outcomes: Counter[str] = Counter()
        self.claims = Claims(self.world, fleet, lambda outcome: self.outcomes.update([outcome]))
        self._reconcilers = {
            AGENTS: AgentReconciler(self.world, SecretProbes(api, lambda: self.clock, lambda: 0.5)).reconcile,
            SESSIONS: SessionReconciler(self.world, fleet, self.rollout, self.claims).reconcile,
            POLICIES: PolicyReconciler(self.world).reconcile,
            POOLS: PoolReconciler(self.world, fleet).reconcile,
            HOSTS: HostReconciler(self.world, fleet).reconcile,
        }
        self._warm_visitor = WarmVisitor(self.world, fleet)
        self._visitor = Visitor(self.world, fleet, every=15.0, random_=lambda: 0.5)
        self.resync = Resync(api, self.cache, Watches(self.cache, lambda: self.clock), self.world.learned)
        api.told = self.told
        api.time = lambda: (NOON + timedelta(seconds=self.clock)).isoformat()

    def told(self, kind: Kind, type_: str | None, manifest: Manifest) -> None:
        if kind not in WATCHED:
            return
        labels = manifest["metadata"].get("labels", {})
        if type_ == "DELETED" or (kind in CHILDREN and names.MANAGED_BY not in labels):  # as a watch by label tells it
            if change := self.cache.forget(kind, name_of(manifest), version(manifest)):
                self.world.learned(change)
        else:
            self.world.learn(kind, manifest)

    async def start(self) -> "Bench":
        await self.resync.all()
        return self

    async def settle(self) -> None:
        """Does all that is due now."""
        for _ in range(1000):
            if (key := self._asks.take(self.clock)) is not None:
                await self._run(self._asks, key, self._reconcilers[key.kind])
            elif (key := self._visits.take(self.clock)) is not None:
                visitor = self._warm_visitor if key.kind is PODS else self._visitor
                await self._run(self._visits, key, visitor.visit)
            else:
                return
        raise AssertionError("a hot loop: a thousand runs and no end")

    async def advance(self, seconds: float) -> None:
        """Lets time pass, doing everything when it is due."""
        end = self.clock + seconds
        while True:
            await self.settle()
            due = [at for at in (self._asks.next_due(), self._visits.next_due()) if at is not None and at <= end]
            if not due:
                self.clock = end
                return
            self.clock = min(due)

    async def _run(self, schedule: Schedule[Key], key: Key, work: object) -> None:
        try:
            again = await work(key)  # type: ignore[operator]
            self._failures.pop(key, None)
        except (WaitingError, RefusedError) as error:
            self.errors.append(error)
            self._failures[key] = self._failures.get(key, 0) + 1
            again = backoff(self._failures[key], 0.0)
        schedule.done(key)
        if again is not None:
            schedule.ask(key, self.clock + again)

    # --- objects -------------------------------------------------------------------------------------------------

    def agent(self, name: str = "helper", **spec: object) -> Manifest:
        model = {"name": "m", "baseURL": "http://model/v1"}
        return self.api.put(AGENTS, _object(AGENTS, name, {"model": model, **spec}))

    def session(self, name: str = "chat", agent: str = "helper", **spec: object) -> Manifest:
        return self.api.put(
            SESSIONS, _object(SESSIONS, name, {"agentRef": {"name": agent}, "subject": "alice", **spec})
        )

    def policy(self, name: str = "month", **rule: int) -> Manifest:
        classes = [{"name": "transcript", **(rule or {"maxAgeSeconds": 60})}]
        return self.api.put(POLICIES, _object(POLICIES, name, {"classes": classes}))

    def kubelet(self, session: str = "chat", ready: bool = True, **status: object) -> Manifest:
        """The pod of a session runs; its address names the volume's claim, for the stand-in of the sidecars."""
        uid = self.identity(session)
        return self.api.change(
            PODS,
            NAMESPACE,
            names.session_pod(session),
            {
                "status": {
                    "phase": "Running",
                    "podIP": f"ip-{uid}",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "True" if ready else "False"},
                    ],
                    "initContainerStatuses": [{"name": "sidecar", "started": True, "state": {"running": {}}}],
                    **status,
                }
            },
        )

    def identity(self, session: str = "chat") -> str:
        """What the session's journal is bound to."""
        return str(self.api.objects[CLAIMS, NAMESPACE, names.session_claim(session)]["metadata"]["uid"])

    def key_name(self, session: str = "chat") -> str:
        """Name of the Secret with the session's key."""
        return names.session_key(session, self.identity(session))

    def pod_is_gone(self, session: str = "chat") -> None:
        self.api.remove(PODS, NAMESPACE, names.session_pod(session))

    async def running(self, session: str = "chat") -> Manifest:
        """Starts a session of an agent that is there and lets its pod become ready."""
        made = self.session(session)
        await self.advance(0.1)
        self.kubelet(session, ready=False)  # the sidecar starts first
        await self.advance(0.1)
        self.kubelet(session)
        await self.advance(0.1)
        return made

    # --- what is seen --------------------------------------------------------------------------------------------

    def status(self, kind: Kind, name: str) -> Manifest:
        found: Manifest = self.api.objects[kind, NAMESPACE, name].get("status", {})
        return found

    def condition(self, kind: Kind, name: str, type_: str = "Ready") -> tuple[str, str] | None:
        for condition in self.status(kind, name).get("conditions", []):
            if condition["type"] == type_:
                return condition["status"], condition["reason"]
        return None

    def message(self, kind: Kind, name: str, type_: str = "Ready") -> str:
        conditions = self.status(kind, name)["conditions"]
        return str(next(c["message"] for c in conditions if c["type"] == type_))


def _audience(request: httpx.Request) -> str:
    """For whom a call is, as its token says."""
    token = request.headers["authorization"].removeprefix("Bearer ")
    return str(jwt.decode(token, options={"verify_signature": False})["aud"])


def set_of(session: Meta, retained: bool = False) -> SetOf:
    """The set of a session that has its own name."""
    return SetOf.of_session(session, session.name, "helper", "alice", retained)


def _object(kind: Kind, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": spec,
    }
