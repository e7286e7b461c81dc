"""What a session is made of: set right when it changes, never taken from others, never made anew over what is lost."""

import pytest

from tenure_api import names
from tenure_operator.kinds import CLAIMS, EVENTS, NETWORKS, PODS, SECRETS, SESSIONS, Kind
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi

CHILDREN = [(NETWORKS, "chat-session"), (CLAIMS, "chat-state"), (PODS, "chat-session")]


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent()
    await bench.advance(0)
    bench.api.writes.clear()
    return bench


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_a_deleted_child_is_back_at_once(bench: Bench, kind: Kind, name: str) -> None:
    await bench.running()
    bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(0)
    assert bench.api.find(kind, name) is not None


async def test_a_changed_network_policy_is_set_right(bench: Bench) -> None:
    await bench.running()
    before = bench.api.find(NETWORKS, "chat-session")
    assert before is not None
    bench.api.change(NETWORKS, NAMESPACE, "chat-session", {"spec": {"ingress": [{}]}})
    await bench.advance(0)
    after = bench.api.find(NETWORKS, "chat-session")
    assert after is not None
    assert after["spec"] == before["spec"]


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_a_child_without_the_label_by_which_it_is_watched_is_set_right(
    bench: Bench, kind: Kind, name: str
) -> None:
    await bench.running()
    live = bench.api.find(kind, name)
    assert live is not None
    labels = {k: v for k, v in live["metadata"]["labels"].items() if k != names.MANAGED_BY}
    bench.api.put(kind, {**live, "metadata": {**live["metadata"], "labels": labels}})
    await bench.advance(5)
    after = bench.api.find(kind, name)
    assert after is not None
    assert after["metadata"]["labels"][names.MANAGED_BY] == "tenure"
    assert after["metadata"]["uid"] == live["metadata"]["uid"]


async def test_a_fight_over_a_child_is_held_back_and_told(bench: Bench) -> None:
    await bench.running()
    for _ in range(50):
        bench.api.change(NETWORKS, NAMESPACE, "chat-session", {"spec": {"ingress": [{}]}})
        await bench.settle()
    repairs = [write for write in bench.api.writes if write[:2] == ("apply", "NetworkPolicy")]
    assert len(repairs) <= 6
    events = [m for (kind, _, _), m in bench.api.objects.items() if kind is EVENTS]
    assert "Contended" in {event["reason"] for event in events}


async def test_labels_taken_from_a_pod_are_put_back_without_replacing_it(bench: Bench) -> None:
    await bench.running()
    pod = bench.api.find(PODS, "chat-session")
    assert pod is not None
    del pod["metadata"]["labels"][names.SESSION_LABEL]
    bench.api.change(PODS, NAMESPACE, "chat-session", {"status": {"touched": True}})
    await bench.advance(0)
    live = bench.api.find(PODS, "chat-session")
    assert live is not None
    assert live["metadata"]["labels"][names.SESSION_LABEL] == "chat"
    assert live["metadata"]["uid"] == pod["metadata"]["uid"]


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_an_object_that_is_not_ours_is_never_overwritten(bench: Bench, kind: Kind, name: str) -> None:
    theirs = {"metadata": {"namespace": NAMESPACE, "name": name}, "spec": {"containers": []}, "status": {}}
    bench.api.put(kind, theirs)
    bench.session()
    await bench.advance(30)
    assert bench.condition(SESSIONS, "chat", "Stalled") == ("True", "NameConflict")
    found = bench.api.find(kind, name)
    assert found is not None
    assert "ownerReferences" not in found["metadata"]
    bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(15)
    assert bench.condition(SESSIONS, "chat", "Stalled") is None
    assert bench.api.find(PODS, "chat-session") is not None


async def test_a_child_of_a_deleted_namesake_is_waited_for(bench: Bench) -> None:
    await bench.running()
    bench.api.remove(SESSIONS, NAMESPACE, "chat")  # the garbage collector has not come by yet
    await bench.advance(0)
    bench.session()
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("False", "Progressing")
    for kind, name in CHILDREN:
        bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("False", "PodStarting")
    assert bench.api.find(SECRETS, bench.key_name()) is not None


async def test_a_lost_key_is_not_made_anew_and_the_session_goes_on_when_it_is_restored(bench: Bench) -> None:
    await bench.running()
    key = bench.key_name()
    secret = bench.api.objects.pop((SECRETS, NAMESPACE, key))
    bench.pod_is_gone()
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat") == ("False", "KeyLost")
    assert bench.condition(SESSIONS, "chat", "Stalled") == ("True", "KeyLost")
    assert key in bench.message(SESSIONS, "chat")
    assert bench.api.find(SECRETS, key) is None
    bench.api.objects[SECRETS, NAMESPACE, key] = secret
    await bench.advance(11)
    bench.kubelet()
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert bench.api.find(SECRETS, key) == secret


async def test_a_key_is_never_made_over_a_claim_that_the_cache_does_not_know(bench: Bench) -> None:
    made = bench.session()
    owner = {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "AgentSession",
        "name": "chat",
        "uid": made["metadata"]["uid"],
    }
    claim = {
        "metadata": {"namespace": NAMESPACE, "name": "chat-state", "ownerReferences": [owner]},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
    }
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"status": {"lease": {"generation": 3}}})
    bench.api.told = lambda *_: None  # the watch lags
    bench.api.put(CLAIMS, claim)
    await bench.advance(0)
    assert not [write for write in bench.api.writes if write[1] == "Secret"]
    assert bench.condition(SESSIONS, "chat") == ("False", "KeyLost")


async def test_a_pod_that_has_ended_is_replaced_but_not_in_a_hot_loop(bench: Bench) -> None:
    await bench.running()
    for _ in range(20):
        if bench.api.find(PODS, "chat-session"):
            bench.kubelet(phase="Failed", ready=False, reason="Evicted", message="The node was low on memory.")
            await bench.settle()
            if "deletionTimestamp" in bench.api.objects[PODS, NAMESPACE, "chat-session"]["metadata"]:
                bench.pod_is_gone()
                await bench.settle()
    creations = [write for write in bench.api.writes if write[:2] == ("create", "Pod")]
    assert 2 <= len(creations) <= 7
    await bench.advance(600)
    assert "deletionTimestamp" in bench.api.objects[PODS, NAMESPACE, "chat-session"]["metadata"]


async def test_an_owner_of_another_kind_or_name_makes_no_child_ours(bench: Bench) -> None:
    for number, (kind, name) in enumerate([("Agent", "chat"), ("AgentSession", "other")]):
        session = f"chat{number}"
        owner = {"apiVersion": "tenure.dev/v1alpha1", "kind": kind, "name": name, "uid": "another"}
        metadata = {"namespace": NAMESPACE, "name": names.session_claim(session), "ownerReferences": [owner]}
        bench.api.put(CLAIMS, {"metadata": metadata, "spec": {}})
        bench.session(session)
        await bench.advance(1)
        assert bench.condition(SESSIONS, session, "Stalled") == ("True", "NameConflict")


async def test_a_volume_that_was_deleted_is_not_replaced_in_silence(bench: Bench) -> None:
    await bench.running()
    bench.api.remove(CLAIMS, NAMESPACE, "chat-state")
    bench.pod_is_gone()
    await bench.advance(1)
    events = [m for (kind, _, _), m in bench.api.objects.items() if kind is EVENTS]
    assert "VolumeLost" in {event["reason"] for event in events}
    assert bench.api.find(PODS, "chat-session") is not None
