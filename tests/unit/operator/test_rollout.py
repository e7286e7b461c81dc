"""A new pod template replaces pods one at a time for each agent, between turns, and stops at the first that fails."""

from dataclasses import replace

import pytest

from tenure_api.names import session_pod
from tenure_operator.kinds import AGENTS, PODS, SESSIONS
from unit.operator.bench import NAMESPACE, SETTINGS, Bench
from unit.operator.fake_api import FakeApi

NEWER = replace(SETTINGS, image="tenure/runtime:2")
SESSION_NAMES = ("one", "two", "three")


async def upgraded(api: FakeApi, before: Bench) -> Bench:
    """The operator after `helm upgrade`, with a new image for all pods."""
    return await Bench(api, before.sidecars, NEWER, before.clock).start()


@pytest.fixture
async def bench() -> Bench:
    bench = await Bench(FakeApi()).start()
    bench.agent()
    for name in SESSION_NAMES:
        await bench.running(name)
    await bench.advance(40)
    return await upgraded(bench.api, bench)


def ending(bench: Bench) -> list[str]:
    return [
        n
        for n in SESSION_NAMES
        if "deletionTimestamp" in bench.api.objects[PODS, NAMESPACE, session_pod(n)]["metadata"]
    ]


def image(bench: Bench, session: str) -> str:
    return str(bench.api.objects[PODS, NAMESPACE, session_pod(session)]["spec"]["containers"][0]["image"])


async def replaced(bench: Bench) -> str:
    """Lets the one pod that is ending come back with the new image; returns its session."""
    (session,) = ending(bench)
    bench.pod_is_gone(session)
    await bench.advance(0.1)
    assert bench.condition(SESSIONS, session) == ("False", "PodStarting")
    bench.kubelet(session)
    return session


async def test_pods_are_replaced_one_at_a_time_until_all_are_new(bench: Bench) -> None:
    seen = []
    for _ in SESSION_NAMES:
        await bench.advance(5)
        assert len(ending(bench)) == 1
        seen.append(await replaced(bench))
    await bench.advance(60)
    assert sorted(seen) == sorted(SESSION_NAMES)
    assert {image(bench, name) for name in SESSION_NAMES} == {"tenure/runtime:2"}
    assert all(bench.condition(SESSIONS, name) == ("True", "Ready") for name in SESSION_NAMES)
    assert all(bench.condition(SESSIONS, name, "Reconciling") is None for name in SESSION_NAMES)


async def test_those_that_wait_go_on_taking_turns_and_say_so(bench: Bench) -> None:
    await bench.advance(5)
    waiting = [name for name in SESSION_NAMES if name not in ending(bench)]
    for name in waiting:
        assert bench.condition(SESSIONS, name) == ("True", "Ready")
        assert bench.condition(SESSIONS, name, "Reconciling") == ("True", "Ready")
        assert "podIP" in bench.status(SESSIONS, name)
    assert bench.condition(SESSIONS, ending(bench)[0]) == ("False", "Updating")


async def test_a_pod_is_not_replaced_while_its_turn_runs(bench: Bench) -> None:
    uids = {name: bench.identity(name) for name in SESSION_NAMES}
    for uid in uids.values():
        bench.sidecars.say(uid, active_turn="0" * 32)
    await bench.advance(300)
    assert ending(bench) == []
    bench.sidecars.say(uids["two"], active_turn=None)
    await bench.advance(30)
    assert ending(bench) == ["two"]


async def test_a_turn_that_began_since_the_last_report_is_noticed(bench: Bench) -> None:
    await bench.advance(0)
    (first,) = ending(bench)
    others = [name for name in SESSION_NAMES if name != first]
    for name in others:
        bench.sidecars.say(bench.identity(name), active_turn="0" * 32)
    await replaced(bench)
    await bench.advance(1)  # their last reports still say that they are idle
    assert ending(bench) == []


async def test_a_place_that_was_not_given_back_is_taken_from_one_that_is_done(bench: Bench) -> None:
    await bench.advance(5)
    first = await replaced(bench)
    assert bench.rollout.take((NAMESPACE, "helper"), (NAMESPACE, first))
    await bench.advance(60)
    assert len(ending(bench)) == 1
    assert first not in ending(bench)


async def test_a_bad_image_stops_at_the_first_session(bench: Bench) -> None:
    await bench.advance(5)
    (first,) = ending(bench)
    bench.pod_is_gone(first)
    await bench.advance(0.1)
    held = {"name": "agent", "image": "tenure/runtime:2", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    bench.kubelet(first, ready=False, containerStatuses=[held])
    await bench.advance(600)
    assert bench.condition(SESSIONS, first, "Stalled") == ("True", "PodFailing")
    assert [name for name in SESSION_NAMES if image(bench, name) == "tenure/runtime:1"] == [
        name for name in SESSION_NAMES if name != first
    ]
    assert ending(bench) == []


async def test_a_pod_of_no_use_is_replaced_at_once_by_a_mended_template(bench: Bench) -> None:
    await bench.advance(5)
    (first,) = ending(bench)
    bench.pod_is_gone(first)
    await bench.advance(0.1)
    bench.kubelet(first, ready=False)
    await bench.advance(30)
    mended = await Bench(bench.api, bench.sidecars, replace(SETTINGS, image="tenure/runtime:3"), bench.clock).start()
    await mended.advance(5)
    assert ending(mended) == [first]


async def test_an_agent_says_that_its_sessions_do_not_start_and_how_many_go_on(bench: Bench) -> None:
    await bench.advance(5)
    (first,) = ending(bench)
    bench.pod_is_gone(first)
    await bench.advance(0.1)
    held = {"name": "agent", "image": "tenure/runtime:2", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    bench.kubelet(first, ready=False, containerStatuses=[held])
    await bench.advance(60)
    assert bench.condition(AGENTS, "helper", "RolloutBlocked") == ("True", "SessionsFailing")
    message = bench.message(AGENTS, "helper", "RolloutBlocked")
    assert f"AgentSession {first} does not start" in message
    assert "2 sessions go on with the previous one" in message
    bench.kubelet(first, containerStatuses=[])
    await bench.advance(60)
    assert bench.condition(AGENTS, "helper", "RolloutBlocked") is None


async def test_a_session_names_the_revision_that_it_runs(bench: Bench) -> None:
    before = {bench.status(SESSIONS, name)["revision"] for name in SESSION_NAMES}
    assert len(before) == 1
    await bench.advance(5)
    first = await replaced(bench)
    await bench.advance(40)
    wanted = bench.status(AGENTS, "helper")["revision"]
    assert bench.status(SESSIONS, first)["revision"] == wanted
    assert wanted not in before
