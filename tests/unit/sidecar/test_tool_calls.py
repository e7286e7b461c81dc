"""Tool calls in a turn: made once as far as anybody can know, approved where that is needed, and always answered."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tenure_api.configuration import Limits
from tenure_api.tools import Replay
from tenure_api.wire import TurnRequest
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.tools.tool import Attempt, Outcome
from unit.sidecar.looping import LoopingAgent, Round, plays, tells
from unit.sidecar.support import KEY, SESSION, a_turn, until
from unit.sidecar.world import Json, World, a_world, text_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with a_world(tmp_path, LoopingAgent()) as made:
        yield made


def blocking() -> tuple[Any, asyncio.Event, asyncio.Event]:
    """A deed that is held, the event of its beginning and the one that releases it."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def deed(arguments: str, attempt: Attempt) -> Outcome:
        begun.set()
        await release.wait()
        return Outcome(f"did {arguments}")

    return deed, begun, release


def calls_of(turn: Json) -> list[tuple[str, str, str]]:
    return [
        (i["call"]["function"], i["call"]["outcome"], i["call"]["output"])
        for i in turn["output"]
        if i["type"] == "call"
    ]


async def decide(world: World, turn: str, approval: str, approve: bool = True, reason: str = "") -> tuple[int, Json]:
    body = {"decisions": [{"approval": approval, "approve": approve, "reason": reason}]}
    answer = await world.http.post(f"/v1/turns/{turn}/approvals", json=body, headers=world.token(), timeout=20)
    return answer.status_code, answer.json()


async def events_of(world: World, turn: str) -> list[Json]:
    answer = await world.http.get(f"/v1/turns/{turn}/events", headers=world.token(), timeout=20)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def state(world: World, turn: str) -> Json:
    found: Json = (await world.get(f"/v1/turns/{turn}")).json()
    return found


async def crash(world: World) -> None:
    await world.stop()
    await world.start()
    await world.ready()


async def test_the_model_is_given_the_functions_and_the_results(world: World) -> None:
    world.tools.add("add")
    world.model.now(*plays(["add"], "four"))
    turn = (await world.turn("2+2?"))[-1]["turn"]
    assert turn["status"] == "completed"
    assert [tool["function"]["name"] for tool in world.model.requests[0]["tools"]] == ["add"]
    told = world.model.requests[1]["messages"][-1]
    assert told == {"role": "tool", "tool_call_id": "call_0_0", "content": 'did {"n": 0}'}
    assert calls_of(turn) == [("add", "completed", 'did {"n": 0}')]
    assert [item["type"] for item in turn["output"]] == ["call", "message"]


async def test_parallel_calls_run_at_once_and_keep_their_order(world: World) -> None:
    slow, begun, release = blocking()
    world.tools.add("slow", slow)
    world.tools.add("fast")
    world.model.now(*plays(["slow", "fast"], "done"))
    asked = asyncio.create_task(world.turn())
    await begun.wait()
    await until(lambda: world.tools.made("fast"))
    release.set()
    await asked
    assert [m["content"] for m in world.model.requests[1]["messages"][-2:]] == ['did {"n": 0}', 'did {"n": 1}']


async def test_a_function_that_is_not_there_is_an_error_that_the_model_sees(world: World) -> None:
    world.model.now(*plays(["nothing"], "well"))
    turn = (await world.turn())[-1]["turn"]
    assert turn["status"] == "completed"
    assert calls_of(turn)[0][1] == "failed"


async def test_later_turns_show_the_model_calls_and_results_together(world: World) -> None:
    world.tools.add("add")
    world.model.now(*plays(["add"], "four", say="Let me see."))
    await world.turn("2+2?")
    world.model.now(tells("bye"))
    await world.turn("thanks")
    history = world.model.requests[-1]["messages"][1:]
    assert [m["role"] for m in history] == ["user", "assistant", "tool", "assistant", "user"]
    assert history[1]["content"] == "Let me see."
    assert history[1]["tool_calls"][0]["id"] == history[2]["tool_call_id"]
    assert history[3]["content"] == "four"


async def test_text_and_calls_are_items_in_the_order_in_which_they_came(world: World) -> None:
    world.tools.add("add")
    world.model.now(*plays(["add"], "four", say="Let me see."))
    events = await world.turn("2+2?")
    items = events[-1]["turn"]["output"]
    assert [(i["type"], i["text"]) for i in items] == [("message", "Let me see."), ("call", ""), ("message", "four")]
    turn = items[0]["turn"]
    assert [i["id"] for i in items] == [f"msg_{turn}_1", f"mcp_{turn}_1", f"msg_{turn}_3"]
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "ended"
    assert kinds.index("item") > kinds.index("delta")
    assert text_of(events) == "Let me see.four"


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replay", "made", "outcome"),
    [(Replay.SAFE, 2, "completed"), (Replay.IDEMPOTENCY_KEY, 2, "completed"), (Replay.NEVER, 1, "unknown")],
)
async def test_an_interrupted_call_is_settled_by_its_class(
    world: World, replay: Replay, made: int, outcome: str
) -> None:
    deed, begun, release = blocking()
    world.tools.add("pay", deed, replay)
    world.model.now(*plays(["pay"], "done"))
    request = a_turn("pay")
    asked = asyncio.create_task(world.send(request))
    await begun.wait()
    await world.stop()
    asked.cancel()
    release.set()
    await world.start()
    await world.ready()
    turn = (await world.send(request))[-1]["turn"]
    assert turn["status"] == "completed"
    assert len(world.tools.calls) == made
    assert len({attempt.key for _, _, attempt in world.tools.calls}) == 1
    assert calls_of(turn)[0][1] == outcome
    assert len(world.model.requests) == 2, "a model call with a result is not made again"
    report = await world.report()
    if outcome == "unknown":
        assert (report["unknown"]["turn"], report["unknown"]["step"]) == (request.turn, 1)
        assert "unknown" in world.model.requests[-1]["messages"][-1]["content"]
    else:
        assert report["unknown"] is None


