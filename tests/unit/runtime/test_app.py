"""The whole runtime over real connections, with the scripted model in the place of the sidecar's proxy."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from doubles.scripted_model.app import ScriptedModel
from doubles.scripted_model.serving import serving
from tenure_runtime.app import application
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import ChatCompletionsModel, ResponsesModel, client
from tenure_runtime.settings import ModelApi, Settings
from tenure_runtime.tools import SidecarTools

TOKEN = "pod-token"


class Runtime:
    """A runtime that serves, and the model that it calls."""

    def __init__(self, model: ScriptedModel, http: httpx.AsyncClient) -> None:
        self.model = model
        self.http = http

    def stream(self, text: str, model: str = "scripted") -> Any:
        return self.http.stream("POST", "/chat/completions", json=body(text, model=model, stream=True))

    async def ask(self, text: str, **fields: Any) -> httpx.Response:
        return await self.http.post("/chat/completions", json=body(text, **fields))


def body(text: str, **fields: Any) -> dict[str, Any]:
    turn = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello."}]
    options = {"stream_options": {"include_usage": True}} if fields.get("stream") else {}
    return {"model": "scripted", "messages": [*turn, {"role": "user", "content": text}], **options, **fields}


def chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def content(text: str) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(text) if c.get("choices"))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for is another side of the network
        await asyncio.sleep(0.001)


async def serve(api: ModelApi, window: int | None = None) -> AsyncIterator[Runtime]:
    model = ScriptedModel(require_api_key=TOKEN)
    async with serving(model) as model_url:
        sdk = client(Settings(base_url=model_url, api_key=TOKEN, api=api))
        speaker = ChatCompletionsModel(sdk) if api == "ChatCompletions" else ResponsesModel(sdk)
        async with serving(application(AgentLoop(speaker, SidecarTools(sdk), window), TOKEN)) as url:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as http:
                yield Runtime(model, http)
        await sdk.close()


@pytest.fixture(params=["ChatCompletions", "Responses"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    async for served in serve(request.param):
        yield served


async def test_it_answers_with_the_usage(runtime: Runtime) -> None:
    answer = (await runtime.ask("What is my name?")).json()
    assert answer["choices"][0]["message"]["content"] == "Your name is Ada."
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 4
    assert runtime.model.calls.report(None)["count"] == 1


async def test_it_streams_with_the_usage_and_an_end(runtime: Runtime) -> None:
    answer = await runtime.ask("say: hello there", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert content(answer.text) == "hello there"
    assert chunks(answer.text)[-1]["usage"]["completion_tokens"] == 2
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_tokens_are_passed_on_while_the_model_still_speaks(runtime: Runtime) -> None:
    async with runtime.stream("stall-after: 2: 3600: one two three") as answer:
        seen = ""
        async for text in answer.aiter_text():
            seen += text
            if content(seen) == "one two":
                break


@pytest.mark.parametrize("text", ["stall: 3600: never", "stall-after: 1: 3600: one two"])
async def test_the_model_call_ends_when_the_client_goes_away(runtime: Runtime, text: str) -> None:
    calling = asyncio.create_task(runtime.ask(f"{text} tag:gone", stream=True))
    await until(lambda: runtime.model.calls.report("gone")["count"] == 1)
    calling.cancel()
    await until(lambda: runtime.model.calls.report("gone")["calls"][0]["ended"] == "aborted")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_error_comes_back_with_its_status_and_shape(runtime: Runtime, stream: bool) -> None:
    answer = await runtime.ask("error: 429", stream=stream)
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == "The script says 429."
    assert runtime.model.calls.report(None)["count"] == 1, "no retries"


@pytest.mark.parametrize("stream", [False, True])
async def test_old_turns_are_left_out_when_the_model_refuses_the_call_as_too_long(
    runtime: Runtime, stream: bool
) -> None:
    answer = await runtime.ask("count-user", model="small-window-4", stream=stream)
    assert answer.status_code == 200
    assert [call["messages"] for call in runtime.model.calls.report(None)["calls"]] == [3, 1]
    cuts = [call["cut_turns"] for call in runtime.model.calls.report(None)["calls"]]
    assert cuts == [None, "1"]


async def test_an_answer_that_breaks_off_has_no_end(runtime: Runtime) -> None:
    answer = await runtime.ask("cut: 2: a b c", stream=True)
    assert content(answer.text) == "a b"
    assert "error" in chunks(answer.text)[-1]
    assert "[DONE]" not in answer.text


async def test_a_model_that_cannot_be_reached_is_an_error_with_a_sentence() -> None:
    sdk = client(Settings(base_url="http://127.0.0.1:9/v1", api_key=TOKEN))
    async with serving(application(AgentLoop(ChatCompletionsModel(sdk), SidecarTools(sdk), None), TOKEN)) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            answer = await http.post("/chat/completions", json=body("hi"))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "model_call_failed"
    await sdk.close()


async def test_garbage_is_an_error_in_the_responses_api() -> None:
    async for runtime in serve("Responses"):
        assert (await runtime.ask("garbage")).status_code == 502
        assert (await runtime.ask("wrong-type")).status_code == 502
        assert (await runtime.ask("garbage", stream=True)).status_code == 502


async def test_responses_are_never_stored_at_the_endpoint() -> None:
    async for runtime in serve("Responses"):
        await runtime.ask("hi", temperature=0, max_completion_tokens=5)
        call = runtime.model.calls.report(None)["calls"][0]
        assert call["api"] == "responses"
        assert call["parameters"] == {"temperature": 0, "max_output_tokens": 5, "store": False}


async def test_chat_completions_keep_fields_that_the_runtime_does_not_know() -> None:
    async for runtime in serve("ChatCompletions"):
        await runtime.ask("hi", store=True, top_p=0.5)
        assert runtime.model.calls.report(None)["calls"][0]["parameters"] == {"top_p": 0.5, "store": True}


async def test_only_the_pods_token_is_let_in(runtime: Runtime) -> None:
    for wrong in ({"Authorization": "Bearer other"}, {"Authorization": TOKEN}, {"Authorization": ""}):
        answer = await runtime.http.post("/chat/completions", json=body("hi"), headers=wrong)
        assert answer.status_code == 401
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert runtime.model.calls.report(None)["count"] == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"messages": []}', '{"messages": "hi"}'])
async def test_a_bad_body_is_refused_with_a_sentence(runtime: Runtime, text: str) -> None:
    answer = await runtime.http.post("/chat/completions", content=text)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_text_that_is_not_unicode_is_refused(runtime: Runtime) -> None:
    broken = '{"model": "scripted", "messages": [{"role": "user", "content": "\\ud800"}]}'
    answer = await runtime.http.post("/chat/completions", content=broken)
    assert answer.status_code == 400


async def test_health_needs_no_token(runtime: Runtime) -> None:
    answer = await runtime.http.get(
        str(runtime.http.base_url.copy_with(path="/healthz")), headers={"Authorization": ""}
    )
    assert answer.status_code == 200
