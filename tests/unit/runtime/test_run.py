"""Several runs at once: every model and tool call says which run it is for, and only if the sidecar has said so."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from doubles.scripted_model.serving import serving
from harness.model import call, program
from tenure_api.wire import RUN_HEADER
from tenure_runtime.app import application
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import ChatCompletionsModel, ResponsesModel, client
from tenure_runtime.settings import Settings
from tenure_runtime.tools import SidecarTools
from unit.runtime.test_app_with_tools import TOKEN, TOOLS, Sidecar

Json = dict[str, Any]
ROUNDS = program([call("look", {"at": "a"}), call("look", {"at": "b"})], final="Seen: {0.0}{0.1}", tag="run")


class Listening(Sidecar):
    """Remembers the run that each request named."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[tuple[str, str | None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        header = dict(scope["headers"]).get(RUN_HEADER.lower().encode())
        self.named.append((scope["path"], header.decode() if header is not None else None))
        await super().__call__(scope, receive, send)


@pytest.fixture
def sidecar() -> Listening:
    return Listening()


@pytest.fixture(params=[ChatCompletionsModel, ResponsesModel])
async def http(request: pytest.FixtureRequest, sidecar: Listening) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        serving(sidecar) as below,
        client(Settings(base_url=below, api_key=TOKEN)) as sdk,
        serving(application(AgentLoop(request.param(sdk), SidecarTools(sdk), None), TOKEN)) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as made,
    ):
        yield made


async def run(http: httpx.AsyncClient, name: str | None) -> str:
    body = {"model": "scripted", "tools": TOOLS, "messages": [{"role": "user", "content": ROUNDS}]}
    headers = {RUN_HEADER: name} if name is not None else {}
    answer = await http.post("/chat/completions", json=body, headers=headers)
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_all_calls_of_a_run_name_it_also_when_runs_go_on_side_by_side(
    http: httpx.AsyncClient, sidecar: Listening
) -> None:
    names = [f"run-{n}" for n in range(8)]
    said = await asyncio.gather(*(run(http, name) for name in names))
    assert len(set(said)) == 1
    for name in names:
        mine = [path for path, named in sidecar.named if named == name]
        assert len(mine) == 4, "two model calls and two calls of tools"
        assert mine.count("/v1/tools/call") == 2
    assert len(sidecar.named) == 4 * len(names)


async def test_a_run_without_a_name_gets_none(http: httpx.AsyncClient, sidecar: Listening) -> None:
    assert await run(http, None)
    assert {named for _, named in sidecar.named} == {None}
