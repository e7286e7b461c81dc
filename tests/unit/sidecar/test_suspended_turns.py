"""Turns that wait for a person or a time, are cancelled, or come to a limit: nothing is lost and nothing done twice."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tenure_api.configuration import Limits
from tenure_api.tools import Replay
from tenure_api.wire import TurnRequest
from tenure_sidecar.tools.tool import Attempt, Outcome
from unit.sidecar.looping import LoopingAgent, Round, blocking, calls_of, crash, decide, events_of, plays, state, tells
from unit.sidecar.support import a_turn, open_journal, until
from unit.sidecar.world import Json, World, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with a_world(tmp_path, LoopingAgent()) as made:
        yield made


async def pending(world: World, request: TurnRequest, *first: Any) -> tuple[list[Json], str]:
    """A turn that waits for approval of a payment; its events, and the id to decide on."""
    world.tools.add("pay", approval=True)
    world.tools.add("look", replay=Replay.SAFE)
    world.model.now(*plays(*(first or (["pay"],)), "paid"))
    events = await world.send(request)
    assert events[-1]["type"] == "suspended"
    asked = [i["approval"]["id"] for i in events[-1]["turn"]["output"] if i["type"] == "approval"]
    return events, asked[0]


@pytest.mark.parametrize("crashes", [0, 3])
async def test_an_approved_call_is_made_once_however_often_the_pod_dies_meanwhile(world: World, crashes: int) -> None:
    request = a_turn("pay")
    events, approval = await pending(world, request, ["pay", "look"])
    assert events[-1]["turn"]["status"] == "awaiting_approval"
    for _ in range(crashes):
        await crash(world)
        assert await events_of(world, request.turn) == events
    report = await world.report()
    assert report["suspended"]["approvals"][0]["id"] == approval
    assert report["suspended"]["approvals"][0]["arguments"] == ""
    assert report["activeTurn"] is None
    status, turn = await decide(world, request.turn, approval)
    assert (status, turn["resumptions"]) == (200, 1)
    after = await events_of(world, request.turn)
    assert after[-1]["turn"]["status"] == "completed"
    assert world.tools.made("pay") == ['{"n": 0}']
    assert world.tools.made("look") == ['{"n": 1}']
    assert after[: len(events)] == events, "what was told before is told again"
    assert [i["type"] for i in after[-1]["turn"]["output"]] == ["approval", "call", "call", "message"]
    assert (await world.report())["suspended"] is None


async def test_a_refused_call_is_not_made_and_the_model_is_told_why(world: World) -> None:
    request = a_turn("pay")
    _, approval = await pending(world, request)
    await decide(world, request.turn, approval, approve=False, reason="too much")
    turn = (await events_of(world, request.turn))[-1]["turn"]
    assert turn["status"] == "completed"
    assert world.tools.calls == []
    assert calls_of(turn)[0][1] == "refused"
    assert "too much" in world.model.requests[-1]["messages"][-1]["content"]


async def test_a_decision_can_be_repeated_but_not_changed(world: World) -> None:
    request = a_turn("pay")
    _, approval = await pending(world, request)
    assert (await decide(world, request.turn, approval))[0] == 200
    assert (await decide(world, request.turn, approval))[0] == 200
    status, failure = await decide(world, request.turn, approval, approve=False)
    assert (status, failure["code"]) == (409, "already_decided")
    await events_of(world, request.turn)
    assert (await decide(world, request.turn, approval))[0] == 200
    assert (await decide(world, request.turn, approval, approve=False))[0] == 409
    assert len(world.tools.calls) == 1


async def test_who_decided_is_in_the_journal(world: World) -> None:
    request = a_turn("pay")
    _, approval = await pending(world, request)
    await decide(world, request.turn, approval)
    await events_of(world, request.turn)
    await world.stop()
    journal = open_journal(world.settings.state)
    try:
        kinds = {record.kind: record.payload for record in journal.records(turn=request.turn)}
    finally:
        journal.abandon()
    assert "by" in json.loads(kinds["approval.decided"])


async def test_while_a_decision_is_missing_no_other_turn_is_taken(world: World) -> None:
    request = a_turn("pay")
    _, approval = await pending(world, request)
    assert await world.refused(a_turn("something else")) == (409, "approval_pending")
    await decide(world, request.turn, approval)
    await events_of(world, request.turn)
    world.model.now(tells("hello"))
    assert (await world.turn("something else"))[-1]["turn"]["status"] == "completed"


async def test_an_approval_of_nothing_is_not_found(world: World) -> None:
    request = a_turn("pay")
    await pending(world, request)
    assert (await decide(world, request.turn, f"mcpr_{request.turn}_77"))[0] == 404


# --- time, cancelling, limits -----------------------------------------------------------------------------------------


async def test_a_turn_that_waits_goes_on_by_itself_also_after_a_restart(world: World) -> None:
    world.tools.add_wait()
    world.model.now(*plays([("wait_until", '{"seconds": 1.5}')], "morning"))
    request = a_turn("wake me")
    asked = asyncio.create_task(world.send(request))
    await until(lambda: world.session.turns.suspension())
    assert (await world.report())["suspended"]["until"] is not None
    assert (await state(world, request.turn))["status"] == "in_progress"
    await world.stop()
    asked.cancel()
    await world.start()
    await world.ready()
    turn = (await world.send(request))[-1]["turn"]
    assert turn["status"] == "completed"
    assert "over" in calls_of(turn)[0][2]


@pytest.mark.parametrize("arguments", ["{}", '{"time": "soon"}', '{"seconds": 4000}', "[]", "no json"])
async def test_a_wait_that_makes_no_sense_is_an_error_that_the_model_sees(world: World, arguments: str) -> None:
    world.tools.add_wait(most=3600)
    world.model.now(*plays([("wait_until", arguments)], "well"))
    turn = (await world.turn())[-1]["turn"]
    assert turn["status"] == "completed"
    assert calls_of(turn)[0][1] == "failed"


async def test_a_cancelled_turn_ends_at_once_and_its_unsettled_call_is_reported(world: World) -> None:
    deed, begun, _ = blocking()
    world.tools.add("pay", deed, Replay.NEVER)
    world.model.now(*plays(["pay"], "done"))
    request = a_turn()
    asked = asyncio.create_task(world.send(request))
    await begun.wait()
    answer = await world.http.post(f"/v1/turns/{request.turn}/cancel", headers=world.token(), timeout=20)
    assert answer.json()["status"] == "cancelled"
    turn = (await asked)[-1]["turn"]
    assert turn["status"] == "cancelled"
    assert calls_of(turn)[0][1] == "unknown"
    assert await world.texts() == []
    world.model.now(tells("hello"))
    assert (await world.turn("next"))[-1]["turn"]["status"] == "completed"


async def test_a_turn_that_waits_for_approval_can_be_cancelled(world: World) -> None:
    request = a_turn("pay")
    await pending(world, request)
    answer = await world.http.post(f"/v1/turns/{request.turn}/cancel", headers=world.token(), timeout=20)
    assert answer.json()["status"] == "cancelled"
    assert world.tools.calls == []


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(max_steps=5), "max_steps_reached"),
        (Limits(max_tokens=11), "max_tokens_reached"),
        (Limits(max_duration_seconds=1), "max_duration_reached"),
    ],
)
async def test_a_turn_ends_at_its_limit_and_the_next_one_works(world: World, limits: Limits, code: str) -> None:
    async def deed(arguments: str, attempt: Attempt) -> Outcome:
        await asyncio.sleep(0.05)
        return Outcome("again")

    world.tools.add("again", deed, Replay.SAFE)
    generation = world.config.agent_generation + 1
    await world.push(world.config.model_copy(update={"limits": limits, "agent_generation": generation}))
    again: list[Round | str] = [["again"]] * 50
    world.model.now(*plays(*again, "never"))
    turn = (await world.turn())[-1]["turn"]
    assert turn["status"] == "failed"
    assert turn["error"]["code"] == code
    world.model.now(tells("hello"))
    assert (await world.turn("next"))[-1]["turn"]["status"] == "completed"
    assert await world.texts() == ["next", "hello"]
