"""The turn engine: every turn ends once, on disk before anybody hears of it, whatever happens meanwhile."""

import asyncio
import json
from pathlib import Path

import pytest

from tenure_sidecar.errors import UnreadableError
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn.engine import MOST_WAITING
from tenure_sidecar.turn.workflow import MOST_RERUNS
from unit.sidecar.support import a_policy, a_turn, serving, turn_id, until
from unit.sidecar.world import DONE, Json, Scripted, World, a_world, answers, chunk, says, streams, text_of, whole


async def test_a_turn_is_answered_in_a_stream(world: World) -> None:
    events = await world.turn("hi")
    assert [events[0]["type"], events[-1]["type"]] == ["started", "ended"]
    assert text_of(events) == "Hello there friend"
    turn = events[-1]["turn"]
    assert turn["status"] == "completed"
    assert turn["output"][0]["text"] == "Hello there friend"
    assert turn["usage"] == {"inputTokens": 3, "outputTokens": 2}
    assert turn["finishReason"] == "stop"
    assert await world.texts() == ["hi", "Hello there friend"]


async def test_the_agent_sees_instructions_history_and_input_in_order(world: World) -> None:
    await world.turn("first")
    request = a_turn("second").model_copy(update={"instructions": "Rhyme.", "temperature": 0.5, "max_output_tokens": 9})
    await world.send(request)
    asked = world.container.requests[-1]
    assert [(m["role"], m["content"]) for m in asked["messages"]] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "Hello there friend"),
        ("system", "Rhyme."),
        ("user", "second"),
    ]
    assert (asked["model"], asked["temperature"], asked["max_completion_tokens"]) == ("bot", 0.5, 9)


async def test_an_image_that_ignores_streaming_is_understood(tmp_path: Path) -> None:
    async with a_world(tmp_path, Scripted(answers(200, whole("All at once")))) as world:
        assert text_of(await world.turn()) == "All at once"


async def test_surrogate_pairs_that_are_cut_between_chunks_are_joined(tmp_path: Path) -> None:
    smile = json.dumps("\N{GRINNING FACE}")[1:-1]
    parts = [
        b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % half.encode() for half in (smile[:6], smile[6:])
    ]
    async with a_world(tmp_path, Scripted(streams(*parts, chunk("", "stop"), DONE))) as world:
        events = await world.turn()
        assert events[-1]["turn"]["output"][0]["text"] == "\N{GRINNING FACE}"


async def test_a_turn_sent_again_is_not_run_again(world: World) -> None:
    request = a_turn("hi")
    first, again = await world.send(request), await world.send(request)
    assert text_of(again) == text_of(first)
    assert again[-1] == first[-1]
    assert len(world.model.requests) == 1


async def test_another_turn_of_the_same_name_is_refused(world: World) -> None:
    request = a_turn("hi")
    await world.send(request)
    assert await world.refused(a_turn("other", turn=request.turn)) == (409, "turn_conflict")


async def test_a_running_turn_sent_again_is_joined_with_the_text_so_far(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two three", pause))
    request = a_turn("count")
    first = asyncio.create_task(world.send(request))
    late = world.listen(request)
    await until(lambda: world.session.turns.active)
    assert (await anext(late))["type"] == "started"
    while text_of([await anext(late)]) != "one":
        pass
    latest = world.listen(request)
    assert (await anext(latest))["type"] == "started"
    assert await anext(latest) == {"type": "delta", "text": "one"}
    pause.set()
    events = await first
    assert text_of(events) == "one two three"
    assert [event async for event in late][-1] == events[-1]
    assert len(world.model.requests) == 1


async def test_a_turn_goes_on_when_its_client_leaves(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause))
    request = a_turn("count")
    listening = world.listen(request)
    assert (await anext(listening))["type"] == "started"
    await listening.aclose()
    pause.set()
    await until(lambda: world.session.turns.active is None)
    turn = (await world.get(f"/v1/turns/{request.turn}")).json()
    assert turn["status"] == "completed"
    assert turn["output"][0]["text"] == "one two"


