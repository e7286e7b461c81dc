"""The MCP server of the tests, by the SDK's client: its hints are true, and its effects are counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from doubles.mcp_server.app import KEY, application
from doubles.scripted_model.serving import serving


class Desk:
    """The server's address, and what it has counted."""

    def __init__(self, url: str, app: Any) -> None:
        self.url = f"{url}/mcp"
        self.effects = app.state.effects

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            yield client


@asynccontextmanager
async def running() -> AsyncIterator[Desk]:
    app = application("open")
    async with app.router.lifespan_context(app), serving(app) as url:
        yield Desk(url.removesuffix("/v1"), app)


def meta(key: str) -> Any:
    return {KEY: key}


def text(result: Any) -> str:
    return "".join(part.text for part in result.content)


async def test_its_tools_have_hints_and_arguments() -> None:
    async with running() as desk, desk.client() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    hints = {name: tool.annotations for name, tool in tools.items()}
    assert {name for name, hint in hints.items() if hint and hint.read_only_hint} == {
        "look",
        "authorized",
        "large",
        "slow",
    }
    assert {name for name, hint in hints.items() if hint and hint.idempotent_hint} == {"note"}
    assert {name for name, hint in hints.items() if hint is None} == {"charge", "fail"}
    assert set(tools["charge"].input_schema["properties"]) == {"amount", "tag"}


async def test_only_a_tool_that_may_be_repeated_knows_repetitions() -> None:
    async with running() as desk, desk.client() as client:
        for _ in range(2):
            assert text(await client.call_tool("note", {"text": "hi", "tag": "n"}, meta=meta("k"))) == "noted hi"
            assert text(await client.call_tool("charge", {"amount": 3, "tag": "c"}, meta=meta("k"))) == "charged 3"
            assert text(await client.call_tool("look", {"at": "it", "tag": "l"}, meta=meta("k"))) == "looked at it"
        assert (await client.call_tool("fail", {"tag": "f"})).is_error
        assert len(text(await client.call_tool("large", {"size": 1000}))) == 1000
    counted = {tag: desk.effects.report(tag) for tag in "nclf"}
    assert counted["n"] == {"calls": 2, "effects": 1, "callsByKey": {"k": 2}, "effectsByKey": {"k": 1}}
    assert [counted[tag]["effects"] for tag in "clf"] == [2, 2, 1]


@pytest.mark.parametrize(("key", "told"), [("open", "true"), ("opem", "false")])
async def test_it_tells_whether_the_secret_was_shown(key: str, told: str) -> None:
    async with running() as desk, desk.client(**{"x-api-key": key}) as client:
        assert text(await client.call_tool("authorized", {})).lower() == told


@pytest.mark.parametrize(("where", "count"), [("before", 0), ("after", 1)])
async def test_a_call_waits_at_the_hold_before_or_after_its_effect(where: str, count: int) -> None:
    async with running() as desk, desk.client() as client:
        desk.effects.holds.set(f"c/{where}")
        asking = asyncio.create_task(client.call_tool("charge", {"amount": 3, "tag": "c"}))
        while desk.effects.holds.report(f"c/{where}")["waiting"] != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert desk.effects.report("c")["effects"] == count
        async with httpx2.AsyncClient(trust_env=False) as http:
            release = f"{desk.url.removesuffix('/mcp')}/control/release"
            assert (await http.post(release, params={"name": f"c/{where}"})).status_code == 200
        assert text(await asking) == "charged 3"
    assert desk.effects.report("c")["effects"] == 1
