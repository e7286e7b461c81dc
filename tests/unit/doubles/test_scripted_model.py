"""The stand-in does what its table says: a test that trusts it is only as good as this."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from doubles.scripted_model.app import ScriptedModel
from doubles.scripted_model.serving import serving


class Endpoint:
    """The stand-in and its official client."""

    def __init__(self, model: ScriptedModel, url: str, client: openai.AsyncOpenAI) -> None:
        self.model = model
        self.url = url
        self.client = client

    async def chat(self, text: str, model: str = "scripted", **options: Any) -> str:
        messages: Any = [{"role": "user", "content": text}]
        answer = await self.client.chat.completions.create(model=model, messages=messages, **options)
        return answer.choices[0].message.content or ""

    async def pieces(self, text: str, model: str = "scripted") -> list[str]:
        messages: Any = [{"role": "user", "content": text}]
        stream = await self.client.chat.completions.create(model=model, messages=messages, stream=True)
        return [c.choices[0].delta.content async for c in stream if c.choices and c.choices[0].delta.content]

    async def raw(self, text: str, stream: bool) -> httpx.Response:
        body = {"model": "scripted", "messages": [{"role": "user", "content": text}], "stream": stream}
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.post(f"{self.url}/chat/completions", json=body)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    model = ScriptedModel()
    async with serving(model) as url, openai.AsyncOpenAI(base_url=url, api_key="k1", max_retries=0) as client:
        yield Endpoint(model, url, client)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("say: hello  there", "hello  there"),
        ("echo: me", "echo: me"),
        ("count-user", "1"),
        ("which-model", "scripted"),
        ("words: 3", "w1 w2 w3"),
        ("slow: 0: a b", "a b"),
        ("stall: 0: a b", "a b"),
        ("stall-after: 1: 0: a b", "a b"),
        ("tag:x say: hello tag:y", "hello"),
        ("My cat is Pixel.", "I will remember that your cat is Pixel."),
        ("What is my cat?", "You have not told me your cat."),
        ("anything", "This is answer 1."),
        ("slow: what: a b", "This is answer 1."),
    ],
)
async def test_a_directive_decides_about_the_answer(endpoint: Endpoint, text: str, answer: str) -> None:
    assert await endpoint.chat(text) == answer
    assert "".join(await endpoint.pieces(text)) == answer
    assert (await endpoint.client.responses.create(model="scripted", input=text)).output_text == answer


async def test_it_remembers_what_the_conversation_says(endpoint: Endpoint) -> None:
    messages: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is my name?"},
    ]
    answer = await endpoint.client.chat.completions.create(model="scripted", messages=messages)
    assert answer.choices[0].message.content == "Your name is Ada."
    messages[-1]["content"] = "history"
    answer = await endpoint.client.chat.completions.create(model="scripted", messages=messages)
    assert [m["role"] for m in json.loads(answer.choices[0].message.content or "")] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("model", "text", "status"),
    [
        ("scripted", "error: 500", 500),
        ("down-503", "say: hi", 503),
        ("unauthorized", "say: hi", 401),
        ("needs-key-k2", "say: hi", 401),
        ("small-window-2", "say: one two", 400),
    ],
)
async def test_an_error_has_its_status(endpoint: Endpoint, model: str, text: str, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await endpoint.chat(text, model=model)
    assert refused.value.status_code == status


async def test_models_that_can_answer_do(endpoint: Endpoint) -> None:
    for model in ("needs-key-k1", "small-window-3", "slow-first-0", "down-under"):
        assert await endpoint.chat("say: one two", model=model) == "one two"


async def test_an_error_can_be_had_a_number_of_times(endpoint: Endpoint) -> None:
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await endpoint.chat("error-times: some-key: 2: 500: done")
    assert await endpoint.chat("error-times: some-key: 2: 500: done") == "done"


@pytest.mark.parametrize("text", ["cut: 2: a b c", "cut: 0: a b c"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_breaks_the_connection(endpoint: Endpoint, text: str, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await endpoint.raw(text, stream)


@pytest.mark.parametrize("text", ["garbage", "wrong-type"])
async def test_a_lie_is_no_answer(endpoint: Endpoint, text: str) -> None:
    answer = await endpoint.raw(text, stream=False)
    assert answer.status_code == 200
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        json.loads(answer.content)


async def test_the_output_limit_cuts_the_answer(endpoint: Endpoint) -> None:
    answer = await endpoint.client.responses.create(model="scripted", input="say: a b c", max_output_tokens=2)
    assert (answer.output_text, answer.status) == ("a b", "incomplete")


async def test_calls_are_counted_by_tag_and_never_show_the_credential(endpoint: Endpoint) -> None:
    await endpoint.chat("say: hi tag:one", temperature=0.5)
    await endpoint.chat("say: hi tag:two")
    async with httpx.AsyncClient(base_url=endpoint.url.removesuffix("/v1"), trust_env=False) as http:
        told = (await http.get("/control/calls", params={"tag": "one"})).text
        everything = (await http.get("/control/calls")).json()
        await http.post("/control/reset")
        assert (await http.get("/control/calls")).json() == {"count": 0, "calls": []}
    report = json.loads(told)
    assert report["count"] == 1
    assert report["calls"][0]["parameters"] == {"temperature": 0.5}
    assert report["calls"][0]["authorization"] is True
    assert report["calls"][0]["ended"] == "complete"
    assert "k1" not in told
    assert everything["count"] == 2


async def test_a_client_that_goes_away_is_noticed(endpoint: Endpoint) -> None:
    asking = asyncio.create_task(endpoint.pieces("stall-after: 1: 3600: a b tag:gone"))
    while endpoint.model.calls.report("gone")["count"] == 0:  # noqa: ASYNC110 - another side of the network
        await asyncio.sleep(0.001)
    asking.cancel()
    while endpoint.model.calls.report("gone")["calls"][0]["ended"] is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert endpoint.model.calls.report("gone")["calls"][0]["ended"] == "aborted"
