"""Visits a session's sidecar: takes its report, and gives it the configuration that it should have."""

import random
from collections.abc import Callable

from tenure_api import names
from tenure_api.report import Report
from tenure_operator.cache import Name, agent_of
from tenure_operator.errors import UnavailableError
from tenure_operator.kinds import AGENTS, PODS, SESSIONS, Key, Manifest
from tenure_operator.queue import backoff
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.world import World
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.sightings import SILENT_AFTER
from tenure_operator.wakes import is_shared

STARTING_SECONDS = 2.0
"""Between two visits while the pod is not ready: its sidecar may say why."""
SOON_SECONDS = 0.05
SOON_VISITS = 100
"""A pod that starts is visited this often, so many times: a request may wait for it."""
SPREAD = 0.2
"""By how much, at most, the time between two visits is longer or shorter, so that they do not come all at once."""


class Visitor:
    """Keeps in touch with the sidecars. One visit asks for the next, for as long as there is the pod."""

    def __init__(
        self, world: World, sidecars: Sidecars, every: float, random_: Callable[[], float] = random.random
    ) -> None:
        self._world = world
        self._sidecars = sidecars
        self._every = every
        self._random = random_
        self._soon: dict[str, int] = {}

    async def visit(self, at: Key) -> float | None:
        """Visits the sidecar of a session; returns the seconds until the next visit, None if there is none to visit.

        Raises `UnavailableError` if it does not answer, after that is noted.
        """
        session = (at.namespace, at.name)
        manifest = self._world.cache.get(SESSIONS, *session)
        if manifest is None or is_shared(self._world.cache.get(AGENTS, *agent_of(manifest))):
            return None  # the host of a session that shares a pod is visited for all that it keeps
        pod = self._world.cache.get(PODS, at.namespace, names.session_pod(_status(manifest).get("setName") or at.name))
        if pod is None:
            return None
        if not pods.sidecar_answers(pod):
            return STARTING_SECONDS  # it ended, and is started again in the same pod
        pod_uid = pod["metadata"]["uid"]
        try:
            report = await self._talk(manifest, pod)
        except UnavailableError as error:
            if (soon := self._starting(pod)) is not None:
                return soon
            missed = self._world.sightings.missed(session, pod_uid, str(error))
            if missed.failures == SILENT_AFTER:
                self._world.ask(at, 0.0)
            return min(backoff(missed.failures, self._random()), self._every)
        if self._world.sightings.saw(session, pod_uid, report):
            self._world.ask(at, 0.0)
        if not pods.is_ready(pod):
            soon = None if report.ready else self._starting(pod)
            return soon if soon is not None else STARTING_SECONDS
        self._soon.pop(pod_uid, None)
        return self._pause(manifest) * (1 + SPREAD * (2 * self._random() - 1))

    def _starting(self, pod: Manifest) -> float | None:
        """Seconds until the next visit to a pod that is new and not ready yet; None if it has been given up on."""
        uid = pod["metadata"]["uid"]
        if pods.is_ready(pod) or self._soon.get(uid, 0) >= SOON_VISITS:
            return None
        self._soon[uid] = self._soon.get(uid, 0) + 1
        return SOON_SECONDS

    def _pause(self, session: Manifest) -> float:
        """Seconds between two visits; less for a session that is to sleep soon after its last turn."""
        agent = self._world.cache.get(AGENTS, *agent_of(session))
        idle = ((agent or {}).get("spec", {}).get("session") or {}).get("idleTimeoutSeconds", self._every)
        return min(self._every, max(float(idle), 1.0))

    async def _talk(self, session: Manifest, pod: Manifest) -> Report:
        address = Address(_status(session).get("identity", ""), pod["status"]["podIP"])
        wanted = self._world.wanted.get(agent_of(session))
        known = self._world.sightings.of(_name(session), pod["metadata"]["uid"])
        report = known.report if known else None
        if report is None or wanted is None or report.config_digest == wanted.digest:
            report = await self._sidecars.report(address)
        if wanted is not None and report.config_digest != wanted.digest:
            report = await self._sidecars.configure(address, wanted.config)
        return report


def _status(session: Manifest) -> Manifest:
    found: Manifest = session.get("status", {})
    return found


def _name(session: Manifest) -> Name:
    return session["metadata"]["namespace"], session["metadata"]["name"]
