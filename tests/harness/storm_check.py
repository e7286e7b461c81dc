"""What must hold of every run of the storm."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from openai.types.responses import Response

from harness.kube import condition, eventually
from harness.storm import ANSWER, CHILD_ANSWER, Finished, Storm
from harness.storm_plan import NEVER, ROUNDS, SAFE, Victim
from tenure_api.names import PARENT_LABEL, session_pod

UNKNOWN = "unknown"


def shape(response: Response) -> list[tuple[str, str]]:
    """The items of a response, without what tools said; calls that go out together are settled in any order."""
    return sorted((item.type, getattr(item, "name", "")) for item in response.output)


def called(response: Response) -> dict[str, Any]:
    """The settled calls of a response by function."""
    return {item.name: item for item in response.output if item.type == "mcp_call"}


def is_unknown(item: Any) -> bool:
    """Whether a call says that its outcome is unknown."""
    return UNKNOWN in json.dumps(item.error, default=str) or UNKNOWN in (item.output or "")


def problems(storm: Storm, finished: Finished, quiet: Finished) -> list[str]:
    """What is wrong with a run, compared with the one in which nobody was killed; nothing is as it should be."""
    response = finished.response
    if response is None or quiet.response is None:
        return ["it did not end"]
    found = []
    if response.status != "completed":
        found.append(f"it ended as {response.status}: {response.error}")
    if response.output_text != quiet.response.output_text or ANSWER not in response.output_text:
        found.append(f"it answered {response.output_text!r}")
    if shape(response) != shape(quiet.response):
        found.append(f"its items are {shape(response)}")
    if set(finished.run.kills) != set(finished.struck):
        found.append("not every kill took place where it was planned")
    found += _effects(storm, finished, called(response))
    found += _reports(storm, finished, called(response))
    return found


def _effects(storm: Storm, finished: Finished, calls: dict[str, Any]) -> Iterable[str]:
    for name in SAFE:
        if storm.http.count(f"{finished.tag}-{name}").effects < 1:
            yield f"{name} (Safe) took no effect"
    for name, double in (("book", storm.http), ("note", storm.mcp)):
        keys = double.count(f"{finished.tag}-{name}").effects_by_key
        if list(keys.values()) != [1]:
            yield f"{name} (IdempotencyKey) took effect under the keys {keys}"
    script = "cat /workspace/effects 2>/dev/null || true"
    written = storm.place.kube.execute(session_pod(finished.session), "workspace", "sh", "-c", script)
    for name in NEVER:
        effects = len(written.strip()) if name == "code" else storm.http.count(f"{finished.tag}-{name}").effects
        if effects > 1:
            yield f"{name} (Never) took effect {effects} times"
        item = calls.get(name)
        if item is not None and not is_unknown(item) and effects != 1:
            yield f"{name} (Never) took effect {effects} times and says {item.output!r} {item.error!r}"
    children = storm.place.kube.items("agentsessions", f"{PARENT_LABEL}={finished.session}")
    if len(children) != 1:
        yield f"ask made {len(children)} sessions"
    if "ask" in calls and CHILD_ANSWER not in (calls["ask"].output or ""):
        yield f"ask says {calls['ask'].output!r} {calls['ask'].error!r}"


def _reports(storm: Storm, finished: Finished, calls: dict[str, Any]) -> Iterable[str]:
    unknown = {name for name in NEVER if name in calls and is_unknown(calls[name])}
    for kill in finished.struck:
        if kill.call in NEVER and kill.interrupts and kill.call not in unknown:
            yield f"{kill}, and it is not reported as unknown"
    for name, item in calls.items():
        if is_unknown(item) and name not in NEVER:
            yield f"{name} is reported as unknown, and may be called again"
    stray = finished.run.stray
    if stray is None or stray.victim is Victim.RUNTIME:
        interrupted = {name for kill in finished.struck if kill.interrupts for name in ROUNDS[kill.round]}
        for name in unknown - interrupted:
            yield f"{name} is reported as unknown, and nothing has interrupted it"
    if not unknown:
        return
    try:
        raised = eventually(
            lambda: condition(storm.place.kube.get("agentsession", finished.session), "RecoveryRequired")
        )
    except AssertionError:
        yield f"{unknown} are unknown, and there is no condition RecoveryRequired"
        return
    if raised["status"] != "True" or not any(name in raised["message"] for name in unknown):
        yield f"{unknown} are unknown, and RecoveryRequired says {raised['message']!r}"


def coverage(runs: Iterable[Finished]) -> Counter[tuple[str, str]]:
    """How often each moment met each victim."""
    return Counter((kill.moment.value, kill.victim.value) for run in runs for kill in run.struck)
