"""The volume of a session: kept when it is to be kept, gone when it is to go, and as large as the agent asks for."""

import pytest

from tenure_api.names import GENERATION_ANNOTATION
from tenure_api.report import JournalState, Report, VolumeUse
from tenure_operator.errors import RefusedError
from tenure_operator.kinds import CLAIMS, EVENTS, NETWORKS, PODS, SECRETS, SESSIONS, Kind, Manifest
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent()
    await bench.advance(0)
    return bench


def a_claim(bench: Bench) -> Manifest:
    return bench.api.objects[CLAIMS, NAMESPACE, "chat-state"]


def size(bench: Bench) -> str:
    return str(a_claim(bench)["spec"]["resources"]["requests"]["storage"])


async def test_a_volume_goes_with_its_session_and_its_key_with_the_volume(bench: Bench) -> None:
    made = await bench.running()
    (owner,) = a_claim(bench)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("AgentSession", made["metadata"]["uid"])
    (owner,) = bench.api.objects[SECRETS, NAMESPACE, bench.key_name()]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("PersistentVolumeClaim", bench.identity())


async def test_a_retained_volume_outlives_its_session_and_is_the_next_ones_of_its_name(bench: Bench) -> None:
    bench.agent(session={"storage": {"whenDeleted": "Retain"}})
    await bench.running()
    assert not a_claim(bench)["metadata"]["ownerReferences"]
    identity, key = bench.identity(), bench.key_name()
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    bench.pod_is_gone()
    bench.api.remove(NETWORKS, NAMESPACE, "chat-session")
    await bench.advance(1)
    await bench.running()
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert bench.status(SESSIONS, "chat")["identity"] == identity
    assert bench.api.find(SECRETS, key) is not None


def network() -> tuple[Kind, str, str]:
    from tenure_operator.kinds import NETWORKS

    return NETWORKS, NAMESPACE, "chat-session"


async def test_a_retained_volume_goes_to_no_other_subject(bench: Bench) -> None:
    bench.agent(session={"storage": {"whenDeleted": "Retain"}})
    await bench.running()
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    bench.pod_is_gone()
    bench.api.remove(NETWORKS, NAMESPACE, "chat-session")
    await bench.advance(1)
    bench.session(subject="mallory")
    await bench.advance(30)
    assert bench.condition(SESSIONS, "chat", "Stalled") == ("True", "NameConflict")
    assert bench.api.find(PODS, "chat-session") is None


async def test_retention_can_be_decided_while_the_session_lives(bench: Bench) -> None:
    await bench.running()
    bench.agent(session={"storage": {"whenDeleted": "Retain"}})
    await bench.advance(1)
    assert not a_claim(bench)["metadata"]["ownerReferences"]
    bench.agent(session={"storage": {"whenDeleted": "Delete"}})
    await bench.advance(1)
    assert a_claim(bench)["metadata"]["ownerReferences"]


async def test_a_volume_grows_and_never_shrinks(bench: Bench) -> None:
    await bench.running()
    bench.agent(session={"storage": {"size": "2048Mi"}})
    await bench.advance(1)
    assert size(bench) == "2048Mi"
    for same_or_less in ("2Gi", "1Gi"):
        bench.agent(session={"storage": {"size": same_or_less}})
        await bench.advance(40)
        assert size(bench) == "2048Mi"
    bench.api.change(CLAIMS, NAMESPACE, "chat-state", {"status": {"capacity": {"storage": "1Gi"}}})
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("False", "Expanding")
    bench.api.change(CLAIMS, NAMESPACE, "chat-state", {"status": {"capacity": {"storage": "2Gi"}}})
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("True", "Healthy")


async def test_a_class_that_lets_no_volume_grow_is_said_and_the_session_goes_on(bench: Bench) -> None:
    await bench.running()
    tries = 0

    def refuse(verb: str, kind: Kind, _: str) -> None:
        nonlocal tries
        if (verb, kind) == ("apply", CLAIMS):
            tries += 1
            raise RefusedError("only dynamically provisioned pvc can be resized")

    bench.api.before = refuse
    bench.agent(session={"storage": {"size": "2Gi"}})
    await bench.advance(600)
    assert tries == 1
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("False", "ExpansionRefused")
    assert "allowVolumeExpansion" in bench.message(SESSIONS, "chat", "VolumeHealthy")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    events = [found for (kind, _, _), found in bench.api.objects.items() if kind is EVENTS]
    assert "ExpansionRefused" in {event["reason"] for event in events}
    bench.agent(session={"storage": {"size": "3Gi"}})
    await bench.advance(60)
    assert tries == 2


async def test_a_volume_that_fills_is_told_before_it_is_full_and_again_when_it_has_room(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), volume=VolumeUse(capacity_bytes=100, used_bytes=50))
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("True", "Healthy")
    bench.sidecars.say(bench.identity(), volume=VolumeUse(capacity_bytes=100, used_bytes=90))
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("False", "NearlyFull")
    assert "90 %" in bench.message(SESSIONS, "chat", "VolumeHealthy")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    bench.sidecars.say(bench.identity(), volume=VolumeUse(capacity_bytes=100, used_bytes=20))
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "VolumeHealthy") == ("True", "Healthy")


async def test_a_file_system_that_others_use_too_costs_no_writes(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), volume=VolumeUse(capacity_bytes=1000, used_bytes=500))
    await bench.advance(100)
    bench.api.writes.clear()
    for used in range(490, 510):
        bench.sidecars.say(bench.identity(), volume=VolumeUse(capacity_bytes=1000, used_bytes=used))
        await bench.advance(31)
    assert bench.api.writes == []


async def test_a_volume_that_knows_a_later_run_than_the_status_is_opened_by_one_that_is_later_still(
    bench: Bench,
) -> None:
    bench.session()
    await bench.advance(0.1)
    uid = bench.identity()
    bench.sidecars.reports[uid] = Report(identity=uid, journal=JournalState.SUPERSEDED, generation=7)
    bench.kubelet(ready=False)
    await bench.advance(5)
    assert bench.condition(SESSIONS, "chat")[1] in ("Superseded", "PodStarting")  # type: ignore[index]
    bench.pod_is_gone()
    bench.sidecars.reports.clear()
    await bench.advance(5)
    pod = bench.api.objects[PODS, NAMESPACE, "chat-session"]
    assert pod["metadata"]["annotations"][GENERATION_ANNOTATION] == "8"
    bench.kubelet()
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
