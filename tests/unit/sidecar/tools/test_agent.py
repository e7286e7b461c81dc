"""Another agent as a tool, over a gateway that the test plays."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tenure_api.configuration import AgentConfig, ToolConfig
from tenure_api.tools import Replay
from tenure_sidecar.tools import agent, attempts
from unit.sidecar.support import serving, until
from unit.sidecar.tools.support import ATTEMPT, TURN, Json, Server, World, a_world, breaks, hangs, says


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(agent, "_FIRST_POLL", 0.001)
    monkeypatch.setattr(agent, "_SLOWEST_POLL", 0.01)


def a_tool(seconds: float = 10) -> ToolConfig:
    tool = ToolConfig(
        name="clerk", description="Knows orders.", agent=AgentConfig(model="shop/clerk", lifetime_seconds=600)
    )
    return tool.model_copy(update={"timeout_seconds": seconds})


def response(status: str, *texts: str, **fields: Any) -> Json:
    output: list[Json] = [{"type": "mcp_call", "name": "x"}]
    output += [{"type": "message", "content": [{"type": "output_text", "text": text}]} for text in texts]
    return {"id": "resp_1", "status": status, "output": output, **fields}


def point(world: World, port: int) -> None:
    world.config = world.config.model_copy(update={"gateway_url": f"http://127.0.0.1:{port}"})


async def asked(tmp_path: Path, server: Server, seconds: float = 10) -> Any:
    async with serving(server) as port, a_world(tmp_path, a_tool(seconds)) as world:
        point(world, port)
        return await world.call("clerk", {"input": "Where is it?"})


async def test_the_agent_is_asked_in_the_background_until_it_has_answered(tmp_path: Path) -> None:
    server = Server(
        says(response("queued")), says(response("in_progress")), says(response("completed", "It is", "sent."))
    )
    outcome = await asked(tmp_path, server)
    assert (outcome.text, outcome.is_error) == ("It is\nsent.", False)
    created, polled, _ = server.asked
    assert created.json() == {
        "model": "shop/clerk",
        "input": "Where is it?",
        "background": True,
        "metadata": {"tenure.turn": TURN, "tenure.step": "7", "tenure.lifetime": "600"},
    }
    assert (created.method, created.path, polled.method, polled.path) == (
        "POST",
        "/v1/responses",
        "GET",
        "/v1/responses/resp_1",
    )
    assert created.headers["idempotency-key"] == ATTEMPT.key
    assert {request.headers["authorization"] for request in server.asked} == {"Bearer token-of-this-pod"}


async def test_the_function_of_an_agent_takes_an_input(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_tool()) as world:
        (function,) = world.tools.functions()
        assert (function.name, function.description) == ("clerk", "Knows orders.")
        assert function.replay is Replay.IDEMPOTENCY_KEY
        assert "'input' is a required property" in (await world.call("clerk", {})).text


async def test_what_fails_meanwhile_is_tried_again_with_the_same_key(tmp_path: Path) -> None:
    done = response("completed", "done")
    server = Server(breaks, says({}, 503), says(response("queued")), breaks, says({}, 500), says(done))
    assert (await asked(tmp_path, server)).text == "done"
    assert {request.headers.get("idempotency-key") for request in server.asked[:3]} == {ATTEMPT.key}


async def test_an_agent_that_waits_for_an_approval_is_waited_for(tmp_path: Path) -> None:
    pending = response("incomplete", incomplete_details={"reason": "approval_required"})
    assert (await asked(tmp_path, Server(says(pending), says(pending), says(response("completed", "ok"))))).text == "ok"


@pytest.mark.parametrize(
    ("found", "text", "is_error"),
    [
        (
            response("failed", error={"code": "x", "message": "the model is down"}),
            "The agent failed: the model is down",
            True,
        ),
        (response("cancelled"), "The agent was stopped before it had answered.", True),
        (response("completed"), "(The agent said nothing.)", False),
        (
            response("incomplete", "cut", incomplete_details={"reason": "max_output_tokens"}),
            "cut\n(The agent's answer is incomplete: max_output_tokens.)",
            False,
        ),
    ],
)
async def test_how_the_agent_ended_is_told(tmp_path: Path, found: Json, text: str, is_error: bool) -> None:
    outcome = await asked(tmp_path, Server(says(found)))
    assert (outcome.text, outcome.is_error, outcome.unknown) == (text, is_error, False)


async def test_what_is_no_character_is_replaced(tmp_path: Path) -> None:
    server = Server(says(response("completed", "half \ud800 of a pair")))
    assert (await asked(tmp_path, server)).text == "half ? of a pair"


async def test_an_agent_that_is_not_allowed_is_an_error(tmp_path: Path) -> None:
    error = {"error": {"message": "there is no model 'shop/clerk'", "code": "model_not_found"}}
    server = Server(says(error, 404))
    outcome = await asked(tmp_path, server)
    assert outcome.text == "The agent cannot be called: the gateway answered 404. there is no model 'shop/clerk'"
    assert (outcome.is_error, len(server.asked)) == (True, 1)


async def test_an_agent_that_takes_too_long_is_told_to_stop(tmp_path: Path) -> None:
    server = Server(says(response("in_progress")))
    outcome = await asked(tmp_path, server, 0.1)
    assert (outcome.is_error, outcome.unknown) == (True, False)
    assert "did not finish within 0.1 s" in outcome.text
    assert (server.asked[-1].method, server.asked[-1].path) == ("POST", "/v1/responses/resp_1/cancel")


async def test_a_gateway_that_never_answers_ends_the_call_in_time(tmp_path: Path) -> None:
    outcome = await asked(tmp_path, Server(hangs), 0.1)
    assert (outcome.is_error, outcome.unknown) == (True, True)


async def test_a_call_that_is_stopped_with_the_process_leaves_the_agent_at_work(tmp_path: Path) -> None:
    server = Server(says(response("in_progress")))
    async with serving(server) as port, a_world(tmp_path, a_tool()) as world:
        point(world, port)
        calling = asyncio.create_task(world.call("clerk", {"input": "?"}))
        await until(lambda: len(server.asked) > 1)
        calling.cancel()
        await asyncio.wait([calling])
    assert not any(request.path.endswith("/cancel") for request in server.asked)


async def test_without_gateway_or_token_the_agent_cannot_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_MOST_ATTEMPTS", 2)
    async with a_world(tmp_path, a_tool()) as world:
        assert "not told where the gateway is" in (await world.call("clerk", {"input": "?"})).text
        point(world, 1)
        assert "is down" in (await world.call("clerk", {"input": "?"})).text
        (tmp_path / "token").unlink()
        assert "no token for the gateway" in (await world.call("clerk", {"input": "?"})).text
