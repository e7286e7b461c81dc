"""What a pod's state means for its session: a reason, and a sentence that says what to do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure_operator.kinds import Manifest
from tenure_operator.reconcile import pods
from tenure_operator.reconcile.verdict import Progress

BORN = datetime(2026, 1, 1, tzinfo=UTC)
LATER = BORN + timedelta(minutes=1)
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def a_pod(*conditions: dict[str, Any], agent: dict[str, Any] | None = None, **status: Any) -> Manifest:
    if agent is not None:
        status["containerStatuses"] = [{"name": "agent", "image": "acme/agent:1", **agent}]
    return {
        "metadata": {"name": "chat-session", "creationTimestamp": BORN.isoformat()},
        "status": {"phase": "Pending", "conditions": list(conditions), **status},
    }


def unscheduled(message: str) -> dict[str, Any]:
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": BORN.isoformat(),
    }


def a_claim(phase: str) -> Manifest:
    return {"metadata": {"name": "chat-state"}, "spec": {"storageClassName": "fast"}, "status": {"phase": phase}}


def judged(pod: Manifest, claim: Manifest | None = None, now: datetime = LATER) -> tuple[str, Progress, str]:
    verdict = pods.judge(pod, claim, None, now).verdict
    return verdict.reason, verdict.progress, verdict.message


def test_a_pod_that_is_ready_takes_turns() -> None:
    pod = a_pod(SCHEDULED, {"type": "Ready", "status": "True"}, podIP="10.0.0.1")
    assert judged(pod)[:2] == ("Ready", Progress.SETTLED)


def test_a_ready_pod_that_is_ending_is_not_ready() -> None:
    pod = a_pod(SCHEDULED, {"type": "Ready", "status": "True"}, podIP="10.0.0.1")
    pod["metadata"]["deletionTimestamp"] = LATER.isoformat()
    assert not pods.is_ready(pod)
    assert not pods.sidecar_answers(pod)


def test_scheduling_may_take_a_moment_before_it_is_a_problem() -> None:
    pod = a_pod(unscheduled("0/1 nodes are available: insufficient memory."))
    early = pods.judge(pod, None, None, BORN + timedelta(seconds=1))
    assert (early.verdict.reason, early.again) == ("PodStarting", 4.0)
    reason, progress, message = judged(pod)
    assert (reason, progress) == ("PodUnschedulable", Progress.RECONCILING)
    assert "insufficient memory" in message


@pytest.mark.parametrize("conditions", [[], [unscheduled("pod has unbound immediate PersistentVolumeClaims")]])
def test_a_volume_that_does_not_come_is_told_with_its_storage_class(conditions: list[dict[str, Any]]) -> None:
    reason, _, message = judged(a_pod(*conditions), a_claim("Pending"))
    assert reason == "VolumePending"
    assert "StorageClass fast" in message
    assert "kubectl describe persistentvolumeclaim chat-state" in message


def test_a_full_cluster_is_not_blamed_on_the_volume() -> None:
    assert judged(a_pod(unscheduled("insufficient cpu")), a_claim("Pending"))[0] == "PodUnschedulable"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named_in_one_unchanging_sentence(reason: str) -> None:
    waiting = {"reason": reason, "message": f"try {reason} of many"}
    told, progress, message = judged(a_pod(SCHEDULED, agent={"state": {"waiting": waiting}}))
    assert (told, progress) == ("PodFailing", Progress.STALLED)
    assert message.startswith("The image acme/agent:1 of container agent of pod chat-session cannot be pulled.")
    assert "many" not in message


CRASHED = {"reason": "Error", "exitCode": 3, "startedAt": "x", "finishedAt": "y"}


@pytest.mark.parametrize(
    "state", [{"waiting": {"reason": "CrashLoopBackOff"}}, {"running": {}}, {"terminated": CRASHED}]
)
def test_a_crash_loop_reads_the_same_in_all_its_states(state: dict[str, Any]) -> None:
    agent = {"state": state, "lastState": {"terminated": CRASHED}, "restartCount": 2, "ready": False}
    reason, _, message = judged(a_pod(SCHEDULED, agent=agent))
    assert reason == "PodFailing"
    assert message == (
        "The container agent of pod chat-session keeps exiting (Error, exit code 3). "
        "See `kubectl logs chat-session -c agent --previous`."
    )


def test_one_exit_is_no_crash_loop() -> None:
    agent = {"state": {"running": {}}, "lastState": {"terminated": CRASHED}, "restartCount": 1, "ready": False}
    assert judged(a_pod(SCHEDULED, agent=agent))[0] == "PodStarting"


def test_a_container_that_cannot_be_started_says_why_in_all_its_states() -> None:
    why = 'exec: "serve": executable file not found in $PATH'
    first = {"state": {"waiting": {"reason": "RunContainerError", "message": why}}}
    last = {"terminated": {"reason": "StartError", "exitCode": 128, "message": why}}
    later = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}, "lastState": last}
    sentences = {judged(a_pod(SCHEDULED, agent={**agent, "restartCount": 3})) for agent in (first, later)}
    assert len(sentences) == 1
    assert why in sentences.pop()[2]


def test_a_pod_that_has_ended_says_why() -> None:
    assert pods.has_ended(a_pod(phase="Failed"))
    assert pods.why_ended(a_pod(phase="Failed", reason="Evicted", message="low on memory")) == "low on memory"
    assert pods.why_ended(a_pod(phase="Failed", reason="Evicted")) == "Evicted"


OUT_OF_MEMORY = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


def with_code(workspace: dict[str, Any], agent_ready: bool = True) -> Manifest:
    pod = a_pod(SCHEDULED, {"type": "Ready", "status": "False"}, podIP="10.0.0.1")
    pod["status"]["initContainerStatuses"] = [
        {"name": "executor", "ready": True, "state": {"terminated": {"exitCode": 0}}},
        {"name": "sidecar", "ready": True, "started": True, "state": {"running": {}}},
    ]
    pod["status"]["containerStatuses"] = [
        {"name": "agent", "image": "acme/agent:1", "ready": agent_ready},
        {"name": "workspace", "image": "acme/tables:1", "ready": False, **workspace},
    ]
    return pod


@pytest.mark.parametrize(
    "workspace",
    [
        {"state": OUT_OF_MEMORY},
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": OUT_OF_MEMORY, "restartCount": 5},
    ],
)
def test_code_that_takes_too_much_memory_does_not_stop_its_session(workspace: dict[str, Any]) -> None:
    assert pods.is_ready(with_code(workspace))
    assert not pods.is_ready(with_code(workspace, agent_ready=False))


@pytest.mark.parametrize("reason", ["Error", "StartError"])
def test_an_image_that_cannot_run_code_is_told(reason: str) -> None:
    ended = {"terminated": {"reason": reason, "exitCode": 127}}
    pod = with_code({"state": {"waiting": {}}, "lastState": ended, "restartCount": 3})
    assert not pods.is_ready(pod)
    told, _, message = judged(pod)
    assert told == "PodFailing"
    assert "container workspace of pod chat-session" in message


def test_a_workspace_that_has_not_started_yet_is_waited_for() -> None:
    assert judged(with_code({"state": {"waiting": {"reason": "ContainerCreating"}}}))[0] == "PodStarting"


def test_an_executor_that_is_being_installed_is_no_sidecar() -> None:
    pod = with_code({})
    pod["status"]["initContainerStatuses"] = [{"name": "executor", "started": True, "state": {"running": {}}}]
    assert not pods.sidecar_answers(pod)
