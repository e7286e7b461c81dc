"""`sessions`, `wake`, `sleep` and `fork`: what is asked of the API server."""

import argparse
from datetime import UTC, datetime

from tenure_api.names import AGENT_LABEL, API_VERSION, MAX_NAME, WAKE_ANNOTATION
from tenure_api.session import EffectiveMode, OperatingMode
from tenure_cli.ages import age
from tenure_cli.console import table
from tenure_cli.errors import CliError
from tenure_cli.kube import SESSIONS, Object
from tenure_cli.names import Key, new_name
from tenure_cli.reach import Reach
from tenure_cli.situation import condition


def listing(reach: Reach, options: argparse.Namespace) -> None:
    """`sessions [AGENT]`."""
    agent = reach.key(options.agent) if options.agent else None
    namespace = agent.namespace if agent else reach.namespace
    found = reach.cluster.find(SESSIONS, None if options.all_namespaces and agent is None else namespace)
    shown = [_row(s) for s in found if agent is None or s["spec"]["agentRef"]["name"] == agent.name]
    now = datetime.now(UTC)
    rows = [
        (
            *((row["namespace"],) if options.all_namespaces else ()),
            row["name"],
            row["agent"],
            row["mode"],
            row["ready"],
            row["reason"],
            row["waiting"] or "",
            str(row["turns"] if row["turns"] is not None else ""),
            age(row["lastActivityTime"], now),
            row["subject"],
        )
        for row in shown
    ]
    header: tuple[str, ...] = ("NAME", "AGENT", "MODE", "READY", "REASON", "WAITING", "TURNS", "LAST USED", "SUBJECT")
    header = ("NAMESPACE", *header) if options.all_namespaces else header
    text = table(header, rows) if rows else f"No sessions in {'any namespace' if namespace is None else namespace}."
    reach.console.result({"sessions": shown}, text)


def _row(session: Object) -> Object:
    status = session.get("status", {})
    ready = condition(session, "Ready") or {}
    waiting = condition(session, "TurnSuspended") or {}
    return {
        "namespace": session["metadata"]["namespace"],
        "name": session["metadata"]["name"],
        "agent": session["spec"]["agentRef"]["name"],
        "subject": session["spec"]["subject"],
        "mode": status.get("effectiveMode") or OperatingMode.RUNNING,
        "ready": ready.get("status", "Unknown"),
        "reason": ready.get("reason", ""),
        "waiting": waiting.get("reason"),
        "turns": status.get("turns"),
        "lastActivityTime": status.get("lastActivityTime"),
        "expiresAt": session["spec"].get("expiresAt"),
    }


def wake(reach: Reach, options: argparse.Namespace) -> None:
    """`wake SESSION`. The request names the lease that sleeps, so that it is used up by the waking itself."""
    key = reach.key(options.session)
    session = reach.cluster.get(SESSIONS, *key)
    asleep = _asleep(session)
    stays = session["spec"].get("operatingMode") == OperatingMode.HIBERNATED
    changes: Object = {}
    if asleep:
        generation = (session["status"].get("lease") or {}).get("generation", 0)
        changes["metadata"] = {"annotations": {WAKE_ANNOTATION: str(generation)}}
    if options.keep and stays:
        changes["spec"] = {"operatingMode": OperatingMode.RUNNING}
    if changes:
        reach.cluster.patch(SESSIONS, *key, changes)
    text = f"Session {key} wakes." if asleep else f"Session {key} is awake."
    if stays:
        text += (
            " From now on any use wakes it."
            if options.keep
            else " When it is idle it sleeps again, and only those who may `wake` it wake it; --keep ends that."
        )
    reach.console.result({"session": str(key), "woken": asleep, "kept": bool(options.keep)}, text)


def sleep(reach: Reach, options: argparse.Namespace) -> None:
    """`sleep SESSION`."""
    key = reach.key(options.session)
    changed = reach.cluster.patch(SESSIONS, *key, {"spec": {"operatingMode": OperatingMode.HIBERNATED}})
    asleep = _asleep(changed)
    text = f"Session {key} sleeps." if asleep else f"Session {key} sleeps as soon as its turn, if it is in one, ends."
    reach.console.result({"session": str(key), "asleep": asleep}, f"{text} To wake it: kubectl tenure wake {key}")


def fork(reach: Reach, options: argparse.Namespace) -> None:
    """`fork SESSION`."""
    key = reach.key(options.session)
    origin = reach.cluster.get(SESSIONS, *key)
    name = options.name or new_name(f"{key.name}-fork")
    fork = _named(reach, key, name)
    source: Object = {"session": key.name}
    if options.at is not None:
        source["atSequence"] = options.at
    agent = origin["spec"]["agentRef"]["name"]
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "AgentSession",
        "metadata": {"namespace": fork.namespace, "name": fork.name, "labels": {AGENT_LABEL: agent}},
        "spec": {
            "agentRef": {"name": agent},
            "subject": origin["spec"]["subject"],
            "source": {"forkFrom": source},
        },
    }
    reach.cluster.create(SESSIONS, manifest)
    result = {"session": str(fork), "forkFrom": {"session": str(key), "atSequence": options.at}}
    reach.console.result(result, f"Session {fork} begins with the history of {key}.")


def _named(reach: Reach, origin: Key, name: str) -> Key:
    fork = reach.key(name) if "/" in name else reach.key(f"{origin.namespace}/{name}")
    if fork.namespace != origin.namespace:
        raise CliError(f"A fork is in the namespace of its origin, {origin.namespace}.")
    if len(fork.name) > MAX_NAME:
        raise CliError(f"The name of a session has at most {MAX_NAME} characters; '{fork.name}' has {len(fork.name)}.")
    return fork


def _asleep(session: Object) -> bool:
    found: str | None = session.get("status", {}).get("effectiveMode")
    return found == EffectiveMode.HIBERNATED
