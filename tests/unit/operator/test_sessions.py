"""A session from its creation to its end, and through everything that can happen between."""

import random
from datetime import timedelta

import pytest

from tenure_api.report import JournalState, ModelHealth
from tenure_operator.errors import RefusedError, UnavailableError
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SESSIONS, Kind
from unit.operator.bench import NAMESPACE, NOON, Bench
from unit.operator.fake_api import FakeApi

CHILDREN = [(NETWORKS, "chat-session"), (CLAIMS, "chat-state"), (PODS, "chat-session")]


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent()
    await bench.advance(0)
    bench.api.writes.clear()
    return bench


def of_session(bench: Bench) -> list[tuple[str, str, str]]:
    return [write for write in bench.api.writes if "helper" not in write[2]]


async def test_a_session_is_made_in_order_and_with_few_writes(bench: Bench) -> None:
    await bench.running()
    key = bench.key_name()
    writes = of_session(bench)
    assert writes[:5] == [
        ("create", "PersistentVolumeClaim", "chat-state"),
        ("create", "Secret", key),
        ("create", "NetworkPolicy", "chat-session"),
        ("status", "AgentSession", "chat"),  # takes the lease
        ("create", "Pod", "chat-session"),
    ]
    assert [verb for verb, kind, _ in writes if kind == "AgentSession"] == ["status", "status"]
    assert [kind for _, kind, _ in writes if kind == "Event"] == []
    status = bench.status(SESSIONS, "chat")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert bench.condition(SESSIONS, "chat", "Reconciling") is None
    assert (status["podName"], status["volumeClaimName"]) == ("chat-session", "chat-state")
    assert status["podIP"] == f"ip-{bench.identity()}"


async def test_the_first_status_says_that_it_is_being_worked_on(bench: Bench) -> None:
    bench.session()
    await bench.advance(0)
    assert bench.condition(SESSIONS, "chat") == ("False", "PodStarting")
    assert bench.condition(SESSIONS, "chat", "Reconciling") == ("True", "PodStarting")
    assert "podIP" not in bench.status(SESSIONS, "chat")


async def test_nothing_is_written_when_nothing_has_changed(bench: Bench) -> None:
    await bench.running()
    await bench.advance(60)
    bench.api.writes.clear()
    await bench.advance(3600)
    assert bench.api.writes == []


async def test_a_restarted_operator_writes_nothing(bench: Bench) -> None:
    await bench.running()
    await bench.advance(60)
    bench.api.writes.clear()
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await again.advance(3600)
    assert bench.api.writes == []


async def test_a_session_without_its_agent_waits_for_it(bench: Bench) -> None:
    bench.session(agent="later")
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("False", "AgentNotFound")
    assert bench.condition(SESSIONS, "chat", "Reconciling") == ("True", "AgentNotFound")
    assert bench.api.find(PODS, "chat-session") is None
    bench.agent("later")
    await bench.advance(1)
    assert bench.api.find(PODS, "chat-session") is not None


async def test_a_session_outlives_its_agent_and_a_new_one_adopts_it(bench: Bench) -> None:
    await bench.running()
    pod = bench.api.find(PODS, "chat-session")
    bench.api.remove(AGENTS, NAMESPACE, "helper")
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("False", "AgentNotFound")
    assert "podIP" not in bench.status(SESSIONS, "chat")
    assert bench.api.find(PODS, "chat-session") == pod
    bench.agent()
    for kind, namespace, name in [k for k in bench.api.objects if k[2] == "helper-agent"]:
        bench.api.remove(kind, namespace, name)  # by the garbage collector: their owner is gone
    await bench.advance(5)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    live = bench.api.find(PODS, "chat-session")
    assert live is not None
    assert pod is not None
    assert live["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_a_new_session_of_an_agent_that_is_not_ready_is_not_started(bench: Bench) -> None:
    bench.agent("broken", memoryPolicyRef={"name": "none"})
    bench.session(agent="broken")
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("False", "AgentNotReady")
    assert "MemoryPolicy none" in bench.message(SESSIONS, "chat")
    assert bench.api.find(CLAIMS, "chat-state") is None


async def test_a_running_session_goes_on_while_its_agent_is_not_ready(bench: Bench) -> None:
    await bench.running()
    bench.agent(memoryPolicyRef={"name": "none"})
    bench.pod_is_gone()
    await bench.advance(1)
    assert bench.condition(AGENTS, "helper") == ("False", "PolicyNotFound")
    bench.kubelet()
    await bench.advance(1)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")


async def test_an_expired_session_is_deleted_at_its_time(bench: Bench) -> None:
    bench.session(expiresAt=(NOON + timedelta(seconds=100)).isoformat())
    await bench.advance(99)
    assert bench.api.find(SESSIONS, "chat") is not None
    await bench.advance(1)
    assert bench.api.find(SESSIONS, "chat") is None


async def test_a_session_that_cannot_be_made_expires_in_time_all_the_same(bench: Bench) -> None:
    def full(verb: str, kind: Kind, _name: str) -> None:
        if (verb, kind) == ("create", PODS):
            raise RefusedError("exceeded quota: pods")

    bench.api.before = full
    bench.session(expiresAt=(NOON + timedelta(seconds=100)).isoformat())
    await bench.advance(100)
    assert bench.api.find(SESSIONS, "chat") is None


async def test_the_order_of_conditions_and_those_of_others_do_not_matter(bench: Bench) -> None:
    await bench.running()
    await bench.advance(60)
    status = bench.status(SESSIONS, "chat")
    theirs = {"type": "Audited", "status": "True", "reason": "Fine", "message": ""}
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"status": {"conditions": [theirs, *reversed(status["conditions"])]}})
    bench.api.writes.clear()
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await again.advance(60)
    assert bench.api.writes == []