async def test_a_settled_call_is_never_made_again(world: World) -> None:
    deed, begun, _ = blocking()
    world.tools.add("first")
    world.tools.add("second", deed, Replay.SAFE)
    world.model.now(*plays(["first"], ["second"], "done"))
    request = a_turn()
    asked = asyncio.create_task(world.send(request))
    await begun.wait()
    await world.stop()
    asked.cancel()
    world.tools.add("second")
    await world.start()
    await world.ready()
    assert (await world.send(request))[-1]["turn"]["status"] == "completed"
    assert world.tools.made("first") == ['{"n": 0}']
    assert len(world.model.requests) == 3


async def test_a_call_outlives_the_agent_that_asked_for_it(world: World) -> None:
    deed, begun, release = blocking()
    world.tools.add("pay", deed, Replay.NEVER)
    world.model.now(*plays(["pay"], "done"))
    asked = asyncio.create_task(world.turn())
    await begun.wait()
    agent = world.agent
    assert isinstance(agent, LoopingAgent)
    await agent.die()
    await until(lambda: len(agent.requests) == 2)
    release.set()
    turn = (await asked)[-1]["turn"]
    assert calls_of(turn) == [("pay", "completed", 'did {"n": 0}')]
    assert len(world.tools.calls) == 1


async def test_parallel_calls_that_come_in_another_order_after_a_crash_are_not_mixed_up(world: World) -> None:
    deed, begun, _ = blocking()
    world.tools.add("one", replay=Replay.SAFE)
    world.tools.add("two", deed, replay=Replay.SAFE)
    world.model.now(*plays(["one", "two"], "done"))
    request = a_turn()
    asked = asyncio.create_task(world.send(request))
    await begun.wait()
    await until(lambda: world.tools.made("one"))
    await world.stop()
    asked.cancel()
    world.tools.add("two")
    agent = world.agent
    assert isinstance(agent, LoopingAgent)
    agent.backwards = True
    await world.start()
    await world.ready()
    turn = (await world.send(request))[-1]["turn"]
    assert turn["status"] == "completed"
    assert [m["content"] for m in world.model.requests[-1]["messages"][-2:]] == ['did {"n": 0}', 'did {"n": 1}']


async def test_an_agent_that_calls_something_else_when_run_again_is_stopped(world: World) -> None:
    deed, begun, _ = blocking()
    world.tools.add("pay", deed, Replay.SAFE)
    world.model.now(*plays(["pay"], "done"))
    request = a_turn()
    asked = asyncio.create_task(world.send(request))
    await begun.wait()
    await world.stop()
    asked.cancel()
    agent = world.agent
    assert isinstance(agent, LoopingAgent)
    agent.rewrite = lambda arguments: '{"n": 99}'
    await world.start()
    await world.ready()
    turn = (await world.send(request))[-1]["turn"]
    assert turn["status"] == "failed"
    assert turn["error"]["code"] == "determinism_error"
    assert [arguments for _, arguments, _ in world.tools.calls] == ['{"n": 0}']


# --- people -----------------------------------------------------------------------------------------------------------


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
    journal = Journal(world.settings.state, Sealer(KEY, SESSION), SESSION, SteadyClock())
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


# --- listeners --------------------------------------------------------------------------------------------------------


async def test_whoever_comes_after_the_end_is_told_the_same(world: World) -> None:
    world.tools.add("add")
    world.model.now(*plays(["add"], "four", say="Let me see."))
    request = a_turn()
    first = await world.send(request)
    assert merged(await events_of(world, request.turn)) == merged(first)
    await crash(world)
    assert merged(await events_of(world, request.turn)) == merged(first)


async def test_text_is_not_told_again_when_the_agent_says_it_again(world: World) -> None:
    deed, begun, release = blocking()
    world.tools.add("slow", deed, Replay.SAFE)
    world.model.now(*plays(["slow"], "four", say="Let me see."))
    agent = world.agent
    assert isinstance(agent, LoopingAgent)
    events = []
    async with aclosing(world.listen(a_turn())) as listening:
        async for event in listening:
            events.append(event)
            if text_of(events) == "Let me see.":
                await begun.wait()
                await agent.die()
                await until(lambda: len(agent.requests) == 2)
                release.set()
    assert text_of(events) == "Let me see.four"
    assert "attempt" not in [event["type"] for event in events]


def merged(events: list[Json]) -> list[Json]:
    """Events, with text in as few pieces as possible."""
    found: list[Json] = []
    for event in events:
        if event["type"] == "delta" and found and found[-1]["type"] == "delta":
            found[-1] = {**event, "text": found[-1]["text"] + event["text"]}
        else:
            found.append(event)
    return found
