"""A warm pool: what is kept ahead, what a claim takes, and what becomes of sets that are of no use."""

from typing import Any

import pytest

from tenure_api import names
from tenure_api.names import SESSION_LABEL, SET_LABEL, WARM_LABEL
from tenure_operator.errors import RefusedError, UnavailableError
from tenure_operator.kinds import AGENTS, CLAIMS, EVENTS, NETWORKS, PODS, SECRETS, SESSIONS, Kind, Manifest
from tenure_operator.reconcile.pool_plan import NOBODY
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi
from unit.operator.pools import check, collect, filled, live, nodes, pooled, ready_sets, sets_of_sessions, warm_pods


@pytest.fixture
async def bench() -> Bench:
    return await filled(3)


async def test_a_pool_is_filled_and_the_agent_says_what_it_costs(bench: Bench) -> None:
    assert len(warm_pods(bench)) == 3
    pool = bench.status(AGENTS, "helper")["warmPool"]
    assert pool == {"ready": 3, "starting": 0, "cpu": "60m", "memory": "480Mi", "storage": "3Gi"}
    check(bench)


async def test_a_full_pool_is_left_alone(bench: Bench) -> None:
    await live(bench, 60)
    assert bench.api.writes == []


async def test_a_restarted_operator_writes_nothing_and_claims_what_is_there(bench: Bench) -> None:
    sets = warm_pods(bench)
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await live(again, 60)
    assert again.api.writes == []
    again.session()
    await again.advance(0.5)
    assert sets_of_sessions(again)["chat"] in sets


async def test_one_write_makes_a_new_session_ready_and_nothing_is_read_before_it(
    bench: Bench, monkeypatch: Any
) -> None:
    async def read(*_: object) -> Manifest:
        raise AssertionError("a claim reads nothing")

    monkeypatch.setattr(bench.api, "get", read)
    monkeypatch.setattr(bench.api, "secret_exists", read)
    made = bench.session()
    await bench.advance(0)
    assert bench.api.writes == [("status", "AgentSession", "chat")]
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert bench.condition(SESSIONS, "chat", "ModelReachable") == ("Unknown", "NotYetCalled")
    status = bench.status(SESSIONS, "chat")
    identity = bench.identity(status["setName"])
    assert status["identity"] == identity
    assert status["podIP"] == f"ip-{identity}"
    assert status["podName"] == names.session_pod(status["setName"])
    assert status["volumeClaimName"] == names.session_claim(status["setName"])
    assert (status["lease"], status["effectiveMode"]) == ({"generation": 1}, "Running")
    assert status["agentGeneration"] == 1
    assert status["revision"] == bench.status(AGENTS, "helper")["revision"]
    assert bench.sidecars.reports[identity].bound == made["metadata"]["uid"]
    assert bench.outcomes == {"warm": 1}


async def test_a_claim_is_tidied_up_and_the_pool_refilled_with_ten_writes_at_most(bench: Bench) -> None:
    made = bench.session()
    await live(bench, 60)
    set_name = sets_of_sessions(bench)["chat"]
    for kind, name in ((PODS, "session"), (CLAIMS, "state"), (NETWORKS, "session")):
        meta = bench.api.objects[kind, NAMESPACE, f"{set_name}-{name}"]["metadata"]
        assert meta["labels"][SESSION_LABEL] == "chat"
        assert meta["labels"][SET_LABEL] == set_name
        assert WARM_LABEL not in meta["labels"]
        assert [owner["uid"] for owner in meta["ownerReferences"]] == [made["metadata"]["uid"]]
    ours = [write for write in bench.api.writes if write[1] != EVENTS.name]
    assert len(ours) <= 10, ours
    assert len(ready_sets(bench)) == 3
    check(bench)


async def test_what_a_claim_wrote_is_what_a_later_look_would_write(bench: Bench) -> None:
    bench.session()
    await live(bench, 120)
    assert [verb for verb, kind, _ in bench.api.writes if kind == "AgentSession"] == ["status"]


async def test_a_session_that_has_claimed_a_set_goes_with_all_of_it(bench: Bench) -> None:
    bench.session()
    await live(bench, 5)
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    await live(bench, 60)
    check(bench)


async def test_more_sessions_than_sets_are_started_without(bench: Bench) -> None:
    for number in range(5):
        bench.session(f"chat-{number}")
    await live(bench, 30)
    assert bench.outcomes == {"warm": 3, "cold": 2}
    check(bench)


async def test_a_pool_is_not_refilled_while_sessions_are_started(bench: Bench) -> None:
    for number in range(3):
        bench.session(f"chat-{number}")
        await live(bench, 0.5)
        assert not [name for verb, kind, name in bench.api.writes if (verb, kind) == ("create", "Pod")]
    await live(bench, 30)
    check(bench)


async def test_a_refill_is_put_off_for_five_seconds_at_most(bench: Bench) -> None:
    for number in range(14):
        bench.session(f"chat-{number}")
        await live(bench, 0.5)
    assert [name for verb, kind, name in bench.api.writes if (verb, kind) == ("create", "Pod") and "warm" in name]