async def test_a_session_that_is_prolonged_in_the_last_moment_stays(bench: Bench) -> None:
    bench.session(expiresAt=(NOON + timedelta(seconds=100)).isoformat())
    await bench.advance(99)

    def prolong(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("delete", SESSIONS):
            bench.api.change(SESSIONS, NAMESPACE, name, {"spec": {"expiresAt": "2027-01-01T00:00:00Z"}})

    bench.api.before = prolong
    await bench.advance(10)
    assert bench.api.find(SESSIONS, "chat") is not None


async def test_nothing_is_remembered_of_a_session_that_is_gone(bench: Bench) -> None:
    await bench.running()
    pod = bench.api.find(PODS, "chat-session")
    assert pod is not None
    assert bench.world.sightings.of((NAMESPACE, "chat"), pod["metadata"]["uid"]) is not None
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    await bench.advance(60)
    assert bench.world.sightings.of((NAMESPACE, "chat"), pod["metadata"]["uid"]) is None
    calls = len(bench.sidecars.calls)
    await bench.advance(60)
    assert len(bench.sidecars.calls) == calls


async def test_nothing_is_made_for_a_session_that_is_being_deleted(bench: Bench) -> None:
    await bench.running()
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"metadata": {"deletionTimestamp": "2026-01-01T12:00:00Z"}})
    bench.api.writes.clear()
    for kind, name in CHILDREN:
        bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(60)
    assert of_session(bench) == []


async def test_counters_alone_are_written_at_most_every_thirty_seconds(bench: Bench) -> None:
    await bench.running()
    await bench.advance(60)
    bench.api.writes.clear()
    for turn in range(120):
        bench.sidecars.say(bench.identity(), turns=turn, sequence=10 * turn)
        await bench.advance(1)
    assert 3 <= len(of_session(bench)) <= 4
    await bench.advance(60)
    assert bench.status(SESSIONS, "chat")["turns"] == 119


@pytest.mark.parametrize(
    ("journal", "reason"),
    [(JournalState.KEY_MISMATCH, "KeyMismatch"), (JournalState.UNREADABLE, "JournalUnreadable")],
)
async def test_a_journal_that_cannot_be_used_is_told(bench: Bench, journal: JournalState, reason: str) -> None:
    bench.session()
    await bench.advance(0)
    bench.kubelet(ready=False)
    await bench.advance(0)
    bench.sidecars.say(bench.identity(), journal=journal, journal_message="It says so.")
    await bench.advance(3)
    assert bench.condition(SESSIONS, "chat", "Stalled") == ("True", reason)
    assert bench.message(SESSIONS, "chat").endswith("It says so.")


async def test_a_long_message_is_cut(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), model=ModelHealth(reason="ModelError", message="x" * 100_000))
    await bench.advance(20)
    assert bench.condition(SESSIONS, "chat", "ModelReachable") == ("False", "ModelError")
    assert len(bench.message(SESSIONS, "chat", "ModelReachable")) == 2000


async def test_a_silent_sidecar_is_no_bug_and_is_asked_again(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.silent = True
    await bench.advance(120)
    assert bench.condition(SESSIONS, "chat", "ModelReachable") == ("Unknown", "Unreachable")
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    bench.sidecars.silent = False
    bench.sidecars.say(bench.identity(), turns=3)
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat", "ModelReachable") == ("Unknown", "NotYetCalled")
    assert bench.status(SESSIONS, "chat")["turns"] == 3


async def test_a_sidecar_that_was_started_again_in_its_pod_is_visited_again(bench: Bench) -> None:
    await bench.running()
    ended = [{"name": "sidecar", "started": False, "state": {"terminated": {"exitCode": 137}}}]
    bench.kubelet(ready=False, initContainerStatuses=ended)
    await bench.advance(30)
    bench.kubelet()
    bench.sidecars.say(bench.identity(), turns=3)
    await bench.advance(60)
    assert bench.status(SESSIONS, "chat")["turns"] == 3


async def test_what_the_api_server_refuses_is_told_in_its_words(bench: Bench) -> None:
    def full(verb: str, kind: Kind, _name: str) -> None:
        if (verb, kind) == ("create", PODS):
            raise RefusedError("exceeded quota: pods")

    bench.api.before = full
    bench.session()
    await bench.advance(10)
    assert bench.condition(SESSIONS, "chat", "Stalled") == ("True", "PodFailing")
    assert "exceeded quota: pods" in bench.message(SESSIONS, "chat")
    bench.api.before = lambda *_: None
    await bench.advance(60)
    assert bench.api.find(PODS, "chat-session") is not None
    assert bench.condition(SESSIONS, "chat", "Stalled") is None


async def test_an_api_server_that_fails_at_times_only_delays(bench: Bench) -> None:
    dice = random.Random(7)

    def flaky(*_: object) -> None:
        if dice.random() < 0.3:
            raise UnavailableError("try later")

    bench.api.before = flaky
    bench.session()
    await bench.advance(1200)
    bench.kubelet()
    await bench.advance(600)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
