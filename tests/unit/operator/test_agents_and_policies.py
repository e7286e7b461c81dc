"""Agents and policies: what is made of them, what is delivered, and what is said."""

import json

import pytest

from tenure_operator.kinds import ACCOUNTS, AGENTS, CONFIG_MAPS, POLICIES, SECRETS, SESSIONS, Kind
from unit.operator.bench import NAMESPACE, Bench
from unit.operator.fake_api import FakeApi

WITH_SECRET = {"name": "m", "baseURL": "http://model/v1", "credentialsSecretRef": {"name": "vendor"}}
CHILDREN = [(ACCOUNTS, "helper-agent"), (CONFIG_MAPS, "helper-agent")]


@pytest.fixture
async def bench() -> Bench:
    return await Bench(FakeApi()).start()


def config(bench: Bench) -> dict[str, object]:
    found = bench.api.find(CONFIG_MAPS, "helper-agent")
    assert found is not None
    decoded: dict[str, object] = json.loads(found["data"]["config.json"])
    return decoded


async def test_an_agent_gets_an_account_a_configuration_and_one_status(bench: Bench) -> None:
    bench.agent()
    await bench.advance(60)
    assert [write[:2] for write in bench.api.writes] == [
        ("create", "ServiceAccount"),
        ("create", "ConfigMap"),
        ("status", "Agent"),
    ]
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")
    found = bench.api.find(CONFIG_MAPS, "helper-agent")
    assert found is not None
    assert (found["data"]["operator.pub"], found["data"]["gateway.pub"]) == ("PEM-O", "PEM-G")


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_a_deleted_child_is_back_at_once(bench: Bench, kind: Kind, name: str) -> None:
    bench.agent()
    await bench.advance(1)
    bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(0)
    assert bench.api.find(kind, name) is not None


async def test_a_changed_configuration_is_set_right(bench: Bench) -> None:
    bench.agent()
    await bench.advance(1)
    before = config(bench)
    bench.api.change(CONFIG_MAPS, NAMESPACE, "helper-agent", {"data": {"config.json": "{}"}})
    await bench.advance(0)
    assert config(bench) == before


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_an_object_that_is_not_ours_stalls_the_agent_until_it_is_gone(
    bench: Bench, kind: Kind, name: str
) -> None:
    bench.api.put(kind, {"metadata": {"namespace": NAMESPACE, "name": name}, "data": {"mine": "yes"}})
    bench.agent()
    await bench.advance(30)
    assert bench.condition(AGENTS, "helper", "Stalled") == ("True", "NameConflict")
    found = bench.api.find(kind, name)
    assert found is not None
    assert found["data"] == {"mine": "yes"}
    bench.api.remove(kind, NAMESPACE, name)
    await bench.advance(15)
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")


async def test_a_missing_secret_is_named_with_its_field_and_found_by_itself_when_it_is_there(bench: Bench) -> None:
    bench.agent(model=WITH_SECRET)
    await bench.advance(60)
    assert bench.condition(AGENTS, "helper") == ("False", "SecretNotFound")
    assert bench.condition(AGENTS, "helper", "Reconciling") == ("True", "SecretNotFound")
    assert "spec.model.credentialsSecretRef names Secret vendor" in bench.message(AGENTS, "helper")
    bench.api.put(SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "vendor"}})
    await bench.advance(10)
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")


async def test_a_secret_that_goes_is_noticed_in_minutes_and_asked_for_seldom(bench: Bench) -> None:
    bench.api.put(SECRETS, {"metadata": {"namespace": NAMESPACE, "name": "vendor"}})
    bench.agent(model=WITH_SECRET)
    await bench.advance(1200)
    assert bench.api.dry_runs <= 6
    bench.api.remove(SECRETS, NAMESPACE, "vendor")
    await bench.advance(600)
    assert bench.condition(AGENTS, "helper") == ("False", "SecretNotFound")


async def test_an_agent_without_its_policy_fails_closed_and_keeps_the_last_configuration(bench: Bench) -> None:
    bench.policy()
    bench.agent(memoryPolicyRef={"name": "month"})
    await bench.advance(1)
    before = config(bench)
    bench.api.remove(POLICIES, NAMESPACE, "month")
    await bench.advance(1)
    assert bench.condition(AGENTS, "helper") == ("False", "PolicyNotFound")
    assert config(bench) == before
    bench.policy()
    await bench.advance(1)
    assert bench.condition(AGENTS, "helper") == ("True", "Ready")


