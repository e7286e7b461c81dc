"""Who is calling, and what they may do. Kubernetes decides; what it said is believed for seconds.

A caller may hold sessions with an agent if RBAC lets them `use` the Agent. A session answers to its own subject, as
long as the subject may still use the agent, and to those whom RBAC lets `use` the AgentSession. One that is kept asleep
is woken only by those whom RBAC lets `wake` the AgentSession. If the API server cannot be asked, nobody may do
anything: `ClusterUnavailable` goes up.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from tenure_gateway.api_client import AGENTS, SESSIONS
from tenure_gateway.directory import SessionView
from tenure_gateway.ids import Key
from tenure_gateway.once import Once

Object = dict[str, Any]
T = TypeVar("T")

ACCOUNT = "system:serviceaccount:"
"""What the names of ServiceAccounts begin with: `system:serviceaccount:<namespace>:<name>`."""
_MAX_ENTRIES = 20_000
"""Entries of one cache, the oldest go first: a flood of invented tokens costs some megabytes and no more."""
_MAX_TOKEN = 16_384
"""Longest token that is looked at. Tokens of OIDC providers with many groups stay well below."""
_AT_ONCE = 16
"""Questions that one listing of models asks the API server at a time."""


class Reviewer(Protocol):
    """The part of the cluster that decides."""

    async def review_token(self, token: str, audience: str) -> Object:
        """The status of a TokenReview."""

    async def review_access(self, user: Object, attributes: Object) -> bool:
        """The answer of a SubjectAccessReview."""


@dataclass(frozen=True)
class Caller:
    """Somebody whom Kubernetes knows. `fingerprint` stands for the token, which is not kept."""

    name: str
    fingerprint: bytes
    user: Object = field(hash=False, compare=False)
    """What a SubjectAccessReview wants to know of them: user, uid, groups, extra."""


def on_behalf_of(subject: str) -> Caller:
    """Somebody in whose name a session's pod calls: of their groups, those are known that follow from the name."""
    groups = ["system:authenticated"]
    if subject.startswith(ACCOUNT):
        namespace = subject.removeprefix(ACCOUNT).partition(":")[0]
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    return Caller(subject, f"subject {subject}".encode(), {"user": subject, "groups": groups})


class Memory(Generic[T]):
    """Answers to questions, each believed for a time. Who asks what is being asked already waits for that answer.

    Bounded; failures are not kept.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[Any, tuple[float, T]] = OrderedDict()
        self._asking: Once[T] = Once()

    async def ask(self, question: Any, answer: Callable[[], Awaitable[T]]) -> T:
        """The remembered answer, or a new one."""
        known = self._known.get(question)
        if known is not None and known[0] > self._clock():
            return known[1]
        return await self._asking.do(question, lambda: self._find(question, answer))

    async def _find(self, question: Any, answer: Callable[[], Awaitable[T]]) -> T:
        value = await answer()
        # Believed from the moment of the answer; moved to the end, so that the front is the oldest.
        self._known[question] = (self._clock() + self._seconds, value)
        self._known.move_to_end(question)
        if len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)
        return value


class Access:
    """Authentication by TokenReview, authorisation by SubjectAccessReview.

    `clock` is in seconds, monotonic; `token_seconds` and `access_seconds` say how long an answer is believed.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        audience: str,
        token_seconds: float,
        access_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._reviewer = reviewer
        self._audience = audience
        self._callers: Memory[Caller | None] = Memory(token_seconds, clock)
        self._decisions: Memory[bool] = Memory(access_seconds, clock)

    async def caller(self, authorization: str | None) -> Caller | None:
        """Who presents this `Authorization` header; None if it is not a token that is valid for this gateway."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            return None
        fingerprint = hashlib.sha256(token.encode()).digest()
        return await self._callers.ask(fingerprint, lambda: self._review(token, fingerprint))

    async def _review(self, token: str, fingerprint: bytes) -> Caller | None:
        status = await self._reviewer.review_token(token, self._audience)
        user = status.get("user") or {}
        # An authenticator that knows nothing of audiences leaves them out; its word is not about us.
        if status.get("authenticated") is not True or self._audience not in (status.get("audiences") or ()):
            return None
        if not user.get("username"):
            return None
        known = {key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}
        return Caller(user["username"], fingerprint, {"user": user["username"], **known})

    async def may_use_agent(self, caller: Caller, agent: Key) -> bool:
        """Whether the caller may hold own sessions with this agent."""
        return await self._may(caller, AGENTS, agent.namespace, agent.name)

    async def may_use_session(self, caller: Caller, session: SessionView) -> bool:
        """Whether the session answers to the caller."""
        if await self.may_use_as_subject(caller, session):
            return True
        return await self._may(caller, SESSIONS, session.key.namespace, session.key.name)

    async def may_wake(self, caller: Caller, session: SessionView) -> bool:
        """Whether the caller may wake the session although it is kept asleep."""
        return await self._may(caller, SESSIONS, session.key.namespace, session.key.name, "wake")

    async def may_use_as_subject(self, caller: Caller, session: SessionView) -> bool:
        """Whether the session is the caller's own."""
        return caller.name == session.subject and await self.may_use_agent(caller, session.agent)

    async def may(self, caller: Caller, verb: str, session: Key) -> bool:
        """Whether RBAC lets the caller do this with a session, or with all of a namespace if it has no name."""
        return await self._may(caller, SESSIONS, session.namespace, session.name, verb)

    async def usable_agents(self, caller: Caller, agents: Iterable[Key]) -> list[Key]:
        """Those of the agents that the caller may use.

        Asks for all of them at once, then by namespace, and one by one only where names are what RBAC speaks of.
        """
        if await self._may(caller, AGENTS, "", ""):
            return list(agents)
        spaces: dict[str, list[Key]] = {}
        for agent in agents:
            spaces.setdefault(agent.namespace, []).append(agent)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def allowed(namespace: str, name: str) -> bool:
            async with limit:
                return await self._may(caller, AGENTS, namespace, name)

        async def of_space(namespace: str, keys: list[Key]) -> list[Key]:
            if await allowed(namespace, ""):
                return keys
            answers = await asyncio.gather(*(allowed(key.namespace, key.name) for key in keys))
            return [key for key, answer in zip(keys, answers, strict=True) if answer]

        found = await asyncio.gather(*(of_space(*space) for space in spaces.items()))
        return [key for keys in found for key in keys]

    async def _may(self, caller: Caller, resource: str, namespace: str, name: str, verb: str = "use") -> bool:
        attributes = {"verb": verb, "resource": resource, "namespace": namespace, "name": name}
        question = (caller.fingerprint, verb, resource, namespace, name)
        return await self._decisions.ask(question, lambda: self._reviewer.review_access(caller.user, attributes))
