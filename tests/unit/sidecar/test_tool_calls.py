"""Tool calls in a turn: made once as far as anybody can know, approved where that is needed, and always answered."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from tenure_api.tools import Replay
from tenure_sidecar.asgi import Scope, Send
from unit.sidecar.looping import LoopingAgent, blocking, calls_of, crash, events_of, plays, tells
from unit.sidecar.support import a_turn, until
from unit.sidecar.world import Json, World, a_world, text_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    async with a_world(tmp_path, LoopingAgent()) as made:
        yield made


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


async def test_only_the_run_that_was_interrupted_makes_what_it_said_void(world: World) -> None:
    pause = asyncio.Event()

    async def hang(request: Json, scope: Scope, send: Send) -> None:
        await pause.wait()

    deed, begun, _ = blocking()
    world.tools.add("slow", deed, Replay.SAFE)
    world.model.now(hang, *plays(["slow"], "four"))
    request = a_turn()
    asked = asyncio.create_task(world.send(request))
    await until(lambda: world.model.requests)
    await crash(world)
    await begun.wait()
    await crash(world)
    world.tools.add("slow")
    asked.cancel()
    events = await world.send(request)
    pause.set()
    assert [event["attempt"] for event in events if event["type"] == "attempt"] == [1]
