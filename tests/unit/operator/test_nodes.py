"""What a node that does not answer means for a session: wait, go on elsewhere, or say why that cannot be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure_api.conditions import Reason
from tenure_operator.kinds import CLAIMS, NODES, PODS, SESSIONS, VOLUMES, Kind, Manifest
from tenure_operator.reconcile import nodes
from tenure_operator.reconcile.verdict import Progress
from unit.operator.bench import NAMESPACE, NOON, Bench
from unit.operator.fake_api import FakeApi

BORN = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = 60


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


def a_pod(*, deleted: float | None = None, node: str | None = "n1", **status: Any) -> Manifest:
    """A pod that was scheduled at BORN; `deleted` is when its deletion was asked for."""
    scheduled = {"type": "PodScheduled", "status": "True" if node else "False", "lastTransitionTime": BORN.isoformat()}
    meta: dict[str, Any] = {"name": "chat-session", "creationTimestamp": BORN.isoformat()}
    if deleted is not None:
        meta |= {"deletionTimestamp": at(deleted + GRACE).isoformat(), "deletionGracePeriodSeconds": GRACE}
    return {
        "metadata": meta,
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Running", "conditions": [scheduled], **status},
    }


def a_node(ready: str = "True", since: float = 0, cordoned: bool = False) -> Manifest:
    condition = {"type": "Ready", "status": ready, "reason": "R", "lastTransitionTime": at(since).isoformat()}
    return {"spec": {"unschedulable": True} if cordoned else {}, "status": {"conditions": [condition]}}


def a_volume(*terms: dict[str, Any]) -> Manifest:
    selector = {"nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}}} if terms else {}
    return {"metadata": {"name": "pv-1"}, "spec": selector}


def on(*names: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": list(names)}]}


SHARED = a_volume()


def judged(pod: Manifest, known: nodes.Nodes, volume: Manifest | None = SHARED, now: float = 1000) -> nodes.Trouble:
    trouble = nodes.judge(pod, known, volume, at(now))
    assert trouble is not None
    return trouble


# --- when to ask -----------------------------------------------------------------------------------------------------


def test_nodes_are_not_asked_about_while_all_is_well() -> None:
    ready = {"type": "Ready", "status": "True"}
    pod = a_pod(containerStatuses=[{"name": "agent", "ready": True}])
    pod["status"]["conditions"].append(ready)
    assert nodes.suspicion(pod, at(1000)) is None


def test_a_pod_that_starts_is_no_reason_to_ask() -> None:
    pod = a_pod(containerStatuses=[{"name": "agent", "ready": False}])
    pod["status"]["conditions"].append({"type": "Ready", "status": "False"})
    assert nodes.suspicion(pod, at(1000)) is None


def test_a_pod_that_is_called_unready_though_its_containers_are_ready_is_a_reason() -> None:
    pod = a_pod(containerStatuses=[{"name": "agent", "ready": True}])
    pod["status"]["conditions"].append({"type": "Ready", "status": "False"})
    assert nodes.suspicion(pod, at(1)) == 0


def test_a_pod_may_take_a_while_to_end_before_its_node_is_asked_about() -> None:
    pod = a_pod(deleted=100)
    assert nodes.suspicion(pod, at(103)) == nodes.ENDING_SECONDS - 3
    assert nodes.suspicion(pod, at(150)) == 0
    assert nodes.look_again(pod, at(150)) == nodes.AGAIN_SECONDS


def test_a_pod_that_finds_no_place_is_a_reason_after_a_moment() -> None:
    pod = a_pod(node=None)
    assert nodes.suspicion(pod, at(1)) == 4
    assert nodes.suspicion(pod, at(9)) == 0


def test_a_pod_that_has_ended_is_made_anew_whatever_its_node_does() -> None:
    assert nodes.suspicion(a_pod(phase="Failed"), at(1000)) is None


# --- the node of the pod ---------------------------------------------------------------------------------------------


def test_a_pod_that_ends_slowly_on_a_node_that_answers_is_left_to_it() -> None:
    assert nodes.judge(a_pod(deleted=0), {"n1": a_node()}, SHARED, at(1000)) is None


def test_a_node_gets_the_pods_grace_to_come_back() -> None:
    trouble = judged(a_pod(deleted=30), {"n1": a_node("Unknown", since=0)}, now=55)
    assert (trouble.give_up, trouble.again) == (False, 5)
    assert trouble.verdict.reason is Reason.NODE_UNREACHABLE
    assert "n1" in trouble.verdict.message


def test_a_pod_on_a_node_that_has_been_silent_for_longer_than_its_grace_is_given_up() -> None:
    trouble = judged(a_pod(deleted=30), {"n1": a_node("Unknown", since=0)}, now=61)
    assert trouble.give_up
    assert trouble.verdict.progress is Progress.RECONCILING


def test_a_pod_that_is_deleted_on_a_node_long_dead_is_given_up_at_once() -> None:
    assert judged(a_pod(deleted=5000), {"n1": a_node("Unknown", since=0)}, now=5011).give_up


def test_a_kubelet_that_says_that_it_is_not_ready_may_still_end_the_pod_in_good_order() -> None:
    known = {"n1": a_node("False", since=0)}
    assert not judged(a_pod(deleted=30), known, now=61).give_up
    assert judged(a_pod(deleted=30), known, now=91).give_up


def test_an_ending_pod_of_a_node_that_is_gone_is_given_up() -> None:
    assert judged(a_pod(deleted=30), {"n1": None}, now=41).give_up


def test_a_pod_that_nobody_has_deleted_is_not_given_up() -> None:
    trouble = judged(a_pod(), {"n1": a_node("Unknown")})
    assert not trouble.give_up
    assert trouble.verdict.reason is Reason.NODE_UNREACHABLE


# --- the nodes of the volume -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "names"),
    [
        (a_volume(on("n1")), {"n1"}),
        (a_volume(on("n1"), on("n2")), {"n1", "n2"}),
        (a_volume(on("n1", key="topology.topolvm.io/node")), {"n1"}),
        (a_volume({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), {"n1"}),
        (a_volume(on("n1"), on("z1", key="topology.kubernetes.io/zone")), None),
        (a_volume(on("z1", key="topology.kubernetes.io/zone")), None),
        (a_volume({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}), None),
        (a_volume(), None),
        (None, None),
    ],
)
def test_a_volume_is_bound_to_nodes_only_if_it_names_them(volume: Manifest | None, names: set[str] | None) -> None:
    assert nodes.holders(volume) == names


def test_what_is_asked_about_is_the_pods_node_and_the_volumes() -> None:
    assert nodes.concerned(a_pod(), a_volume(on("n2"))) == {"n1", "n2"}
    assert nodes.concerned(a_pod(node=None), None) == set()


@pytest.mark.parametrize("pod", [a_pod(), a_pod(deleted=30), a_pod(node=None)], ids=["running", "ending", "waiting"])
def test_a_volume_on_a_dead_node_is_said_to_be_unreachable_with_node_and_volume_and_what_to_do(pod: Manifest) -> None:
    trouble = judged(pod, {"n1": a_node("Unknown")}, a_volume(on("n1")))
    assert (trouble.verdict.reason, trouble.verdict.progress) == (Reason.VOLUME_UNREACHABLE, Progress.STALLED)
    assert not trouble.give_up, "a pod elsewhere could not mount it"
    for part in ("n1", "pv-1", "has not answered since 2026-01-01", "goes on by itself", "delete the session"):
        assert part in trouble.verdict.message


def test_the_sentence_stays_the_same_while_nothing_changes() -> None:
    known, volume = {"n1": a_node("Unknown")}, a_volume(on("n1"))
    assert judged(a_pod(), known, volume, 100).verdict == judged(a_pod(), known, volume, 200).verdict
    ending = a_pod(deleted=30)
    assert judged(ending, known, now=41).verdict == judged(ending, known, now=51).verdict


def test_a_volume_that_another_node_can_mount_does_not_hold_the_session_back() -> None:
    known = {"n1": a_node("Unknown"), "n2": a_node()}
    assert judged(a_pod(deleted=30), known, a_volume(on("n1", "n2"))).give_up


def test_a_volume_on_a_cordoned_node_waits_for_it_to_be_uncordoned() -> None:
    trouble = judged(a_pod(node=None), {"n1": a_node(cordoned=True)}, a_volume(on("n1")))
    assert (trouble.verdict.reason, trouble.verdict.progress) == (Reason.VOLUME_UNREACHABLE, Progress.RECONCILING)
    assert "kubectl uncordon n1" in trouble.verdict.message


def test_a_pod_that_finds_no_place_though_its_volumes_node_is_well_has_another_reason() -> None:
    assert nodes.judge(a_pod(node=None), {"n1": a_node()}, a_volume(on("n1")), at(100)) is None
    assert nodes.judge(a_pod(node=None), {}, SHARED, at(100)) is None


# --- the operator does so --------------------------------------------------------------------------------------------


def cluster_object(kind: Kind, name: str, **content: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": kind.name, "metadata": {"namespace": "", "name": name}, **content}


def silent(bench: Bench, name: str = "n1") -> None:
    """The node has not answered from now on."""
    since = (NOON + timedelta(seconds=bench.clock)).isoformat()
    condition = {"type": "Ready", "status": "Unknown", "lastTransitionTime": since}
    bench.api.put(NODES, cluster_object(NODES, name, status={"conditions": [condition]}))


async def on_a_node(*terms: dict[str, Any]) -> Bench:
    """A session that runs on node n1, with a volume that the terms bind to nodes."""
    bench = await Bench(FakeApi()).start()
    bench.agent()
    await bench.advance(0.1)
    await bench.running()
    bench.api.put(VOLUMES, cluster_object(VOLUMES, "pv-1", spec=a_volume(*terms)["spec"]))
    bench.api.change(CLAIMS, NAMESPACE, "chat-state", {"spec": {"volumeName": "pv-1"}})
    bench.api.change(PODS, NAMESPACE, "chat-session", {"spec": {"nodeName": "n1"}})
    await bench.advance(0.1)
    return bench


def evict(bench: Bench) -> None:
    """Kubernetes deletes the pod, and no kubelet ends it."""
    until = (NOON + timedelta(seconds=bench.clock + GRACE)).isoformat()
    deletion = {"deletionTimestamp": until, "deletionGracePeriodSeconds": GRACE}
    bench.api.change(PODS, NAMESPACE, "chat-session", {"metadata": deletion})


def lease(bench: Bench) -> int:
    return int(bench.status(SESSIONS, "chat")["lease"]["generation"])


async def test_a_session_goes_on_elsewhere_when_its_node_is_dead() -> None:
    bench = await on_a_node()
    silent(bench)
    await bench.advance(30)
    evict(bench)
    first = bench.api.objects[PODS, NAMESPACE, "chat-session"]["metadata"]["uid"]
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat") == ("False", "NodeUnreachable")
    assert bench.api.objects[PODS, NAMESPACE, "chat-session"]["metadata"]["uid"] == first
    await bench.advance(15)
    assert bench.api.objects[PODS, NAMESPACE, "chat-session"]["metadata"]["uid"] != first
    assert lease(bench) == 2, "the old pod is fenced off"


async def test_a_session_whose_volume_is_on_the_dead_node_says_so_and_mends_by_itself() -> None:
    bench = await on_a_node(on("n1"))
    silent(bench)
    await bench.advance(30)
    evict(bench)
    await bench.advance(300)
    assert bench.condition(SESSIONS, "chat") == ("False", "VolumeUnreachable")
    assert lease(bench) == 1
    bench.api.put(NODES, cluster_object(NODES, "n1", **a_node()))
    bench.pod_is_gone()  # its kubelet ends it
    await bench.advance(1)
    bench.kubelet()
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert lease(bench) == 2


async def test_nothing_is_asked_of_nodes_in_the_ordinary_life_of_a_session() -> None:
    bench = await Bench(FakeApi()).start()
    asked: list[Kind] = []
    get = bench.api.get

    async def watched(kind: Kind, namespace: str, name: str) -> Manifest:
        asked.append(kind)
        return await get(kind, namespace, name)

    bench.api.get = watched  # type: ignore[method-assign]
    bench.agent()
    await bench.advance(0.1)
    await bench.running()
    evict(bench)
    await bench.advance(2)
    bench.pod_is_gone()
    await bench.advance(1)
    assert lease(bench) == 2
    assert NODES not in asked
    assert VOLUMES not in asked