async def test_turns_wait_for_one_another_and_too_many_are_refused(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause))
    first = asyncio.create_task(world.turn("0"))
    await until(lambda: world.session.turns.active)
    waiting = []
    for n in range(MOST_WAITING):
        waiting.append(asyncio.create_task(world.turn(str(n + 1))))
        await until(lambda: world.session.turns._waiting.qsize() == len(waiting))
    assert await world.refused(a_turn("one too many")) == (409, "session_busy")
    pause.set()
    ended = await asyncio.gather(first, *waiting)
    assert all(events[-1]["turn"]["status"] == "completed" for events in ended)
    said = (await world.texts())[::2]
    assert said == [str(n) for n in range(MOST_WAITING + 1)]


async def test_a_turn_that_nobody_waits_for_any_more_is_not_begun(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause))
    first = asyncio.create_task(world.turn("first"))
    await until(lambda: world.session.turns.active)
    leaving = asyncio.create_task(world.turn("leaves"))
    await until(lambda: world.session.turns._waiting.qsize() == 1)
    leaving.cancel()
    await until(lambda: all(live.unheard for live in list(world.session.turns._live.values())[1:]))
    pause.set()
    await first
    await world.turn("second")
    assert (await world.texts())[::2] == ["first", "second"]


async def test_previous_turn_must_be_the_last(world: World) -> None:
    first, second = turn_id(), turn_id()
    assert await world.refused(a_turn(previous=turn_id())) == (409, "previous_turn_not_last")
    await world.turn("1", turn=first)
    await world.turn("2", turn=second, previous=first)
    assert await world.refused(a_turn(previous=first)) == (409, "previous_turn_not_last")
    await world.turn("3", previous=second)


async def test_previous_turn_may_be_the_running_one_if_it_completes(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause), says("fine"))
    running = turn_id()
    first = asyncio.create_task(world.turn("1", turn=running))
    await until(lambda: world.session.turns.active)
    second = asyncio.create_task(world.turn("2", previous=running))
    await until(lambda: world.session.turns._waiting.qsize() == 1)
    pause.set()
    await first
    assert (await second)[-1]["turn"]["status"] == "completed"


async def test_a_turn_after_one_that_failed_follows_the_last_that_completed(world: World) -> None:
    first, failed = turn_id(), turn_id()
    await world.turn("1", turn=first)
    world.model.now(answers(500, {"error": {"message": "no"}}), says("fine"))
    await world.turn("2", turn=failed, previous=first)
    assert await world.refused(a_turn(previous=failed)) == (409, "previous_turn_not_last")
    assert (await world.turn("3", previous=first))[-1]["turn"]["status"] == "completed"
    assert (await world.texts())[::2] == ["1", "3"]


async def test_a_model_that_fails_fails_the_turn_with_its_reason(world: World) -> None:
    world.model.now(answers(500, {"error": {"message": "overloaded", "type": "server_error"}}))
    events = await world.turn()
    turn = events[-1]["turn"]
    assert turn["status"] == "failed"
    assert turn["error"]["code"] == "model_error"
    assert "overloaded" in turn["error"]["message"]
    assert await world.texts() == []


async def test_an_agent_that_dies_is_run_again_and_the_client_is_told(world: World) -> None:
    world.model.now(says("one two", asyncio.Event()), says("three four"))
    world.container.die_after = [1]
    events = await world.turn()
    assert [event["type"] for event in events if event["type"] != "delta"] == ["started", "attempt", "ended"]
    assert text_of(events) == "three four"
    assert len(world.container.requests) == 2


async def test_a_step_with_a_result_is_not_asked_again_after_the_agent_dies(world: World) -> None:
    world.container.asks = [{"user": "a"}, {"user": "b"}]
    world.model.now(answers(200, whole("tool call")), says("the answer"))
    world.container.die_after = [1]
    events = await world.turn()
    assert text_of(events) == "the answer"
    assert [request["user"] for request in world.model.requests].count("a") == 1
    assert events[-1]["turn"]["usage"]["outputTokens"] == 4


