"""Which session a conversation goes on in."""

import argparse
import re

from tenure_api.conditions import ConditionType
from tenure_api.names import AGENT_LABEL, API_VERSION, PARENT_LABEL
from tenure_cli.errors import AlreadyExistsError, CliError, NotAllowedError
from tenure_cli.kube import SESSIONS, Object
from tenure_cli.names import Key
from tenure_cli.reach import Reach
from tenure_cli.situation import condition

_APPROVAL = re.compile(r"\bmcpr_([0-9a-f]{32})_[0-9]+")


def choose(reach: Reach, agent: Key, options: argparse.Namespace) -> tuple[Key, bool]:
    """The session to talk in, and whether it was there before."""
    if options.session:
        session = reach.key(options.session)
        if session.namespace != agent.namespace:
            raise CliError(f"Session {session} and agent {agent} are in different namespaces.")
        if options.new:
            _create(reach, session, agent)
        return session, not options.new
    latest = None if options.new else _latest(reach, agent)
    if latest is None:
        return reach.gateway.begin(agent), False
    reach.console.note(f"Going on in session {latest}; --new begins another one.")
    return latest, True


def waiting_turn(reach: Reach, session: Key) -> str | None:
    """The turn of a session that waits for an approval, if the API server lets the caller see that.

    Only the session's status knows: the transcript has no turns that have not ended.
    """
    try:
        suspended = condition(reach.cluster.get(SESSIONS, *session), ConditionType.TURN_SUSPENDED)
    except CliError:
        return None
    found = _APPROVAL.search((suspended or {}).get("message") or "")
    return None if found is None else found[1]


def _create(reach: Reach, session: Key, agent: Key) -> None:
    subject = reach.subject
    if subject is None:
        raise CliError("With --token, a new session cannot be given a name: only the gateway knows whose it would be.")
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "AgentSession",
        "metadata": {"namespace": session.namespace, "name": session.name, "labels": {AGENT_LABEL: agent.name}},
        "spec": {"agentRef": {"name": agent.name}, "subject": subject},
    }
    try:
        reach.cluster.create(SESSIONS, manifest)
    except AlreadyExistsError:
        raise AlreadyExistsError(f"There is a session {session} already: leave out --new to go on in it.") from None


def _latest(reach: Reach, agent: Key) -> Key | None:
    """The caller's latest conversation with the agent, if the API server lets them look."""
    subject = reach.subject
    if subject is None:
        return None
    try:
        found = reach.cluster.find(SESSIONS, agent.namespace)
    except NotAllowedError:
        return None
    own = [session for session in found if _is_conversation(session, agent, subject)]
    if not own:
        return None
    newest = max(own, key=_used)
    return Key(agent.namespace, newest["metadata"]["name"])


def _is_conversation(session: Object, agent: Key, subject: str) -> bool:
    """Whether it is one to go on in: not one of a single answer, and not one that another agent's call made."""
    metadata, spec = session["metadata"], session["spec"]
    return (
        spec["agentRef"]["name"] == agent.name
        and spec["subject"] == subject
        and "expiresAt" not in spec
        and PARENT_LABEL not in metadata.get("labels", {})
        and "deletionTimestamp" not in metadata
    )


def _used(session: Object) -> str:
    """When it was last used, as RFC 3339, which sorts by time."""
    used: str = session.get("status", {}).get("lastActivityTime") or session["metadata"]["creationTimestamp"]
    return used