async def test_a_session_with_a_source_or_that_is_to_sleep_takes_no_set(bench: Bench) -> None:
    bench.session("asleep", operatingMode="Hibernated")
    bench.session("carried", source={"importFrom": {"digest": "sha256:" + "0" * 64}})
    await bench.advance(1)
    assert len(ready_sets(bench)) == 3
    assert bench.outcomes == {}


async def test_a_session_that_is_written_to_meanwhile_keeps_the_set_that_it_was_given(bench: Bench) -> None:
    def annotate(verb: str, kind: Kind, name: str) -> None:
        if (verb, kind) == ("status", SESSIONS):
            bench.api.before = lambda *_: None
            bench.api.change(SESSIONS, NAMESPACE, name, {"metadata": {"annotations": {"note": "x"}}})

    bench.api.before = annotate
    first = ready_sets(bench)[0]
    bench.session()
    await bench.advance(0)
    assert sets_of_sessions(bench) == {"chat": first}
    await live(bench, 30)
    check(bench)


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_write_whose_answer_is_lost_costs_no_second_set(bench: Bench, carried_out: bool) -> None:
    def lost(verb: str, kind: Kind, _name: str) -> None:
        if (verb, kind) == ("status", SESSIONS):
            bench.api.before = bench.api.after = lambda *_: None
            raise UnavailableError("no answer")

    setattr(bench.api, "after" if carried_out else "before", lost)
    first = ready_sets(bench)[0]
    bench.session()
    await live(bench, 30)
    assert sets_of_sessions(bench) == {"chat": first}
    assert len([each for each in bench.sidecars.reports.values() if each.bound]) == 1
    check(bench)


# --- sets of no use ------------------------------------------------------------------------------------------------


async def test_a_set_whose_sidecar_does_not_answer_is_passed_over_and_replaced(bench: Bench) -> None:
    first = ready_sets(bench)[0]
    answer, mute = bench.sidecars.answer, bench.identity(first)
    bench.sidecars.mute.add(mute)
    bench.session()
    await bench.advance(0)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert sets_of_sessions(bench)["chat"] != first
    await live(bench, 120)
    assert first not in warm_pods(bench)
    assert answer is not None
    check(bench)


async def test_a_set_that_another_operator_has_given_away_is_passed_over(bench: Bench) -> None:
    first = ready_sets(bench)[0]
    bench.sidecars.say(bench.identity(first), bound="another")
    bench.session()
    await bench.advance(0)
    assert bench.condition(SESSIONS, "chat") == ("True", "Ready")
    assert sets_of_sessions(bench)["chat"] != first
    await live(bench, 60)
    assert first not in warm_pods(bench)
    check(bench)


async def test_a_pool_follows_a_change_of_the_agent(bench: Bench) -> None:
    before = warm_pods(bench)
    pooled(bench, 3, runtime={"image": "mine:2"})
    await bench.advance(0.1)
    bench.session()
    await live(bench, 60)
    assert sets_of_sessions(bench)["chat"] not in before
    assert not set(before) & set(warm_pods(bench))
    check(bench)


async def test_a_pool_follows_a_change_of_the_storage(bench: Bench) -> None:
    before = warm_pods(bench)
    bench.agent(session={"warmPool": {"size": 3}, "storage": {"size": "2Gi"}})
    await live(bench, 60)
    assert not set(before) & set(warm_pods(bench))
    assert bench.status(AGENTS, "helper")["warmPool"]["storage"] == "6Gi"


async def test_new_instructions_are_delivered_to_sets_that_stay(bench: Bench) -> None:
    before = warm_pods(bench)
    pooled(bench, 3, instructions="Be brief.")
    await live(bench, 30)
    assert warm_pods(bench) == before
    assert all(bench.sidecars.reports[bench.identity(each)].agent_generation == 2 for each in before)
    assert len(ready_sets(bench)) == 3


async def test_a_smaller_pool_gives_sets_back_and_none_gives_all_back(bench: Bench) -> None:
    pooled(bench, 1)
    await live(bench, 30)
    assert len(warm_pods(bench)) == 1
    check(bench)
    bench.agent()
    await live(bench, 30)
    check(bench)
    assert "warmPool" not in bench.status(AGENTS, "helper")


async def test_before_a_set_is_discarded_its_sidecar_must_agree_that_nobody_gets_it(bench: Bench) -> None:
    identities = [bench.identity(each) for each in warm_pods(bench)]
    pooled(bench, 0)
    await live(bench, 10)
    assert [bench.sidecars.reports[each].bound for each in identities] == [NOBODY] * 3


