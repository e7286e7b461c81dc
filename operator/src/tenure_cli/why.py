"""`why`: gathers what the cluster holds of a session, and says what that means."""

import argparse
from datetime import UTC, datetime

from tenure_api.names import session_claim, session_pod
from tenure_cli.errors import NotAllowedError, NotFoundError
from tenure_cli.kube import AGENTS, CLAIMS, EVENTS, PODS, SESSIONS, Kind, Object
from tenure_cli.names import Key
from tenure_cli.reach import Reach
from tenure_cli.situation import Seen, event_time, explain


def run(reach: Reach, options: argparse.Namespace) -> None:
    """`why SESSION`."""
    key = reach.key(options.session)
    session = reach.cluster.get(SESSIONS, *key)
    found = explain(_seen(reach, key, session))
    document = {
        "session": str(key),
        "state": found.state,
        "reason": found.reason,
        "since": found.since,
        "notes": [note.said for note in found.notes],
        "todo": [note.todo for note in found.notes if note.todo],
    }
    reach.console.result(document, found.text)


def _seen(reach: Reach, key: Key, session: Object) -> Seen:
    status = session.get("status") or {}
    set_name = status.get("setName") or key.name
    pod = status.get("podName") or session_pod(set_name)
    claim = status.get("volumeClaimName") or session_claim(set_name)

    def get(kind: Kind, name: str) -> Object | None:
        # Who may see the session need not be allowed to see all that it is made of.
        try:
            return reach.cluster.get(kind, key.namespace, name)
        except (NotFoundError, NotAllowedError):
            return None

    return Seen(
        session=session,
        now=datetime.now(UTC),
        agent=get(AGENTS, session["spec"]["agentRef"]["name"]),
        pod=get(PODS, pod),
        claim=get(CLAIMS, claim),
        events=[event for name in (key.name, pod, claim) for event in _events(reach, key.namespace, name)],
    )


def _events(reach: Reach, namespace: str, name: str) -> list[Object]:
    try:
        found = reach.cluster.find(EVENTS, namespace, fields=f"involvedObject.name={name}")
    except NotAllowedError:
        return []
    return sorted(found, key=event_time)
