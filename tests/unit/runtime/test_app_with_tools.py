"""The whole runtime over real connections, in both model APIs: the scripted model plays programs with tools."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from doubles.scripted_model.app import ScriptedModel
from doubles.scripted_model.serving import serving
from harness.model import call, program
from tenure_runtime.app import application
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import ChatCompletionsModel, ResponsesModel, client
from tenure_runtime.settings import Settings
from tenure_runtime.tools import SidecarTools

Json = dict[str, Any]
TOKEN = "pod-token"
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("look", "wait", "forbidden")
]
TWO_ROUNDS = program(
    {"say": "I look. ", "calls": [call("look", {"at": "a"}), call("look", {"at": "b"})]},
    [call("look", "{no json")],
    final="Seen: {0.0}{0.1}{1.0}",
    tag="two",
)


class Sidecar:
    """The model proxy and the tools at one address. The model is scripted; `look` answers with its arguments."""

    def __init__(self) -> None:
        self.model = ScriptedModel(require_api_key=TOKEN)
        self.calls: list[Json] = []
        self.bodies: list[bytes] = []
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        if scope["path"] == "/v1/tools/call":
            await self._tool(json.loads(body), receive, send)
            return
        given = [{"type": "http.request", "body": body}]
        await self.model(scope, lambda: _first(given, receive), send)

    async def _tool(self, asked: Json, receive: Any, send: Any) -> None:
        self.calls.append(asked)
        status, answer = 200, {"output": f"<{asked['arguments']}>", "isError": False}
        if asked["name"] == "forbidden":
            status, answer = 409, {"code": "determinism_error", "message": "Not as before."}
        if asked["name"] == "wait":
            self.running += 1
            while (await receive())["type"] != "http.disconnect":
                pass
            self.running -= 1
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _first(given: list[Any], receive: Any) -> Any:
    return given.pop() if given else await receive()


class Runtime:
    def __init__(self, sidecar: Sidecar, http: httpx.AsyncClient) -> None:
        self.sidecar = sidecar
        self.http = http

    async def ask(self, text: str, **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        body = {"model": "m", "messages": messages, "tools": TOOLS, "stream_options": {"include_usage": True}, **fields}
        return await self.http.post("/chat/completions", json=body)


@pytest.fixture(params=[ChatCompletionsModel, ResponsesModel])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    sidecar = Sidecar()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        serving(sidecar) as below,
        client(Settings(base_url=below, api_key=TOKEN)) as sdk,
        serving(application(AgentLoop(request.param(sdk), SidecarTools(sdk), None), TOKEN)) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as http,
    ):
        yield Runtime(sidecar, http)


def chunks(text: str) -> list[Json]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_program_of_several_rounds_comes_out_as_one_completion(runtime: Runtime, stream: bool) -> None:
    answer = await runtime.ask(TWO_ROUNDS, stream=stream)
    said = 'I look. Seen: <{"at": "a"}><{"at": "b"}><{no json>'
    if stream:
        *deltas, last, usage = chunks(answer.text)
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in deltas) == said
        assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        assert answer.text.endswith("data: [DONE]\n\n")
        assert len({c["id"] for c in (*deltas, last, usage)}) == 1
    else:
        usage = answer.json()
        assert usage["choices"][0]["message"] == {"role": "assistant", "content": said}
    assert [asked["name"] for asked in runtime.sidecar.calls] == ["look"] * 3
    assert {asked["arguments"] for asked in runtime.sidecar.calls} == {'{"at": "a"}', '{"at": "b"}', "{no json"}
    assert usage["usage"]["completion_tokens"] == 2 + 2 + 1 + 5
    assert runtime.sidecar.model.calls.report("two")["count"] == 3
    assert runtime.sidecar.model.calls.refused(None)["count"] == 0


async def test_the_same_request_twice_asks_the_same_byte_by_byte(runtime: Runtime) -> None:
    await runtime.ask(TWO_ROUNDS, stream=True, parallel_tool_calls=False)
    first, runtime.sidecar.bodies = runtime.sidecar.bodies, []
    await runtime.ask(TWO_ROUNDS, stream=True, parallel_tool_calls=False)
    assert runtime.sidecar.bodies == first
    assert len(first) == 6


async def test_a_refused_call_is_an_error_with_the_sidecars_code(runtime: Runtime) -> None:
    text = program([call("forbidden")])
    whole = await runtime.ask(text)
    assert whole.status_code == 409
    assert whole.json()["error"]["code"] == "determinism_error"
    streamed = await runtime.ask(text, stream=True)
    assert (chunks(streamed.text)[-1])["error"]["message"] == "Not as before."
    assert "[DONE]" not in streamed.text


async def test_calls_in_flight_end_when_the_client_goes_away(runtime: Runtime) -> None:
    asking = asyncio.create_task(runtime.ask(program([call("wait"), call("wait")]), stream=True))
    while runtime.sidecar.running < 2:  # noqa: ASYNC110 - what is waited for is another side of the network
        await asyncio.sleep(0.001)
    asking.cancel()
    while runtime.sidecar.running:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_text_is_passed_on_before_the_calls_that_follow_it_end(runtime: Runtime) -> None:
    text = program({"say": "One moment.", "calls": [call("wait")]})
    messages = [{"role": "user", "content": text}]
    body = {"model": "m", "messages": messages, "tools": TOOLS, "stream": True}
    async with runtime.http.stream("POST", "/chat/completions", json=body) as answer:
        seen = ""
        async for piece in answer.aiter_text():
            seen += piece
            if "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(seen)) == "One moment.":
                break
