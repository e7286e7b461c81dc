"""Agents as tools of other agents: what a session's own pod may do here.

The sidecar of a session whose agent has other agents among its tools holds a token of the agent's ServiceAccount, bound
to its pod. Kubernetes says so in a TokenReview, and a token whose pod is gone is not valid any more. With it a session
may make sessions with those agents, in the name of its own subject, and see and cancel what it made; nothing else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tenure_api.names import agent_account, session_pod
from tenure_api.wire import TURN_ID
from tenure_gateway.access import ACCOUNT, Caller
from tenure_gateway.directory import AgentView, Directory, SessionView
from tenure_gateway.ids import Key, parse_key
from tenure_gateway.openai.errors import NO_RETRY, ApiError, invalid
from tenure_gateway.sessions import Parentage

MAX_DEPTH = 5
"""Sessions below one that a person began: agents that call one another would go on for ever."""
_POD = "authentication.kubernetes.io/pod-name"
_TURN = re.compile(TURN_ID)
_STEP = re.compile(r"[0-9]{1,9}")
_LIFETIME = re.compile(r"[0-9]{1,8}")
_LONGEST_LIFETIME = 2_592_000
"""That of `tools.AgentSource`."""


@dataclass(frozen=True)
class Call:
    """A call of an agent by another one's session."""

    parentage: Parentage
    seconds: int
    """How long the session that is made for it lives."""


class Delegation:
    """Decides what the pods of sessions may do."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def pod_of(self, caller: Caller) -> Key | None:
        """The pod that is calling, if it may be a session's; None if it is somebody else. See `proven`."""
        namespace, _, account = caller.name.removeprefix(ACCOUNT).partition(":")
        pod = _pod(caller)
        if pod is None or not caller.name.startswith(ACCOUNT) or not account.endswith(agent_account("")):
            return None
        of = parse_key(f"{namespace}/{pod.removesuffix(session_pod(''))}")
        return Key(namespace, pod) if of is not None and session_pod(of.name) == pod else None

    def proven(self, caller: Caller, session: SessionView) -> bool:
        """Whether it is really this session's pod that is calling.

        The pod of a deleted session of the same name, which is not gone yet, is not the new session's: it is not in its
        status.
        """
        account = f"{ACCOUNT}{session.key.namespace}:{agent_account(session.agent.name)}"
        return not session.deleting and session.pod == _pod(caller) and caller.name == account

    def may_call(self, session: SessionView, agent: Key) -> bool:
        """Whether the session's agent has this agent among its tools."""
        own = self._directory.agents.get(session.agent)
        return own is not None and agent.namespace == session.agent.namespace and agent.name in own.delegates

    def agent(self, agent: Key) -> AgentView | None:
        """An agent that may be called; None if there is none."""
        return self._directory.agents.get(agent)

    def made(self, parent: SessionView, session: SessionView) -> bool:
        """Whether one session made the other."""
        return (session.parent, session.owner) == (parent.key.name, parent.uid)

    def call(self, parent: SessionView, metadata: Mapping[str, str]) -> Call:
        """The call that a session makes, as the metadata of its request says. Raises `ApiError`."""
        if self._depth(parent) >= MAX_DEPTH:
            message = f"Agents may call one another {MAX_DEPTH} deep, and no deeper."
            raise ApiError(400, "delegation_too_deep", message, headers=NO_RETRY)
        turn, step, lifetime = (metadata.get(f"tenure.{name}", "") for name in ("turn", "step", "lifetime"))
        for name, value, form in (("turn", turn, _TURN), ("step", step, _STEP), ("lifetime", lifetime, _LIFETIME)):
            if not form.fullmatch(value):
                raise invalid(f"'metadata.tenure.{name}' must say for which call this is.", f"metadata.tenure.{name}")
        return Call(Parentage(parent, turn, step), min(int(lifetime), _LONGEST_LIFETIME))

    def _depth(self, session: SessionView) -> int:
        """How many sessions are above this one."""
        depth = 0
        above: SessionView | None = session
        while above is not None and above.parent is not None and depth < MAX_DEPTH:
            depth += 1
            above = self._directory.sessions.get(Key(session.key.namespace, above.parent))
        return depth


def _pod(caller: Caller) -> str | None:
    """The pod that the caller's token is bound to, as Kubernetes says."""
    pods: list[str] = (caller.user.get("extra") or {}).get(_POD) or []
    return pods[0] if len(pods) == 1 else None
