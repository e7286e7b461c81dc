"""Reconciles sessions that share pods: finds each a host, has it kept there, and says how it is."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from tenure_api import names
from tenure_api.agent import Agent
from tenure_api.conditions import ConditionType, Reason
from tenure_api.report import Binding, JournalState, Report
from tenure_api.session import AgentSession, Hibernation, OperatingMode
from tenure_operator.cache import Name, agent_of, name_of
from tenure_operator.desired.pod import pod_hash
from tenure_operator.kinds import AGENTS, CLAIMS, PODS, SESSIONS, Manifest, Meta
from tenure_operator.reconcile import pods, sleep
from tenure_operator.reconcile.children import is_deleting
from tenure_operator.reconcile.session_conditions import Facts, FactsOfAgent
from tenure_operator.reconcile.session_observe import lineage_of
from tenure_operator.reconcile.session_report import Statuses, policy_named, revision, tell_news
from tenure_operator.reconcile.session_status import session_status
from tenure_operator.reconcile.sleep import Sleep
from tenure_operator.reconcile.verdict import Progress, Verdict, comparable, stalled, waiting
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.wakes import is_shared, ready_status, recovered_of, wake_of

WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class _Seen:
    """A session and the host that it has, or is to have."""

    manifest: Manifest
    session: AgentSession
    now: datetime
    agent: Manifest | None
    set_name: str | None
    pod: Manifest | None
    claim: Manifest | None

    @property
    def name(self) -> Name:
        """Of the session."""
        return name_of(self.manifest)

    @property
    def meta(self) -> Meta:
        """Of the session."""
        return Meta.of(self.manifest)

    @property
    def asked(self) -> Sleep:
        """What is asked of its sleep."""
        return Sleep(wake_of(self.manifest))


class SharedSessions:
    """Sessions of agents with isolation Shared."""

    def __init__(self, world: World, sidecars: Sidecars) -> None:
        self._world = world
        self._sidecars = sidecars
        self._statuses = Statuses(world)

    def has(self, manifest: Manifest) -> bool:
        """Whether a session is one of these."""
        return is_shared(self._world.cache.get(AGENTS, *agent_of(manifest)))

    def forget(self, session: Name) -> None:
        """The session is gone."""
        self._statuses.forget(session)

    async def look(self, manifest: Manifest, session: AgentSession, now: datetime) -> float | None:
        """Looks at one session; returns the seconds after which to look again."""
        seen = self._observed(manifest, session, now)
        slept = sleep.is_asleep(session)
        if slept and not sleep.is_to_wake(session, seen.asked, now):
            rest = session.status.hibernation or sleep.hibernation(session, None, now)
            return await self._say(seen, sleep.asleep(session), rest)
        verdict = self._obstacle(seen)
        if verdict is not None:
            later = await self._say(seen, verdict)
            return WAIT_SECONDS if later is None else min(later, WAIT_SECONDS)
        report = await self._kept(seen)
        if report.journal is not JournalState.OPEN:
            fix = "Restore the volume from a backup, or delete the session."
            said = f"The journal cannot be read. {fix} {report.journal_message}"
            return await self._say(seen, stalled(Reason.JOURNAL_UNREADABLE, said.rstrip()))
        begins = slept or session.status.lease is None
        if not begins and self._is_to_sleep(seen):
            return await self._say(seen, sleep.asleep(session), sleep.hibernation(session, None, now))
        return await self._say(seen, pods.READY, lease=sleep.generation_of(session) + 1 if begins else None)

    # --- where it is ---------------------------------------------------------------------------------------------

    def _observed(self, manifest: Manifest, session: AgentSession, now: datetime) -> _Seen:
        cache, where = self._world.cache, manifest["metadata"]["namespace"]
        agent = cache.get(AGENTS, *agent_of(manifest))
        set_name = session.status.set_name
        if set_name is None and agent is not None:
            set_name = self._choice(manifest, agent)
        return _Seen(
            manifest,
            session,
            now,
            None if agent is None or is_deleting(agent) else agent,
            set_name,
            cache.get(PODS, where, names.session_pod(set_name)) if set_name else None,
            cache.get(CLAIMS, where, names.session_claim(set_name)) if set_name else None,
        )

    def _choice(self, manifest: Manifest, agent: Manifest) -> str | None:
        """The host that has the session already, else the one that is ready and has the fewest."""
        where, load = manifest["metadata"]["namespace"], self._load(agent)
        ready: list[str] = []
        for number in range(Agent.model_validate(agent).spec.session.replicas):
            host = names.host_set(agent["metadata"]["name"], number)
            pod = self._world.cache.get(PODS, where, names.session_pod(host))
            report = self._report_of(where, host, pod)
            if pod is None or report is None:
                continue
            if manifest["metadata"]["uid"] in (report.sessions or ()):
                return host
            if pods.is_ready(pod):
                ready.append(host)
        return min(ready, key=lambda host: (load[host], host), default=None)

    def _load(self, agent: Manifest) -> Counter[str]:
        sessions = self._world.cache.sessions_of(name_of(agent))
        return Counter(session.get("status", {}).get("setName", "") for session in sessions)

    def _report_of(self, namespace: str, host: str, pod: Manifest | None) -> Report | None:
        seen = self._world.hosts.of((namespace, host), pod["metadata"]["uid"]) if pod else None
        return seen.report if seen else None

    def _obstacle(self, seen: _Seen) -> Verdict | None:
        """Why it cannot take turns now."""
        name = seen.session.spec.agent_ref.name
        if seen.agent is None:
            return waiting(Reason.AGENT_NOT_FOUND, f"There is no Agent {name} in this namespace: create it.")
        if seen.session.spec.source is not None:
            said = "A session of an agent with isolation Shared cannot begin with the state of another."
            return stalled(Reason.SOURCE_INVALID, f"{said} Create it without source.")
        if seen.set_name is None:
            if ready_status(seen.agent) != ("True", seen.agent["metadata"]["generation"]):
                return waiting(Reason.AGENT_NOT_READY, f"Agent {name} is not ready yet.")
            return waiting(Reason.POD_STARTING, "None of the pods that the agent's sessions share is ready yet.")
        if seen.pod is None or seen.claim is None:
            return waiting(Reason.POD_STARTING, f"Pod {names.session_pod(seen.set_name)} is being made.")
        report = self._report_of(seen.name[0], seen.set_name, seen.pod)
        judged = pods.judge(seen.pod, seen.claim, report, seen.now)
        return None if judged.verdict.is_ready else judged.verdict

    async def _kept(self, seen: _Seen) -> Report:
        """What the host says of the session, which it keeps from now on. Asked for that once in the life of a pod."""
        if seen.pod is None or seen.claim is None:
            raise ValueError("without an obstacle there is a host")
        uid, meta = seen.pod["metadata"]["uid"], seen.meta
        known = self._world.sightings.of(seen.name, uid)
        if known is not None and known.report is not None:
            return known.report
        host = Address(seen.claim["metadata"]["uid"], seen.pod["status"]["podIP"])
        binding = Binding(session=f"{meta.namespace}/{meta.name}", uid=meta.uid)
        report = await self._sidecars.keep(host, binding)
        before = seen.session.status.journal
        if before is not None and report.sequence < before.sequence:
            said = "The volume that it was on is gone with all that was in it; the session begins anew."
            await self._world.events.tell((SESSIONS, meta), "Warning", "VolumeLost", "Start", said)
        self._world.sightings.saw(seen.name, uid, report)
        return report

    def _is_to_sleep(self, seen: _Seen) -> bool:
        """Only because it is told to: an idle session costs nothing here."""
        if seen.session.spec.operating_mode is not OperatingMode.HIBERNATED or seen.agent is None:
            return False
        uid = seen.pod["metadata"]["uid"] if seen.pod else None
        idle = self._world.sightings.idle(seen.name, uid)
        template = Agent.model_validate(seen.agent).spec.session
        return idle is not None and idle >= sleep.patience(seen.session, seen.asked, template.idle_timeout_seconds)

    # --- what is said --------------------------------------------------------------------------------------------

    async def _say(
        self, seen: _Seen, verdict: Verdict, rest: Hibernation | None = None, lease: int | None = None
    ) -> float | None:
        """Writes the status if it says anything new; returns the seconds until counters alone may be written."""
        before, now = seen.session.status, seen.now
        after = session_status(before, self._facts(seen, verdict, rest, lease), now)
        if seen.set_name is None:
            after = after.model_copy(update={"set_name": None, "identity": None, "pod_name": None})
        if comparable(after) == comparable(before):
            return None
        if lease is None and (pause := self._statuses.pause(seen.name, before, after, now)):
            return pause
        await self._statuses.write(seen.meta, after, now)
        was = next((known for known in before.conditions if known.type == ConditionType.READY), None)
        if verdict.progress is Progress.STALLED and (was is None or was.reason != verdict.reason):
            about = (SESSIONS, seen.meta)
            await self._world.events.tell(about, "Warning", verdict.reason, "Reconcile", verdict.message)
        await tell_news(self._world, seen.meta, before, after)
        return None

    def _facts(self, seen: _Seen, verdict: Verdict, rest: Hibernation | None, lease: int | None) -> Facts:
        agent = Agent.model_validate(seen.agent) if seen.agent else None
        policy = agent.spec.memory_policy_ref if agent else None
        policy_name = policy.name if policy else None
        return Facts(
            meta=seen.meta,
            agent_name=seen.session.spec.agent_ref.name,
            set_name=seen.set_name or "",
            identity=seen.meta.uid,
            verdict=verdict,
            pod=seen.pod,
            claim=seen.claim,
            sighting=self._world.sightings.of(seen.name, seen.pod["metadata"]["uid"]) if seen.pod else None,
            lease=lease,
            hibernation=rest,
            revision=self._revision(seen, agent),
            agent=FactsOfAgent(seen.agent["metadata"]["generation"], len(agent.spec.tools), policy_name)
            if agent and seen.agent
            else None,
            policy=policy_named(self._world, seen.meta.namespace, policy_name),
            lineage=lineage_of(seen.manifest),
            recovered=recovered_of(seen.manifest),
        )

    def _revision(self, seen: _Seen, agent: Agent | None) -> str | None:
        """By the host's pod and by what its sidecar says."""
        if agent is None:
            return None
        name = agent_of(seen.manifest)
        report = self._report_of(seen.name[0], seen.set_name or "", seen.pod)
        return revision(self._world, name, pod_hash(name[1], agent.spec, self._world.fixed.pods), seen.pod, report)
