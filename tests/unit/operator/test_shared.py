"""Sessions that share pods: where they are, what they say, and that nothing of a deleted one is kept."""

from collections import Counter

import pytest

from tenure_api import names
from tenure_api.names import GENERATION_ANNOTATION, HOST_LABEL, SET_LABEL, WAKE_ANNOTATION
from tenure_operator.kinds import AGENTS, CLAIMS, NETWORKS, PODS, SECRETS, SESSIONS, Manifest
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi
from unit.operator.pools import live


async def shared(replicas: int = 2, api: FakeApi | None = None) -> Bench:
    """An operator with an agent whose sessions share pods, which are ready."""
    bench = await Bench(api or FakeApi()).start()
    bench.agent(session={"isolation": "Shared", "replicas": replicas})
    await live(bench, 20)
    bench.api.writes.clear()
    return bench


@pytest.fixture
async def bench() -> Bench:
    return await shared()


def hosts(bench: Bench) -> list[str]:
    """The sets whose pods sessions share."""
    return sorted(
        pod["metadata"]["labels"][SET_LABEL]
        for (kind, _, _), pod in bench.api.objects.items()
        if kind is PODS and HOST_LABEL in pod["metadata"]["labels"]
    )


def host_pod(bench: Bench, number: int = 0) -> Manifest:
    found: Manifest = bench.api.objects[PODS, NAMESPACE, names.session_pod(names.host_set("helper", number))]
    return found


def uid_of(bench: Bench, session: str) -> str:
    return str(bench.api.objects[SESSIONS, NAMESPACE, session]["metadata"]["uid"])


def spread(bench: Bench) -> Counter[str]:
    """How many sessions each host has."""
    found = [each.get("status", {}) for (kind, _, _), each in bench.api.objects.items() if kind is SESSIONS]
    return Counter(status["setName"] for status in found if "setName" in status)


async def test_an_agent_has_so_many_shared_pods_each_with_volume_key_and_wall(bench: Bench) -> None:
    assert hosts(bench) == ["helper-shared-0", "helper-shared-1"]
    for name in hosts(bench):
        identity = bench.identity(name)
        assert bench.sidecars.reports[identity].config_digest is not None
        assert (NETWORKS, NAMESPACE, names.session_network(name)) in bench.api.objects
        assert (SECRETS, NAMESPACE, names.session_key(name, identity)) in bench.api.objects
    spec = host_pod(bench)["spec"]
    (sidecar,) = (c for c in spec["initContainers"] if c["name"] == "sidecar")
    assert {"name": "TENURE_SHARED", "value": "true"} in sidecar["env"]
    (agent,) = spec["containers"]
    assert [mount["mountPath"] for mount in agent["volumeMounts"]] == ["/tmp"]


async def test_nothing_is_written_while_nothing_changes(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 15)
    bench.api.writes.clear()
    await live(bench, 60)
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await live(again, 60)
    assert bench.api.writes == []


async def test_a_session_is_ready_without_a_pod_of_its_own(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 2)
    status, uid = bench.status(SESSIONS, "one"), uid_of(bench, "one")
    assert bench.condition(SESSIONS, "one") == ("True", "Ready")
    assert status["identity"] == uid
    assert status["setName"] == "helper-shared-0"
    assert status["podName"] == "helper-shared-0-session"
    assert status["podIP"] == f"ip-{bench.identity('helper-shared-0')}"
    assert status["lease"] == {"generation": 1}
    assert bench.sidecars.kept[bench.identity("helper-shared-0")] == {uid}
    assert (PODS, NAMESPACE, "one-session") not in bench.api.objects
    assert (CLAIMS, NAMESPACE, "one-state") not in bench.api.objects


async def test_sessions_are_spread_evenly(bench: Bench) -> None:
    for n in range(10):
        bench.session(f"s{n}")
        await live(bench, 1)
    assert spread(bench) == {"helper-shared-0": 5, "helper-shared-1": 5}
    await live(bench, 20)
    assert bench.status(AGENTS, "helper")["sessions"] == {"total": 10, "running": 10, "hibernated": 0}


