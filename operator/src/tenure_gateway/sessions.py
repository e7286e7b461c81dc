"""Finds, makes and deletes sessions for callers."""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tenure_api.names import AGENT_LABEL, API_VERSION, CALL_ANNOTATION, METADATA_ANNOTATION, PARENT_LABEL, session_pod
from tenure_gateway.access import Access, Caller
from tenure_gateway.directory import AgentView, Directory, Object, SessionView
from tenure_gateway.faults import ClusterUnavailable, KeyReused, NameTaken, NotReady, SessionStalled
from tenure_gateway.ids import Key, new_session_name

_WATCH_LAG_SECONDS = 2.0
"""A watch is milliseconds behind what happens, unless the API server is overloaded."""

log = logging.getLogger(__name__)


class Store(Protocol):
    """The part of the cluster where sessions are."""

    async def get_session(self, key: Key) -> Object | None:
        """One AgentSession as it is now."""

    async def create_session(self, manifest: Object) -> Object:
        """Creates an AgentSession."""

    async def delete_session(self, key: Key, uid: str | None) -> None:
        """Deletes an AgentSession."""


@dataclass(frozen=True)
class Parentage:
    """The call of a tool that a session is made for."""

    parent: SessionView
    turn: str
    step: str


@dataclass(frozen=True)
class Wish:
    """A session that is wanted."""

    agent: AgentView
    subject: str
    seconds: int | None = None
    """How long it is to live; until it is deleted if None."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    """Its name, if it is one that a repetition of the request finds again."""
    parentage: Parentage | None = None
    bundle: str | None = None
    """Digest of the bundle that it begins with."""


def session_manifest(wish: Wish, name: str, expires: datetime | None) -> Object:
    """The AgentSession to create."""
    labels = {AGENT_LABEL: wish.agent.key.name}
    annotations = {METADATA_ANNOTATION: json.dumps(wish.metadata)} if wish.metadata else {}
    described: Object = {"namespace": wish.agent.key.namespace, "name": name}
    if wish.parentage is not None:
        parent = wish.parentage.parent
        labels[PARENT_LABEL] = parent.key.name
        annotations[CALL_ANNOTATION] = f"{wish.parentage.turn}/{wish.parentage.step}"
        owner = {"apiVersion": API_VERSION, "kind": "AgentSession", "name": parent.key.name, "uid": parent.uid}
        described["ownerReferences"] = [owner]
    described["labels"] = labels
    if annotations:
        described["annotations"] = annotations
    spec: Object = {"agentRef": {"name": wish.agent.key.name}, "subject": wish.subject}
    if wish.bundle is not None:
        spec["source"] = {"importFrom": {"digest": wish.bundle}}
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
        """A session that answers to the caller; None if there is none."""
        session = await self.look_up(key)
        return session if session is not None and await self._access.may_use_session(caller, session) else None

    async def look_up(self, key: Key | None) -> SessionView | None:
        """A session, whoever asks; None if there is none.

        One that the watch has not shown yet, because another replica has just made it, is asked for.
        """
        if key is None:
            return None
        session = self._directory.sessions.get(key)
        if session is None:
            session = await self.refreshed(key)
        return None if session is None or session.deleting else session

    def of_pod(self, pod: Key) -> SessionView | None:
        """The session whose status names this pod; None if the watch has shown none yet."""
        return self._directory.sessions.of_pod(pod)

    async def of_new_pod(self, pod: Key) -> SessionView | None:
        """The session of a pod that may have come just now; None if there is none.

        Most pods are named after their session, which can be asked for. One that comes from a warm pool is not: the
        watch will show in a moment whose it is.
        """
        named = await self.refreshed(Key(pod.namespace, pod.name.removesuffix(session_pod(""))))
        return named or await self._directory.sessions.appears(pod, _WATCH_LAG_SECONDS)

    async def refreshed(self, key: Key) -> SessionView | None:
        """A session as it is now; None if there is none. Raises `ClusterUnavailable`."""
        obj = await self._store.get_session(key)
        return None if obj is None else self._directory.sessions.offer(obj)

    async def create(self, wish: Wish) -> SessionView:
        """A new session, or the one of the wished name that was made for the same wish before.

        Raises `ClusterRefused`, `ClusterUnavailable`, or `KeyReused` if the name is that of another one's session.
        """
        key = Key(wish.agent.key.namespace, wish.name or new_session_name(wish.agent.key.name))
        expires = None if wish.seconds is None else datetime.now(UTC) + timedelta(seconds=wish.seconds)
        try:
            obj = await self._store.create_session(session_manifest(wish, key.name, expires))
        except NameTaken:
            if wish.name is None:
                raise
            return await self._made_before(key, wish)
        except (ClusterUnavailable, asyncio.CancelledError):
            # It may have been created all the same, and unless a repetition finds it, nobody would know its name.
            if wish.name is None:
                self._later(self._delete(key, None))
            raise
        return self._directory.sessions.offer(obj)

    async def _made_before(self, key: Key, wish: Wish) -> SessionView:
        obj = await self._store.get_session(key)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            raise NotReady("the session of this name is being deleted")
        session = self._directory.sessions.offer(obj)
        owner = None if wish.parentage is None else wish.parentage.parent.uid
        made = (session.subject, session.agent, session.owner, session.bundle)
        if made != (wish.subject, wish.agent.key, owner, wish.bundle):
            raise KeyReused
        return session

    async def create_for_turn(self, wish: Wish) -> SessionView:
        """As `create`, for a turn that follows at once: raises `SessionStalled` if the agent cannot start it."""
        if wish.agent.blocked is not None:
            raise SessionStalled(f"agent {wish.agent.key} starts no sessions: {wish.agent.blocked}")
        return await self.create(wish)

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