async def test_a_changed_policy_reaches_the_running_sidecar_and_is_acknowledged(bench: Bench) -> None:
    bench.policy(maxAgeSeconds=60)
    bench.agent(memoryPolicyRef={"name": "month"})
    await bench.running()
    await bench.advance(10)
    assert bench.condition(SESSIONS, "chat", "PolicyApplied") == ("True", "Delivered")
    pod = bench.api.writes.count(("create", "Pod", "chat-session"))
    bench.policy(maxAgeSeconds=20)
    await bench.advance(0)
    report = bench.sidecars.reports[bench.identity()]
    assert report.policy is not None
    assert report.policy.transcript_max_age_seconds == 20
    assert bench.status(SESSIONS, "chat")["policy"] == {"name": "month", "generation": 2}
    await bench.advance(10)
    assert bench.status(POLICIES, "month")["sessions"] == {"total": 1, "current": 1}
    assert bench.condition(POLICIES, "month") == ("True", "Delivered")
    assert bench.api.writes.count(("create", "Pod", "chat-session")) == pod


async def test_a_policy_that_a_sidecar_does_not_take_is_being_delivered(bench: Bench) -> None:
    bench.policy()
    bench.agent(memoryPolicyRef={"name": "month"})
    await bench.running()
    await bench.advance(10)
    bench.sidecars.silent = True
    bench.policy(maxAgeSeconds=20)
    await bench.advance(10)
    assert bench.condition(SESSIONS, "chat", "PolicyApplied") == ("False", "Delivering")
    assert bench.condition(POLICIES, "month") == ("False", "Delivering")
    assert "0 of 1 running sessions enforce generation 2" in bench.message(POLICIES, "month")
    bench.sidecars.silent = False
    await bench.advance(60)
    assert bench.condition(POLICIES, "month") == ("True", "Delivered")


async def test_a_sidecar_with_another_configuration_is_given_the_right_one(bench: Bench) -> None:
    bench.agent()
    await bench.running()
    bench.sidecars.say(bench.identity(), config_digest="of something else")
    await bench.advance(40)
    wanted = bench.world.wanted[NAMESPACE, "helper"].digest
    assert bench.sidecars.reports[bench.identity()].config_digest == wanted


async def test_a_session_costs_its_agent_one_write_when_it_comes_and_one_when_it_goes(bench: Bench) -> None:
    bench.agent()
    await bench.advance(20)
    bench.api.writes.clear()
    await bench.running()
    await bench.advance(60)
    assert bench.status(AGENTS, "helper")["sessions"] == {"total": 1, "running": 1, "hibernated": 0}
    bench.api.remove(SESSIONS, NAMESPACE, "chat")
    await bench.advance(60)
    assert bench.status(AGENTS, "helper")["sessions"] == {"total": 0, "running": 0, "hibernated": 0}
    assert bench.api.writes.count(("status", "Agent", "helper")) == 2


async def test_a_hundred_sessions_that_become_ready_cost_few_writes_of_their_agent(bench: Bench) -> None:
    bench.policy()
    bench.agent(memoryPolicyRef={"name": "month"})
    await bench.advance(10)
    for number in range(100):
        bench.session(f"chat-{number}")
    await bench.advance(0)
    for number in range(100):
        bench.kubelet(f"chat-{number}")
        await bench.advance(0.02)
    await bench.advance(20)
    assert bench.status(AGENTS, "helper")["sessions"] == {"total": 100, "running": 100, "hibernated": 0}
    assert bench.status(POLICIES, "month")["sessions"] == {"total": 100, "current": 100}
    assert len([write for write in bench.api.writes if write[:2] == ("status", "Agent")]) <= 5
    assert len([write for write in bench.api.writes if write[:2] == ("status", "MemoryPolicy")]) <= 5


async def test_a_policy_counts_the_agents_that_refer_to_it(bench: Bench) -> None:
    bench.policy()
    bench.agent("one", memoryPolicyRef={"name": "month"})
    bench.agent("two", memoryPolicyRef={"name": "month"})
    bench.agent("three")
    await bench.advance(10)
    assert bench.status(POLICIES, "month")["agents"] == 2
    bench.agent("two")
    await bench.advance(10)
    assert bench.status(POLICIES, "month")["agents"] == 1


async def test_nothing_that_was_made_holds_anything_of_a_secret(bench: Bench) -> None:
    bench.agent()
    await bench.running()
    secret = bench.api.find(SECRETS, bench.key_name())
    assert secret is not None
    others = json.dumps([m for (kind, _, _), m in bench.api.objects.items() if kind is not SECRETS])
    assert all(value not in others for value in secret["data"].values())