async def test_a_session_waits_for_a_host_and_is_told_when_there_is_one() -> None:
    bench = await Bench(FakeApi()).start()
    bench.agent(session={"isolation": "Shared"})
    bench.session("one")
    await bench.advance(1)
    assert bench.condition(SESSIONS, "one") == ("False", "PodStarting")
    await live(bench, 10)
    assert bench.condition(SESSIONS, "one") == ("True", "Ready")


async def test_what_a_session_says_of_itself_is_in_its_status(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 2)
    bench.sidecars.calls.clear()
    bench.sidecars.say(uid_of(bench, "one"), turns=7, sequence=99)
    await live(bench, 70)
    assert set(bench.sidecars.calls) == {"GET /v1/report", "GET /v1/sessions"}
    assert len(bench.sidecars.calls) <= 2 * 2 * 8, "hosts are visited, and not sessions"
    status = bench.status(SESSIONS, "one")
    assert (status["turns"], status["journal"]) == (7, {"sequence": 99})
    assert status["revision"] == bench.status(AGENTS, "helper")["revision"]


async def test_sessions_of_a_host_that_is_silent_say_so(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 15)
    bench.sidecars.silent = True
    await live(bench, 120)
    assert bench.condition(SESSIONS, "one", "ModelReachable") == ("Unknown", "Unreachable")
    bench.sidecars.silent = False
    await live(bench, 330)
    assert bench.condition(SESSIONS, "one", "ModelReachable") != ("Unknown", "Unreachable")


async def test_a_deleted_session_is_erased_at_its_host_and_no_other_is(bench: Bench) -> None:
    for name in ("one", "two", "three", "four"):
        bench.session(name)
        await live(bench, 1)
    gone = uid_of(bench, "one")
    kept = {uid_of(bench, name) for name in ("two", "three", "four")}
    bench.api.remove(SESSIONS, NAMESPACE, "one")
    await live(bench, 15)
    assert set().union(*bench.sidecars.kept.values()) == kept
    assert gone not in bench.sidecars.reports


async def test_a_host_that_ends_is_made_anew_with_a_higher_generation_and_its_sessions_come_back(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 2)
    before = host_pod(bench)
    bench.pod_is_gone("helper-shared-0")
    await bench.advance(0.5)
    assert bench.condition(SESSIONS, "one") != ("True", "Ready")
    await live(bench, 10)
    after = host_pod(bench)
    generations = [int(pod["metadata"]["annotations"][GENERATION_ANNOTATION]) for pod in (before, after)]
    assert generations[1] > generations[0]
    assert bench.condition(SESSIONS, "one") == ("True", "Ready")
    assert bench.status(SESSIONS, "one")["setName"] == "helper-shared-0"


async def test_a_session_that_a_host_has_already_goes_to_no_other(bench: Bench) -> None:
    made = bench.session("one")
    host = bench.identity("helper-shared-1")
    bench.sidecars.kept[host] = {made["metadata"]["uid"]}
    bench.sidecars.say(host, sessions=[made["metadata"]["uid"]])
    bench.api.remove(SESSIONS, NAMESPACE, "one")
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    uid = again.session("one")["metadata"]["uid"]
    bench.sidecars.kept[host] = {uid}
    bench.sidecars.say(host, sessions=[uid])
    await live(again, 15)
    assert again.status(SESSIONS, "one")["setName"] == "helper-shared-1"


async def test_hosts_are_replaced_one_after_the_other_when_the_agent_changes(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 2)
    before = {
        name: bench.api.objects[PODS, NAMESPACE, names.session_pod(name)]["metadata"]["uid"] for name in hosts(bench)
    }
    limits = {"limits": {"memory": "300Mi"}}
    bench.api.change(AGENTS, NAMESPACE, "helper", {"spec": {"runtime": {"resources": limits}}})
    least = 2
    for _ in range(120):
        await live(bench, 0.5)
        ready = [
            p for (k, _, _), p in bench.api.objects.items() if k is PODS and "deletionTimestamp" not in p["metadata"]
        ]
        least = min(least, len(ready))
    after = {
        name: bench.api.objects[PODS, NAMESPACE, names.session_pod(name)]["metadata"]["uid"] for name in hosts(bench)
    }
    assert least >= 1
    assert all(before[name] != after[name] for name in before)
    assert bench.condition(SESSIONS, "one") == ("True", "Ready")