async def test_an_agent_that_always_dies_fails_the_turn_in_the_end(world: World) -> None:
    world.container.die_after = [0] * 100
    events = await world.turn()
    assert events[-1]["turn"]["error"]["code"] == "turn_crashed"
    assert len(world.container.requests) == MOST_RERUNS + 1


async def test_an_agent_that_asks_something_else_when_run_again_is_stopped(world: World) -> None:
    world.container.asks = [{"user": "a"}, {"user": "b"}]
    world.model.now(answers(200, whole("tool call")), says("one two", asyncio.Event()))
    world.container.die_after = [1]
    asked = asyncio.create_task(world.turn())
    await until(lambda: len(world.model.requests) == 2)
    world.container.asks = [{"user": "chosen by chance"}, {"user": "b"}]
    events = await asked
    assert events[-1]["turn"]["error"]["code"] == "determinism_error"
    assert len(world.model.requests) == 2


async def test_a_turn_waits_for_an_agent_that_is_not_up_yet(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.stop()
        async with serving(world.agents) as free:
            world.agent_port = free
        await world.start()
        await world.ready()
        asked = asyncio.create_task(world.turn())
        await until(lambda: world.session.turns.active)
        await asyncio.sleep(0.05)
        assert not asked.done()
        async with serving(world.agents, port=world.agent_port):
            assert text_of(await asked) == "Hello there friend"


async def test_the_agent_that_answers_nonsense_fails_the_turn(tmp_path: Path) -> None:
    nonsense: list[Json | bytes] = [b"<html>", {"choices": []}, {"choices": [{"message": {"content": None}}]}]
    async with a_world(tmp_path, Scripted(*(answers(200, body) for body in nonsense))) as world:
        for _ in nonsense:
            assert (await world.turn())[-1]["turn"]["error"]["code"] == "runtime_invalid_response"


async def test_the_error_of_an_agent_is_passed_on(tmp_path: Path) -> None:
    error = {"error": {"message": "I am confused", "code": "confused"}}
    async with a_world(tmp_path, Scripted(answers(400, error), answers(500, b"oops"))) as world:
        assert (await world.turn())[-1]["turn"]["error"] == {"code": "confused", "message": "I am confused"}
        assert (await world.turn())[-1]["turn"]["error"]["code"] == "runtime_error"


async def test_turns_left_out_of_the_window_are_counted(world: World) -> None:
    world.container.cut_turns = 4
    assert (await world.turn())[-1]["turn"]["cutTurns"] == 4


async def test_an_answer_cut_by_the_token_limit_says_so(world: World) -> None:
    world.model.now(streams(chunk("Hel", "length"), DONE))
    assert (await world.turn())[-1]["turn"]["finishReason"] == "length"


# --- over the death of the process -----------------------------------------------------------------------------------


async def test_a_conversation_goes_on_after_a_restart(world: World) -> None:
    await world.turn("1")
    await world.stop()
    await world.start()
    await world.ready()
    await world.turn("2")
    assert await world.texts() == ["1", "Hello there friend", "2", "Hello there friend"]
    assert [m["content"] for m in world.model.requests[-1]["messages"]] == ["Be brief.", "1", "Hello there friend", "2"]


async def test_a_turn_that_was_under_way_completes_by_itself(world: World) -> None:
    pause = asyncio.Event()
    world.model.now(says("one two", pause), says("one two"))
    request = a_turn("count")
    asked = asyncio.create_task(world.send(request))
    await until(lambda: len(world.model.requests) == 1)
    await world.stop()
    asked.cancel()
    await world.start()
    await world.ready()
    await until(lambda: world.session.turns.active is None)
    assert await world.texts() == ["count", "one two"]
    again = await world.send(request)
    assert again[-1]["turn"]["status"] == "completed"
    pause.set()


async def test_a_recorded_step_is_not_asked_again_after_a_restart(world: World) -> None:
    pause = asyncio.Event()
    world.container.asks = [{"user": "a"}, {"user": "b"}]
    world.model.now(answers(200, whole("tool call")), says("one two", pause), says("one two"))
    asked = asyncio.create_task(world.turn("count"))
    await until(lambda: len(world.model.requests) == 2)
    await world.stop()
    asked.cancel()
    await world.start()
    await world.ready()
    await until(lambda: world.session.turns.active is None)
    assert [request["user"] for request in world.model.requests] == ["a", "b", "b"]
    assert await world.texts() == ["count", "one two"]
    pause.set()


async def test_history_that_retention_has_shortened_does_not_make_a_rerun_fail(world: World) -> None:
    await world.turn("old")
    pause = asyncio.Event()
    world.container.asks = [{"user": "a"}, {"user": "b"}]
    world.model.now(answers(200, whole("tool call")), says("one two", pause), says("one two"))
    asked = asyncio.create_task(world.turn("count"))
    await until(lambda: len(world.model.requests) == 3)
    await world.push(world.config.model_copy(update={"policy": a_policy(count=1, interval=1), "agent_generation": 2}))
    await world.stop()
    asked.cancel()
    await world.start()
    world.session._clock.not_before(world.session._clock.now() + 100)
    await world.ready()
    await world.push(
        world.config.model_copy(update={"policy": a_policy(age=50, generation=2, interval=1), "agent_generation": 3})
    )
    await until(lambda: world.session.turns.active is None)
    pause.set()
    turn = [entry for entry in world.session.transcript if entry.end is not None][-1]
    assert turn.end is not None
    assert turn.end.error is None
    assert [request.get("user") for request in world.model.requests].count("a") == 1


async def test_the_end_of_the_agent_ends_the_wait_for_its_turn(world: World) -> None:
    over = asyncio.Event()
    agent = world.agent = Scripted(streams(chunk("one"), then=over, cut=True), streams(then=asyncio.Event()))
    asked = asyncio.create_task(world.turn())
    await until(lambda: agent.requests)
    closing = asyncio.create_task(world.session.close(60))
    await asyncio.sleep(0.01)
    assert not closing.done()
    over.set()
    async with asyncio.timeout(5):
        await closing
    asked.cancel()


async def test_a_full_volume_holds_a_turn_up_and_does_not_lose_it(world: World) -> None:
    journal = world.session._open().journal
    append, failures = journal.append, [0, 0, 0]

    async def failing(turn: str, step: int, kind: str, payload: bytes) -> Record:
        if kind == "turn.end" and failures:
            failures.pop()
            raise UnreadableError("the volume is full")
        return await append(turn, step, kind, payload)

    journal.append = failing  # type: ignore[method-assign]
    world.session.turns._pen._seconds = 0.01
    assert (await world.turn())[-1]["turn"]["status"] == "completed"
    assert failures == []


@pytest.mark.parametrize("moment", range(12))
async def test_no_matter_when_the_process_dies_the_turn_completes_once(world: World, moment: int) -> None:
    world.model.now(says("one two three"))
    request = a_turn("count")
    asked = asyncio.create_task(world.send(request))
    for _ in range(moment * 3):
        await asyncio.sleep(0.0005)
    await world.stop()
    asked.cancel()
    await world.start()
    await world.ready()
    events = await world.send(request)
    assert events[-1]["turn"]["status"] == "completed"
    assert await world.texts() == ["count", "one two three"]


async def test_an_agent_that_gets_further_each_time_is_run_again_as_often_as_it_takes(world: World) -> None:
    steps = MOST_RERUNS + 4
    world.container.stream = False
    world.model.now(answers(200, whole("one step")))
    world.container.asks = [{"n": n} for n in range(steps)]
    world.container.die_after_asks = list(range(1, steps))
    events = await world.turn()
    assert events[-1]["turn"]["error"] is None
    assert len(world.model.requests) == steps
