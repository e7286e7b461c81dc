"""Brings requests to the pods of sessions, and wakes those that sleep.

A session that sleeps is woken by an annotation with the generation of its lease, which the operator looks for: the
generation has risen when the session runs, so that one wake is never taken for the next. It is written only onto the
very version of the session that was seen asleep: a session that is awake by now, or is to be kept asleep by now, is
looked at again instead.
"""

import asyncio
from typing import Protocol

from tenure_gateway.access import Access, Caller
from tenure_gateway.directory import Directory, Object, SessionView
from tenure_gateway.faults import ClusterRefused, ClusterUnavailable, NotReady, Outdated, SessionAsleep, SessionGone
from tenure_gateway.ids import Key
from tenure_gateway.metrics import Metrics
from tenure_gateway.once import Once
from tenure_gateway.patience import Patience
from tenure_gateway.sidecar import Target


class Bedside(Protocol):
    """The part of the cluster where sessions sleep."""

    async def get_session(self, key: Key) -> Object | None:
        """One AgentSession as it is now."""

    async def wake_session(self, key: Key, version: int, generation: int) -> Object:
        """Annotates this version of an AgentSession, so that it is woken, and returns it."""


class Wakes:
    """Waits for sessions to be Ready, and wakes them."""

    def __init__(self, directory: Directory, cluster: Bedside, access: Access, metrics: Metrics) -> None:
        self._directory = directory
        self._cluster = cluster
        self._access = access
        self._metrics = metrics
        self._writing: Once[None] = Once()

    async def ready(self, key: Key, caller: Caller, patience: Patience) -> Target:
        """The session's sidecar, once it is Ready.

        Raises `SessionGone`, `SessionStalled` or `SessionAsleep` at once, `NotReady` when patience is at its end, or
        what the cluster raises.
        """
        clock = asyncio.get_running_loop().time
        began: float | None = None
        try:
            while True:
                session = self._directory.working(key)
                if session.address is not None and session.identity is not None:
                    return Target(session.identity, session.address, caller.name, session.generation)
                if session.asleep and began is None:
                    began = clock()
                if patience.left == 0:
                    raise NotReady(_waits_for(session))
                if session.asleep and session.woken != session.generation:
                    await self._wake(session, caller, patience)
                else:
                    await self._directory.sessions.changed(key, patience.left)
        finally:
            if began is not None:
                self._metrics.wake_seconds.observe(clock() - began)

    async def _wake(self, session: SessionView, caller: Caller, patience: Patience) -> None:
        """Asks for the session to be woken; if that cannot be now, waits for a moment."""
        if session.kept_asleep and not await self._access.may_wake(caller, session):
            raise SessionAsleep(str(session.key))
        try:
            async with asyncio.timeout_at(patience.deadline):
                await self._writing.do((session.uid, session.generation), lambda: self._write(session))
        except (Outdated, ClusterUnavailable, TimeoutError):
            await self._directory.sessions.changed(session.key, patience.pause())

    async def _write(self, session: SessionView) -> None:
        """Writes the annotation. Raises `Outdated` when the session is not as it was, and is known anew."""
        outcome = "unavailable"
        try:
            woken = await self._cluster.wake_session(session.key, session.version, session.generation)
            outcome = "written"
        except Outdated:
            outcome = "outdated"
            known = await self._cluster.get_session(session.key)
            if known is None:
                raise SessionGone from None
            self._directory.sessions.offer(known)
            raise
        except ClusterRefused:
            outcome = "refused"
            raise
        except SessionGone:
            outcome = "gone"
            raise
        finally:
            self._metrics.wakes.labels(outcome).inc()
        self._directory.sessions.offer(woken)


def _waits_for(session: SessionView) -> str:
    """What a session that is not Ready waits for."""
    if not session.asleep:
        return session.waiting
    if session.woken == session.generation:
        return "it sleeps, and has not woken in time"
    return "it sleeps, and the cluster's API server did not take it that it is to be woken"
