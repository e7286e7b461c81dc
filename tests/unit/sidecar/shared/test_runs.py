"""Whose call of the model or of a tool it is: the name of a run is a secret between the host and that run."""

import asyncio

import pytest

from unit.sidecar.shared.world import HostWorld
from unit.sidecar.support import until
from unit.sidecar.world import POD_TOKEN


async def test_every_run_has_another_name(world: HostWorld) -> None:
    uids = [await world.register() for _ in range(3)]
    for uid in (*uids, *uids):
        await world.turn(uid)
    assert len(set(world.agent.runs)) == 6
    assert all(len(run) >= 32 for run in world.agent.runs)


@pytest.mark.parametrize("lie", ["", "x" * 32])
async def test_a_call_that_names_no_run_is_nobodys(world: HostWorld, lie: str) -> None:
    uid = await world.register()
    world.agent.lie = lie
    turn = await world.turn(uid)
    assert turn["status"] == "failed"


async def test_a_run_that_is_over_has_no_name_any_more(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    await world.turn(ada)
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.turn(bob, "slowly"))
    await until(lambda: len(world.agent.runs) == 2)
    answer = await world.http.post(
        f"http://127.0.0.1:{world.proxy_port}/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
        headers={"authorization": f"Bearer {POD_TOKEN}", "x-tenure-run": world.agent.runs[0]},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_turn")
    world.agent.hold.set()
    assert (await slow)["status"] == "completed"


async def test_parallel_calls_of_tools_reach_the_session_that_they_are_of(world: HostWorld) -> None:
    world.tools.add("look")
    uids = {name: await world.register(name) for name in ("ada", "bob", "eve")}
    turns = await asyncio.gather(*(world.turn(uid, f"call:look call:look {name}") for name, uid in uids.items()))
    for name, turn in zip(uids, turns, strict=True):
        calls = [item["call"] for item in turn["output"] if item.get("call")]
        assert len(calls) == 2
        assert all(name in call["arguments"] for call in calls)
    keys = {attempt.key for _, _, attempt in world.tools.calls}
    assert len(keys) == 6, "no two calls have the same idempotency key"
