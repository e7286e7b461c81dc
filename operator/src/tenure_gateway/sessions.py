"""Finds, makes and deletes sessions for callers."""

import asyncio
import json
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tenure_api.names import AGENT_LABEL, API_VERSION, METADATA_ANNOTATION
from tenure_gateway.access import Access, Caller
from tenure_gateway.directory import AgentView, Directory, Object, SessionView
from tenure_gateway.faults import ClusterUnavailable, SessionStalled
from tenure_gateway.ids import Key, new_session_name

log = logging.getLogger(__name__)


class Store(Protocol):
    """The part of the cluster where sessions are."""

    async def get_session(self, key: Key) -> Object | None:
        """One AgentSession as it is now."""

    async def create_session(self, manifest: Object) -> Object:
        """Creates an AgentSession."""

    async def delete_session(self, key: Key, uid: str | None) -> None:
        """Deletes an AgentSession."""


def session_manifest(key: Key, agent: str, subject: str, expires: datetime | None, metadata: dict[str, str]) -> Object:
    """The AgentSession to create."""
    described: Object = {"namespace": key.namespace, "name": key.name, "labels": {AGENT_LABEL: agent}}
    if metadata:
        described["annotations"] = {METADATA_ANNOTATION: json.dumps(metadata)}
    spec: Object = {"agentRef": {"name": agent}, "subject": subject}
    if expires is not None:
        spec["expiresAt"] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"apiVersion": API_VERSION, "kind": "AgentSession", "metadata": described, "spec": spec}


class Sessions:
    """The sessions of all callers."""

    def __init__(self, directory: Directory, store: Store, access: Access) -> None:
        self._directory = directory
        self._store = store
        self._access = access
        self._background: set[asyncio.Task[None]] = set()

    async def agent(self, caller: Caller, key: Key | None) -> AgentView | None:
        """An agent that the caller may use; None if there is none."""
        agent = None if key is None else self._directory.agents.get(key)
        if agent is None or not await self._access.may_use_agent(caller, agent.key):
            return None
        return agent

    async def agents(self, caller: Caller) -> list[AgentView]:
        """All agents that the caller may use, by name."""
        agents = {agent.key: agent for agent in self._directory.agents}
        return [agents[key] for key in await self._access.usable_agents(caller, sorted(agents))]

    async def find(self, caller: Caller, key: Key | None) -> SessionView | None:
        """A session that answers to the caller; None if there is none.

        One that the watch has not shown yet, because another replica has just made it, is asked for.
        """
        if key is None:
            return None
        session = self._directory.sessions.get(key)
        if session is None:
            obj = await self._store.get_session(key)
            if obj is None:
                return None
            session = self._directory.sessions.offer(obj)
        if session.deleting or not await self._access.may_use_session(caller, session):
            return None
        return session

    async def create(
        self, caller: Caller, agent: AgentView, seconds: int | None, metadata: dict[str, str]
    ) -> SessionView:
        """A new session of the caller's, which lives for so long, or until it is deleted.

        Raises `ClusterRefused` or `ClusterUnavailable`.
        """
        key = Key(agent.key.namespace, new_session_name(agent.key.name))
        expires = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        try:
            obj = await self._store.create_session(
                session_manifest(key, agent.key.name, caller.name, expires, metadata)
            )
        except (ClusterUnavailable, asyncio.CancelledError):
            # It may have been created all the same, and nobody would ever know its name.
            self._later(self._delete(key, None))
            raise
        return self._directory.sessions.offer(obj)

    async def create_for_turn(self, caller: Caller, agent: AgentView, seconds: int) -> SessionView:
        """As `create`, for a turn that follows at once: raises `SessionStalled` if the agent cannot start it."""
        if agent.blocked is not None:
            raise SessionStalled(f"agent {agent.key} starts no sessions: {agent.blocked}")
        return await self.create(caller, agent, seconds, {})

    async def delete(self, session: SessionView) -> None:
        """Deletes a session. Raises `ClusterUnavailable`."""
        await self._store.delete_session(session.key, session.uid)
        self._directory.sessions.drop(session)

    def discard(self, session: SessionView) -> None:
        """Deletes a session in the background. Should that fail, its time of expiry is the backstop."""
        self._later(self._delete(session.key, session.uid))

    async def settle(self) -> None:
        """Returns when all that goes on in the background is done."""
        while self._background:
            await asyncio.wait(self._background)

    async def _delete(self, key: Key, uid: str | None) -> None:
        try:
            await self._store.delete_session(key, uid)
        except ClusterUnavailable as error:
            log.warning("cannot delete session %s: %s", key, error)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
