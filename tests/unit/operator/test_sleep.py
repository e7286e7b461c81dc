"""A session sleeps when it is idle and wakes when it is asked to: never with a turn, and never twice for one wish."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure_api import names
from tenure_api.names import WAKE_ANNOTATION
from tenure_api.report import Suspension
from tenure_operator.errors import NoRoomError
from tenure_operator.kinds import CLAIMS, PODS, SECRETS, SESSIONS, Kind, Manifest
from unit.operator.bench import NAMESPACE, NOON, Bench
from unit.operator.fake_api import FakeApi, Killed
from unit.operator.test_killed import deadly

POD = names.session_pod("chat")
TURN = "a" * 32


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent(session={"idleTimeoutSeconds": 60})
    await bench.advance(0)
    return bench


def spec(bench: Bench, session: str = "chat") -> Manifest:
    found: Manifest = bench.api.objects[SESSIONS, NAMESPACE, session]["spec"]
    return found


def want(bench: Bench, **fields: Any) -> None:
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"spec": fields})


def wake(bench: Bench, generation: int) -> None:
    annotations = {"annotations": {WAKE_ANNOTATION: str(generation)}}
    bench.api.change(SESSIONS, NAMESPACE, "chat", {"metadata": annotations})


def is_ending(bench: Bench) -> bool:
    pod = bench.api.find(PODS, POD)
    return pod is not None and "deletionTimestamp" in pod["metadata"]


def generation(bench: Bench) -> int:
    return int(bench.status(SESSIONS, "chat")["lease"]["generation"])


async def asleep(bench: Bench) -> None:
    """Lets the session fall asleep."""
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(80)
    assert is_ending(bench)
    bench.pod_is_gone()
    await bench.advance(1)
    assert bench.api.find(PODS, POD) is None


async def awake(bench: Bench) -> None:
    """The pod that was made for it becomes ready."""
    bench.sidecars.say(bench.identity(), idle_seconds=0.0)
    bench.kubelet()
    await bench.advance(0.1)
    assert bench.status(SESSIONS, "chat")["effectiveMode"] == "Running"
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")


async def test_an_idle_session_loses_its_pod_and_nothing_else(bench: Bench) -> None:
    await bench.running()
    before = spec(bench)
    await bench.advance(30)
    assert not is_ending(bench)
    await asleep(bench)
    status = bench.status(SESSIONS, "chat")
    assert (status["effectiveMode"], status["hibernation"]["reason"]) == ("Hibernated", "Idle")
    assert not {"podName", "podIP"} & set(status)
    assert bench.condition(SESSIONS, "chat") == ("True", "Hibernated")
    assert bench.condition(SESSIONS, "chat", "Reconciling") is None
    assert spec(bench) == before
    assert bench.api.find(CLAIMS, "chat-state") is not None
    assert bench.api.find(SECRETS, bench.key_name()) is not None


async def test_a_sleeping_session_costs_no_write_and_no_call(bench: Bench) -> None:
    await bench.running()
    await asleep(bench)
    bench.api.writes.clear()
    bench.sidecars.calls.clear()
    await bench.advance(100_000)
    assert bench.api.writes == []
    assert bench.sidecars.calls == []


async def test_the_status_says_that_it_sleeps_before_its_pod_goes(bench: Bench) -> None:
    await bench.running()
    bench.api.writes.clear()
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(80)
    ours = [write[:2] for write in bench.api.writes if write[1] != "Agent"]
    assert ours == [("status", "AgentSession"), ("delete", "Pod")]


@pytest.mark.parametrize("fatal", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_it_falls_asleep_though_the_operator_is_killed_at_any_write(bench: Bench, fatal: int, when: str) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    deadly(bench.api, fatal, when)
    with pytest.raises(Killed):
        await bench.advance(80)
    bench.api.before = bench.api.after = lambda *_: None
    second = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await second.advance(30)
    assert is_ending(second)
    second.pod_is_gone()
    await second.advance(1)
    assert second.api.find(PODS, POD) is None
    assert second.status(SESSIONS, "chat")["effectiveMode"] == "Hibernated"


async def test_it_never_sleeps_while_something_happens(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), active_turn=TURN, idle_seconds=100.0)
    await bench.advance(1000)
    assert not is_ending(bench)


async def test_a_turn_that_has_begun_since_the_last_report_keeps_it_awake(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(50)
    bench.sidecars.say(bench.identity(), active_turn=TURN)  # heard of only by the drain, which is refused
    await bench.advance(1000)
    assert bench.status(SESSIONS, "chat")["effectiveMode"] == "Running"
    assert not is_ending(bench)


async def test_a_wish_wakes_it_with_a_new_lease_and_is_used_up(bench: Bench) -> None:
    await bench.running()
    assert generation(bench) == 1
    await asleep(bench)
    wake(bench, 1)
    await bench.advance(0.1)
    pod = bench.api.find(PODS, POD)
    assert pod is not None
    assert pod["metadata"]["annotations"][names.GENERATION_ANNOTATION] == "2"
    await awake(bench)
    assert generation(bench) == 2
    assert "hibernation" not in bench.status(SESSIONS, "chat")
    await asleep(bench)
    await bench.advance(1000)
    assert bench.api.find(PODS, POD) is None  # the old wish does not wake it again


@pytest.mark.parametrize("wish", [0, 2, 999])
async def test_a_wish_for_another_run_wakes_nothing(bench: Bench, wish: int) -> None:
    await bench.running()
    await asleep(bench)
    wake(bench, wish)
    await bench.advance(100)
    assert bench.api.find(PODS, POD) is None


async def test_a_wish_that_comes_while_its_last_pod_ends_is_granted_after_it(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), idle_seconds=100.0)
    await bench.advance(80)
    wake(bench, 1)
    await bench.advance(0.1)
    assert is_ending(bench)
    bench.pod_is_gone()
    await bench.advance(0.1)
    await awake(bench)
    assert generation(bench) == 2


async def test_a_wish_that_crosses_a_write_of_ours_costs_no_second(bench: Bench) -> None:
    await bench.running()
    await asleep(bench)
    crossed = False

    def cross(verb: str, *_: object) -> None:
        nonlocal crossed
        if verb == "status" and not crossed:
            crossed = True
            bench.api.change(SESSIONS, NAMESPACE, "chat", {"metadata": {"labels": {"seen": "true"}}})

    bench.api.before = cross
    wake(bench, 1)
    await bench.advance(0.0)
    assert crossed
    assert bench.api.find(PODS, POD) is not None


async def test_a_turn_that_waits_for_a_time_wakes_it_then(bench: Bench) -> None:
    await bench.running()
    until = NOON + timedelta(seconds=5000)
    bench.sidecars.say(bench.identity(), active_turn=TURN, suspended=Suspension(turn=TURN, until=until))
    await asleep(bench)
    assert datetime.fromisoformat(bench.status(SESSIONS, "chat")["hibernation"]["wakeAt"]).astimezone(UTC) == until
    assert bench.condition(SESSIONS, "chat", "TurnSuspended") == ("True", "WaitingUntil")
    await bench.advance(4900 - bench.clock)
    assert bench.api.find(PODS, POD) is None
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await again.advance(5000 - again.clock)
    assert again.api.find(PODS, POD) is not None


async def test_one_that_is_to_be_kept_asleep_sleeps_as_soon_as_its_turn_has_ended(bench: Bench) -> None:
    await bench.running()
    bench.sidecars.say(bench.identity(), active_turn=TURN)
    await bench.advance(20)
    want(bench, operatingMode="Hibernated")
    await bench.advance(100)
    assert not is_ending(bench)
    bench.sidecars.say(bench.identity(), active_turn=None)
    await bench.advance(20)
    assert is_ending(bench)
    bench.pod_is_gone()
    await bench.advance(1)
    assert bench.status(SESSIONS, "chat")["hibernation"]["reason"] == "Requested"
    assert "wake" in bench.message(SESSIONS, "chat")
    want(bench, operatingMode="Running")
    await bench.advance(0.1)
    assert bench.api.find(PODS, POD) is not None


async def test_one_that_is_kept_asleep_and_woken_runs_until_it_is_idle_again(bench: Bench) -> None:
    bench.session(operatingMode="Hibernated")
    await bench.advance(1)
    assert bench.api.find(PODS, POD) is None
    assert bench.api.find(CLAIMS, "chat-state") is None
    assert bench.condition(SESSIONS, "chat") == ("True", "Hibernated")
    wake(bench, 0)
    await bench.advance(0.1)
    bench.kubelet()
    await bench.advance(0.1)
    await bench.advance(50)
    assert bench.status(SESSIONS, "chat")["effectiveMode"] == "Running"
    assert not is_ending(bench)
    await asleep(bench)


async def test_a_pod_that_is_old_is_replaced_between_two_turns(bench: Bench) -> None:
    bench.agent(session={"idleTimeoutSeconds": 10_000, "maxLifetimeSeconds": 300})
    await bench.running()
    bench.sidecars.say(bench.identity(), active_turn=TURN)
    await bench.advance(400)
    assert not is_ending(bench)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    bench.sidecars.say(bench.identity(), active_turn=None)
    await bench.advance(20)
    assert is_ending(bench)
    bench.pod_is_gone()
    await bench.advance(0.1)
    await awake(bench)
    assert generation(bench) == 2


async def test_no_two_pods_are_ever_given_the_same_lease(bench: Bench) -> None:
    await bench.running()
    seen = set()
    for number in range(5):
        pod = bench.api.find(PODS, POD)
        assert pod is not None
        seen.add(pod["metadata"]["annotations"][names.GENERATION_ANNOTATION])
        bench.pod_is_gone()
        if number % 2:  # the next operator does not know what the one before has done last
            bench = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
        await bench.advance(1)
    assert len(seen) == 5


async def test_the_containers_of_a_session_that_wakes_start_side_by_side(bench: Bench) -> None:
    def probe() -> object:
        pod = bench.api.objects[PODS, NAMESPACE, POD]
        return pod["spec"]["initContainers"][0].get("startupProbe")

    await bench.running()
    assert probe() is not None
    await asleep(bench)
    wake(bench, 1)
    await bench.advance(0.1)
    assert probe() is None


async def test_a_request_need_not_wait_for_the_kubelets_probes(bench: Bench) -> None:
    await bench.running()
    await asleep(bench)
    wake(bench, 1)
    await bench.advance(0.1)
    running: list[Manifest] = [
        {"name": name, "started": True, "state": {"running": {}}} for name in ("sidecar", "agent")
    ]
    bench.sidecars.say(bench.identity(), ready=False, idle_seconds=0.0)
    bench.kubelet(ready=False, initContainerStatuses=running[:1], containerStatuses=running[1:])
    await bench.advance(0.3)
    assert bench.condition(SESSIONS, "chat") == ("False", "PodStarting")
    bench.sidecars.say(bench.identity(), ready=True)
    await bench.advance(0.1)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert "podIP" in bench.status(SESSIONS, "chat")


async def test_a_session_that_a_quota_has_no_room_for_waits_and_takes_one_lease(bench: Bench) -> None:
    await bench.running()
    await asleep(bench)
    full = True

    def refuse(verb: str, kind: Kind, _: str) -> None:
        if full and (verb, kind) == ("create", PODS):
            raise NoRoomError("exceeded quota: room, requested: pods=1, used: pods=4, limited: pods=4")

    bench.api.before = refuse
    wake(bench, 1)
    await bench.advance(60)
    assert bench.condition(SESSIONS, "chat") == ("False", "PodUnschedulable")
    assert bench.condition(SESSIONS, "chat", "Stalled") is None  # the gateway holds its requests
    assert "exceeded quota: room" in bench.message(SESSIONS, "chat")
    full = False
    await bench.advance(1)
    await awake(bench)
    assert generation(bench) == 2