async def test_a_bad_image_makes_few_pods_and_the_agent_says_so() -> None:
    bench = await Bench(FakeApi()).start()
    pooled(bench, 20, runtime={"image": "none:1"})
    held = {"name": "agent", "image": "none:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    for _ in range(3600):
        await bench.advance(1)
        for (kind, namespace, name), pod in list(bench.api.objects.items()):
            if kind is PODS and "deletionTimestamp" in pod["metadata"]:
                bench.api.remove(PODS, namespace, name)
            elif kind is PODS:
                bench.kubelet(pod["metadata"]["labels"][SET_LABEL], ready=False, containerStatuses=[held])
        collect(bench)
        assert len(warm_pods(bench)) <= 4
    made = [name for verb, kind, name in bench.api.writes if (verb, kind) == ("create", "Pod")]
    assert len(made) <= 40
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")
    assert bench.condition(AGENTS, "helper", "WarmPoolBlocked") == ("True", "PodFailing")
    assert "none:1" in bench.message(AGENTS, "helper", "WarmPoolBlocked")
    assert bench.status(AGENTS, "helper")["warmPool"]["ready"] == 0
    pooled(bench, 3, runtime={"image": "mine:1"})
    await live(bench, 60)
    assert bench.condition(AGENTS, "helper", "WarmPoolBlocked") is None
    assert len(ready_sets(bench)) == 3


async def test_a_quota_makes_few_tries_and_the_agent_says_so() -> None:
    bench = await Bench(FakeApi()).start()

    def full(verb: str, kind: Kind, _name: str) -> None:
        if (verb, kind) == ("create", PODS):
            raise RefusedError("exceeded quota: pods")

    bench.api.before = full
    pooled(bench, 5)
    await live(bench, 3600, 1)
    assert len([1 for verb, kind, _ in bench.api.writes if (verb, kind) == ("create", CLAIMS.name)]) <= 60
    assert "exceeded quota" in bench.message(AGENTS, "helper", "WarmPoolBlocked")
    bench.api.before = lambda *_: None
    await live(bench, 600, 1)
    assert bench.condition(AGENTS, "helper", "WarmPoolBlocked") is None
    check(bench)


async def test_a_set_whose_pod_was_evicted_is_replaced(bench: Bench) -> None:
    first = warm_pods(bench)[0]
    bench.api.change(PODS, NAMESPACE, names.session_pod(first), {"status": {"phase": "Failed", "reason": "Evicted"}})
    await live(bench, 30)
    assert first not in warm_pods(bench)
    check(bench)


async def test_a_set_whose_pod_was_deleted_is_replaced(bench: Bench) -> None:
    first = warm_pods(bench)[0]
    bench.api.remove(PODS, NAMESPACE, names.session_pod(first))
    await live(bench, 30)
    check(bench)


# --- what is lost --------------------------------------------------------------------------------------------------


async def test_the_set_of_a_session_that_is_deleted_at_once_is_deleted_too(bench: Bench) -> None:
    bench.session()
    await bench.advance(0)
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    await live(bench, 30)
    check(bench)


async def test_the_set_of_a_session_that_was_deleted_while_no_operator_ran_is_deleted_too(bench: Bench) -> None:
    bench.session()
    await bench.advance(0)
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await live(again, 60)
    check(again)


async def test_a_session_whose_status_was_lost_finds_its_set_by_the_labels(bench: Bench) -> None:
    made = bench.session()
    await live(bench, 10)
    set_name = sets_of_sessions(bench)["chat"]
    bench.api.put(SESSIONS, {**made, "metadata": {"namespace": NAMESPACE, "name": "chat"}, "status": {}})
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await live(again, 30)
    assert sets_of_sessions(again)["chat"] == set_name
    check(again)


async def test_a_volume_that_is_retained_goes_to_the_next_session_of_its_name(bench: Bench) -> None:
    bench.agent(session={"warmPool": {"size": 3}, "storage": {"whenDeleted": "Retain"}})
    await live(bench, 10)
    bench.session()
    await live(bench, 10)
    set_name = sets_of_sessions(bench)["chat"]
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    await live(bench, 10)
    assert bench.api.find(PODS, names.session_pod(set_name)) is None
    assert bench.api.find(CLAIMS, names.session_claim(set_name)) is not None
    bench.session()
    await live(bench, 30)
    assert sets_of_sessions(bench)["chat"] == set_name


async def test_a_set_is_kept_that_the_api_server_says_is_a_sessions_though_no_watch_has_told(bench: Bench) -> None:
    told, bench.api.told = bench.api.told, lambda *_: None
    made = bench.session()
    first = ready_sets(bench)[0]
    bench.sidecars.say(bench.identity(first), bound=made["metadata"]["uid"])
    bench.api.told = told
    pooled(bench, 3, instructions="Be brief.")  # has all of them visited
    await live(bench, 30)
    assert sets_of_sessions(bench) == {"chat": first}
    check(bench)


async def test_the_key_of_a_set_goes_with_its_claim(bench: Bench) -> None:
    sets = warm_pods(bench)
    assert all(bench.api.find(SECRETS, bench.key_name(each)) for each in sets)
    pooled(bench, 0)
    await live(bench, 20)
    assert not [name for kind, _, name in bench.api.objects if kind is SECRETS]
    nodes(bench)
