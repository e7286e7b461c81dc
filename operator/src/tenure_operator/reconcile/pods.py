"""What the state of a session's pod means, in a reason and a sentence: pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from tenure_api.conditions import Reason
from tenure_api.report import JournalState, Report
from tenure_operator.desired.pod import SIDECAR
from tenure_operator.desired.workspace import WORKSPACE
from tenure_operator.kinds import Manifest
from tenure_operator.reconcile.verdict import Verdict, ready, stalled, waiting

PATIENCE_SECONDS = 5.0
"""How long scheduling and provisioning may take before it is told as a problem; both pass by in any normal start."""

TOO_MANY_RESTARTS = 2
"""A container that exits once may have had bad luck; the kubelet backs off from the second time."""

READY = ready("The session accepts turns.")


def starting(pod: str) -> Verdict:
    """A pod, given by its name, that comes up as it should, as far as is known."""
    see = f"If this lasts, see `kubectl describe pod {pod}`."
    return waiting(Reason.POD_STARTING, f"The pod is starting. {see}")


_CONTAINERS = ("initContainerStatuses", "containerStatuses")
_PULL = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_NEVER_STARTED = ("StartError", "ContainerCannotRun")
_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError")


class Judgement(NamedTuple):
    """A verdict, and after how many seconds it may be another without any event."""

    verdict: Verdict
    again: float | None = None


def condition(pod: Manifest, type_: str) -> dict[str, Any]:
    """A condition of a pod; empty if it has none of this type."""
    found = (c for c in pod.get("status", {}).get("conditions", []) if c["type"] == type_)
    return next(found, {})


def is_ready(pod: Manifest) -> bool:
    """Whether a pod can be sent traffic."""
    return (
        (condition(pod, "Ready").get("status") == "True" or _only_code_is_out_of_memory(pod))
        and "deletionTimestamp" not in pod["metadata"]
        and bool(pod["status"].get("podIP"))
    )


def takes_turns(pod: Manifest, report: Report | None) -> bool:
    """Whether a pod that starts can be sent traffic by the word of its sidecar.

    The kubelet probes once a second, and looks at what its probes say once a second: a request that woke the session
    need not wait for that.
    """
    statuses = [status for which in _CONTAINERS for status in _statuses(pod, which)]
    return (
        report is not None
        and report.ready
        and "deletionTimestamp" not in pod["metadata"]
        and all("running" in s.get("state", {}) or s.get("ready") for s in statuses)
        and not any(s.get("restartCount") for s in statuses)
    )


def _only_code_is_out_of_memory(pod: Manifest) -> bool:
    """Whether all that keeps the pod from being ready is that its code took too much memory.

    The kubelet starts the workspace again, ever more slowly; meanwhile the session takes turns, and calls of code fail.
    """
    statuses = {s["name"]: s for which in _CONTAINERS for s in _statuses(pod, which)}
    code = statuses.pop(WORKSPACE, {})
    ends = [code.get(state, {}).get("terminated", {}) for state in ("state", "lastState")]
    return all(s.get("ready") for s in statuses.values()) and any(end.get("reason") == "OOMKilled" for end in ends)


def sidecar_answers(pod: Manifest) -> bool:
    """Whether the pod's sidecar has started, so that it can be asked for a report."""
    started = any(
        c["name"] == SIDECAR and c.get("started") and "running" in c.get("state", {})
        for c in _statuses(pod, "initContainerStatuses")
    )
    return started and bool(pod["status"].get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def has_ended(pod: Manifest) -> bool:
    """Whether the pod will never run again: evicted, or refused by its node."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def why_ended(pod: Manifest) -> str:
    """Why a pod has ended, as the kubelet says."""
    status = pod["status"]
    return status.get("message") or status.get("reason") or f"its phase is {status.get('phase')}"


def judge(pod: Manifest, claim: Manifest | None, report: Report | None, now: datetime) -> Judgement:
    """What a pod says about its session."""
    if is_ready(pod) or takes_turns(pod, report):
        return Judgement(READY)
    if report is not None and (verdict := _journal(pod, report)):
        return Judgement(verdict)
    for problem in _container_problems(pod):
        return Judgement(problem)
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "True":
        return _unscheduled(pod, claim, scheduled, now)
    return Judgement(starting(pod["metadata"]["name"]))


def _journal(pod: Manifest, report: Report) -> Verdict | None:
    said = report.journal_message
    if report.journal is JournalState.KEY_MISMATCH:
        # A kubelet reads an immutable Secret once for each pod.
        name = pod["metadata"]["name"]
        fix = f"Restore the Secret with the key that the journal was written with, then delete pod {name}."
        return stalled(Reason.KEY_MISMATCH, f"The data key does not fit the journal. {fix} {said}".rstrip())
    if report.journal is JournalState.UNREADABLE:
        fix = "Restore the volume from a backup, or delete the session."
        return stalled(Reason.JOURNAL_UNREADABLE, f"The journal cannot be read. {fix} {said}".rstrip())
    if report.journal is JournalState.AWAITING_BUNDLE:
        return waiting(Reason.RESTORING, "The session begins with the state of another, which is being brought to it.")
    if report.journal is JournalState.LOCKED:
        return waiting(
            Reason.POD_STARTING, "The journal is still open in the previous pod; this one waits for its end."
        )
    return None


def _statuses(pod: Manifest, which: str) -> list[Manifest]:
    found: list[Manifest] = pod.get("status", {}).get(which, [])
    return found


def _container_problems(pod: Manifest) -> Iterator[Verdict]:
    """Sentences without counters and times, so that another try of the kubelet is not another sentence."""
    name = pod["metadata"]["name"]
    for status in (status for which in _CONTAINERS for status in _statuses(pod, which)):
        waiting_for = status.get("state", {}).get("waiting", {})
        last = status.get("lastState", {}).get("terminated", {})
        container = f"container {status['name']} of pod {name}"
        if waiting_for.get("reason") in _PULL:
            fix = "Check the image's name, and the pull secrets of the agent's ServiceAccount."
            yield stalled(Reason.POD_FAILING, f"The image {status['image']} of {container} cannot be pulled. {fix}")
        elif waiting_for.get("reason") in _START or last.get("reason") in _NEVER_STARTED:
            said = last.get("message") or waiting_for.get("message") or waiting_for.get("reason") or last["reason"]
            yield stalled(Reason.POD_FAILING, f"The {container} cannot be started: {said.strip()}")
        elif last and not status.get("ready") and status.get("restartCount", 0) >= TOO_MANY_RESTARTS:
            how = f"{last.get('reason', 'Error')}, exit code {last.get('exitCode')}"
            fix = f"See `kubectl logs {name} -c {status['name']} --previous`."
            yield stalled(Reason.POD_FAILING, f"The {container} keeps exiting ({how}). {fix}")


def _unscheduled(pod: Manifest, claim: Manifest | None, scheduled: dict[str, Any], now: datetime) -> Judgement:
    since = scheduled.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
    patience = PATIENCE_SECONDS - (now - datetime.fromisoformat(since)).total_seconds()
    if patience > 0:
        return Judgement(starting(pod["metadata"]["name"]), patience)
    said = scheduled.get("message", "").strip()
    unbound = claim is not None and claim.get("status", {}).get("phase") == "Pending"
    if claim is not None and unbound and (not said or "volume" in said.lower()):
        # A volume that is made for the pod's node holds the pod back without a word of the scheduler.
        storage_class = claim["spec"].get("storageClassName") or "that is the cluster's default"
        see = f"see `kubectl describe persistentvolumeclaim {claim['metadata']['name']}`"
        why = said or "its provisioner has not made it"
        return Judgement(
            waiting(Reason.VOLUME_PENDING, f"The volume of StorageClass {storage_class} is not there yet; {see}: {why}")
        )
    return Judgement(waiting(Reason.POD_UNSCHEDULABLE, f"No node takes the pod: {said or 'the scheduler is at it'}"))
