"""Tools of an MCP server: the SDK's own server, over real connections."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context

from tenure_api.configuration import McpConfig, ToolConfig
from tenure_api.tools import Replay
from tenure_sidecar.asgi import Send
from tenure_sidecar.tools import attempts, mcp
from tenure_sidecar.tools.tool import Outcome
from unit.sidecar.support import until
from unit.sidecar.tools.orders import Orders, babbles, breaks, breaks_in_the_middle, hangs, opened, status
from unit.sidecar.tools.support import ATTEMPT, HEADERS, SECRET, World, a_world

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(mcp, "_RETRY_SECONDS", (0.01,))


def a_tool(port: int, seconds: float = 10, replay: Replay | None = None, **fields: Any) -> ToolConfig:
    config = McpConfig(url=f"http://127.0.0.1:{port}/mcp", headers=HEADERS, **fields)
    tool = ToolConfig(name="shop", replay=replay, mcp=config)
    return tool.model_copy(update={"timeout_seconds": seconds})


@pytest.fixture(params=["modern", "legacy", "stateless", "json"])
def options(request: pytest.FixtureRequest) -> Json:
    """The ways in which a server may speak."""
    found: dict[str, Json] = {
        "modern": {},
        "legacy": {"legacy": True},
        "stateless": {"legacy": True, "stateless_http": True},
        "json": {"legacy": True, "json_response": True},
    }
    return found[request.param]


async def test_the_servers_tools_are_functions_and_can_be_called(tmp_path: Path, options: Json) -> None:
    orders = Orders()
    async with opened(orders, **options) as (door, port), a_world(tmp_path, a_tool(port)) as world:
        assert world.tools.health() == []
        assert world.names() == [f"shop__{name}" for name in ("add", "note", "charge", "fail", "picture", "table")]
        add = world.tools.functions()[0]
        assert (add.description, add.parameters["required"]) == ("Adds two numbers.", ["a", "b"])
        assert [function.replay for function in world.tools.functions()][:3] == [
            Replay.SAFE,
            Replay.IDEMPOTENCY_KEY,
            Replay.NEVER,
        ]
        assert await world.call("shop__add", {"a": 1, "b": 2}) == Outcome("3")
        assert (await world.call("shop__note", {"text": "hello"})).text == "hello"
        assert orders.called[-1][1]["tenure.dev/idempotency-key"] == ATTEMPT.key
        failed = await world.call("shop__fail")
        assert (failed.is_error, failed.unknown) == (True, False)
        wrong = await world.call("shop__add", {"a": "many"})
        assert wrong.is_error
        assert "many" in wrong.text
    assert {headers.get("authorization") for headers in door.headers} == {f"Bearer {SECRET}"}


async def test_parts_that_are_no_text_are_described(tmp_path: Path) -> None:
    async with opened(Orders()) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        assert (await world.call("shop__picture")).text.splitlines() == [
            "two parts",
            "(image, image/png, about 3 bytes; it cannot be shown)",
            "(resource order 1: orders://1)",
            "(resource orders://2)",
            "in full",
        ]
        assert json.loads((await world.call("shop__table")).text) == {"rows": [1, 2]}


async def test_a_server_that_is_down_is_told_and_used_when_it_comes(tmp_path: Path) -> None:
    orders = Orders()
    async with opened(orders) as (_, port):
        pass
    async with a_world(tmp_path, a_tool(port)) as world:
        assert world.names() == []
        assert [(health.name, health.reason) for health in world.tools.health()] == [("shop", "Unreachable")]
        async with opened(orders, port):
            await until(world.names)
            assert world.tools.health() == []
            assert (await world.call("shop__add", {"a": 1, "b": 1})).text == "2"


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_server_that_restarts_is_found_again(tmp_path: Path, legacy: bool) -> None:
    first, second = Orders(), Orders()
    async with opened(first) as (_, port):
        pass
    async with a_world(tmp_path, a_tool(port)) as world:
        async with opened(first, port, legacy):
            await until(world.names)
            assert (await world.call("shop__charge")).text == "charged"
        outcome = await world.call("shop__charge")
        assert "is down" in outcome.text
        assert (outcome.is_error, outcome.unknown) == (True, False)
        async with opened(second, port, legacy):
            assert (await world.call("shop__charge")).text == "charged"
            assert (len(first.called), len(second.called)) == (1, 1)


@pytest.mark.parametrize("spoilt", [breaks, breaks_in_the_middle, hangs])
async def test_a_call_without_an_answer_is_settled_by_its_class(tmp_path: Path, options: Json, spoilt: Any) -> None:
    orders = Orders()
    seconds = 0.5 if spoilt is hangs else 10
    async with opened(orders, **options) as (door, port), a_world(tmp_path, a_tool(port, seconds)) as world:
        door.spoilt["tools/call"] = spoilt
        never = await world.call("shop__charge")
        assert (never.is_error, never.unknown) == (True, True)
        assert door.messages.count("tools/call") == 1
        if spoilt is hangs:
            return
        calling = asyncio.create_task(world.call("shop__add", {"a": 1, "b": 1}))
        await until(lambda: door.messages.count("tools/call") > 2)
        del door.spoilt["tools/call"]
        assert (await calling).text == "2"


async def test_what_a_server_refuses_by_status_is_a_plain_error(tmp_path: Path) -> None:
    async with opened(Orders()) as (door, port), a_world(tmp_path, a_tool(port)) as world:
        for code in (401, 500, 503):
            door.spoilt["tools/call"] = status(code)
            outcome = await world.call("shop__charge")
            assert outcome.text == f"The tool's server answered with status {code}: no, [redacted]"
            assert (outcome.is_error, outcome.unknown) == (True, False)
        assert door.messages.count("tools/call") == 3


async def test_a_session_that_the_server_has_forgotten_is_made_anew_and_the_call_with_it(tmp_path: Path) -> None:
    orders = Orders()
    async with opened(orders, legacy=True) as (door, port), a_world(tmp_path, a_tool(port)) as world:
        assert (await world.call("shop__charge")).text == "charged"
        restarted = Orders()
        app = restarted.server.streamable_http_app()
        async with app.router.lifespan_context(app):
            door.app = app
            assert await world.call("shop__charge") == Outcome("charged")
        assert len(restarted.called) == 1


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (status(401), "Unauthorized"),
        (status(503), "InvalidResponse"),
        (babbles, "InvalidResponse"),
        (breaks, "Unreachable"),
    ],
)
async def test_a_server_that_lists_nothing_is_told_by_reason(tmp_path: Path, deed: Any, reason: str) -> None:
    async with opened(Orders()) as (door, port):
        door.spoilt = dict.fromkeys(("server/discover", "initialize", "tools/list"), deed)
        async with a_world(tmp_path, a_tool(port)) as world:
            assert [health.reason for health in world.tools.health()] == [reason]
            assert SECRET not in str(world.tools.health())


@pytest.mark.parametrize(("location", "names"), [("/mcp?moved", 6), ("http://localhost:9/mcp", 0)])
async def test_a_redirect_is_followed_only_to_the_same_server(tmp_path: Path, location: str, names: int) -> None:
    async def moved(send: Send) -> None:
        door.spoilt = {} if names else door.spoilt
        headers = [(b"location", location.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 307, "headers": headers})
        await send({"type": "http.response.body"})

    async with opened(Orders()) as (door, port):
        door.spoilt = dict.fromkeys(("server/discover", "initialize"), moved)
        async with a_world(tmp_path, a_tool(port)) as world:
            assert len(world.names()) == names


async def test_a_missing_credential_keeps_the_server_unasked(tmp_path: Path) -> None:
    async with opened(Orders()) as (door, port):
        world = World(tmp_path, a_tool(port))
        world.credential.unlink()
        running = asyncio.create_task(world.tools.run())
        await world.tools.ready()
        assert [health.reason for health in world.tools.health()] == ["CredentialMissing"]
        assert door.messages == []
        world.credential.write_text("Bearer rotated")
        await until(world.names)
        running.cancel()
        await asyncio.wait([running])
        await world.client.close()


async def test_what_was_listed_is_kept_for_the_next_process(tmp_path: Path) -> None:
    async with opened(Orders()) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        names = world.names()
    kept, world = world.kept, World(tmp_path / "next", a_tool(port))
    world.kept = kept
    await world.tools.ready()
    assert world.names() == names
    assert world.tools.functions()[0].replay is Replay.SAFE
    world.now(a_tool(port + 1))
    assert world.names() == []
    world.kept = {"shop": b"not what we wrote"}
    assert World.made(world).functions() == []


async def test_only_what_is_included_is_offered_and_what_is_missing_is_told(tmp_path: Path) -> None:
    tool_names = ["charge", "refund"]
    async with opened(Orders()) as (_, port), a_world(tmp_path, a_tool(port, include=tool_names)) as world:
        assert world.names() == ["shop__charge"]
        (health,) = world.tools.health()
        assert (health.reason, health.message) == ("InvalidResponse", "the server has no tool of these names: refund")


async def test_names_that_cannot_be_told_apart_are_left_out(tmp_path: Path) -> None:
    orders = Orders()
    orders.server.add_tool(orders.charge, name="get.order")
    orders.server.add_tool(orders.charge, name="get order")
    orders.server.add_tool(orders.charge, name="get/all")
    async with opened(orders) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        assert "shop__get_order" not in world.names()
        assert (await world.call("shop__get_all")).text == "charged"
        (health,) = world.tools.health()
        assert health.reason == "NameConflict"
        assert "get.order, get order" in health.message


async def test_more_tools_than_a_model_takes_are_cut_and_told(tmp_path: Path) -> None:
    orders = Orders()
    for number in range(200):
        orders.server.add_tool(orders.charge, name=f"tool{number}")
    async with opened(orders) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        assert len(world.names()) == 128
        assert "the server has 206 tools" in world.tools.health()[0].message


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_list_that_changes_is_asked_for_again_when_the_server_says_so(tmp_path: Path, legacy: bool) -> None:
    orders = Orders()

    async def grow(context: Context[Any, Any]) -> str:
        orders.server.add_tool(orders.charge, name="late")
        if legacy:
            await context.session.send_tool_list_changed()
        else:
            await context.notify_tools_changed()
        return "grown"

    orders.server.add_tool(grow)
    async with opened(orders, legacy=legacy) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        assert (await world.call("shop__grow")).text == "grown"
        await until(lambda: "shop__late" in world.names())


async def test_a_call_in_flight_outlives_a_change_of_the_configuration(tmp_path: Path) -> None:
    orders = Orders()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    orders.server.add_tool(slow)
    async with opened(orders) as (_, port), a_world(tmp_path, a_tool(port)) as world:
        calling = asyncio.create_task(world.call("shop__slow"))
        await begun.wait()
        world.now()
        await asyncio.sleep(0.01)
        go_on.set()
        assert (await calling).text == "done"
        await until(lambda: len(world.tools._tasks) == 0)


async def test_a_server_that_never_answers_blocks_neither_start_nor_others_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr("tenure_sidecar.tools.toolbox._READY_SECONDS", 0.5)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mute = a_tool(port).model_copy(update={"name": "mute"})
    async with opened(Orders()) as (_, other), a_world(tmp_path, mute, a_tool(other)) as world:
        assert (await world.call("shop__add", {"a": 1, "b": 1})).text == "2"
        await world.tools.ready()
    server.close()


async def test_the_sdk_logs_nothing_of_a_session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(Orders(), legacy=True) as (door, port), a_world(tmp_path, a_tool(port)) as world:
        await world.call("shop__add", {"a": 1, "b": 1})
        door.spoilt["tools/call"] = breaks_in_the_middle
        await world.call("shop__charge")
    said = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("mcp.server"))
    assert SECRET not in said
    ids = {headers["mcp-session-id"] for headers in door.headers if "mcp-session-id" in headers}
    assert ids
    assert not any(id_ in said for id_ in ids)