async def test_a_host_as_old_as_any_may_be_is_replaced(bench: Bench) -> None:
    before = host_pod(bench)["metadata"]["uid"]
    session = {"isolation": "Shared", "replicas": 2, "maxLifetimeSeconds": 60}
    bench.api.change(AGENTS, NAMESPACE, "helper", {"spec": {"session": session}})
    await live(bench, 120)
    assert host_pod(bench)["metadata"]["uid"] != before


async def test_a_host_that_is_one_too_many_stays_until_its_last_session_is_gone(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 1)
    bench.session("two")
    await live(bench, 1)
    assert bench.status(SESSIONS, "two")["setName"] == "helper-shared-1"
    bench.api.change(AGENTS, NAMESPACE, "helper", {"spec": {"session": {"isolation": "Shared", "replicas": 1}}})
    await live(bench, 15)
    bench.session("three")
    await live(bench, 5)
    assert bench.status(SESSIONS, "three")["setName"] == "helper-shared-0"
    assert hosts(bench) == ["helper-shared-0", "helper-shared-1"]
    assert bench.condition(SESSIONS, "two") == ("True", "Ready")
    bench.api.remove(SESSIONS, NAMESPACE, "two")
    await live(bench, 30)
    assert hosts(bench) == ["helper-shared-0"]
    assert (CLAIMS, NAMESPACE, names.session_claim("helper-shared-1")) not in bench.api.objects


async def test_a_lost_key_is_never_made_anew(bench: Bench) -> None:
    name = "helper-shared-0"
    bench.api.remove(SECRETS, NAMESPACE, names.session_key(name, bench.identity(name)))
    bench.pod_is_gone(name)
    await live(bench, 20)
    assert (PODS, NAMESPACE, names.session_pod(name)) not in bench.api.objects
    assert (SECRETS, NAMESPACE, names.session_key(name, bench.identity(name))) not in bench.api.objects


async def test_a_session_that_is_to_sleep_sleeps_and_is_woken_by_who_may(bench: Bench) -> None:
    bench.session("one")
    await live(bench, 2)
    bench.sidecars.say(uid_of(bench, "one"), idle_seconds=5.0)
    bench.api.change(SESSIONS, NAMESPACE, "one", {"spec": {"operatingMode": "Hibernated"}})
    await live(bench, 40)
    status = bench.status(SESSIONS, "one")
    assert (status["effectiveMode"], status["hibernation"]["reason"]) == ("Hibernated", "Requested")
    assert "podIP" not in status
    assert bench.condition(SESSIONS, "one") == ("True", "Hibernated")
    bench.api.change(SESSIONS, NAMESPACE, "one", {"metadata": {"annotations": {WAKE_ANNOTATION: "1"}}})
    await live(bench, 2)
    status = bench.status(SESSIONS, "one")
    assert (status["effectiveMode"], status["lease"]) == ("Running", {"generation": 2})
    assert status["podIP"]


async def test_a_session_that_begins_with_another_is_told_that_it_cannot(bench: Bench) -> None:
    bench.session("one", source={"forkFrom": {"session": "another"}})
    await live(bench, 5)
    assert bench.condition(SESSIONS, "one") == ("False", "SourceInvalid")


async def test_a_killed_operator_places_no_session_twice(bench: Bench) -> None:
    bench.session("one")
    await bench.advance(0)
    again = await Bench(bench.api, bench.sidecars, at=bench.clock).start()
    await live(again, 15)
    kept = [uid for uids in bench.sidecars.kept.values() for uid in uids]
    assert kept == [uid_of(again, "one")]
