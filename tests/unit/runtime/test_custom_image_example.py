"""The example of a user's own image: the real program, with the scripted model in the place of the sidecar's proxy."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from doubles.scripted_model.app import ScriptedModel
from doubles.scripted_model.serving import serving
from harness.model import call, program
from tenure_api.wire import ToolAnswer, ToolCall

PROGRAM = Path(__file__).parents[3] / "examples" / "custom-image" / "agent.py"
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
MESSAGES: Any = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello."}]


class Sidecar(ScriptedModel):
    """The scripted model, with tools beside it: `look` answers with its arguments."""

    def __init__(self) -> None:
        super().__init__(require_api_key="pod-token")
        self.tool_calls: list[ToolCall] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/v1/tools/call":
            await super().__call__(scope, receive, send)
            return
        assert (b"authorization", b"Bearer pod-token") in scope["headers"]
        asked = ToolCall.model_validate_json((await receive())["body"])
        self.tool_calls.append(asked)
        status = 409 if asked.arguments == '"forbidden"' else 200
        answer = ToolAnswer(output=f"<{asked.arguments}>").model_dump_json(by_alias=True)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer.encode()})


@pytest.fixture
async def agent() -> AsyncIterator[tuple[Sidecar, openai.AsyncOpenAI]]:
    model = Sidecar()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with serving(model) as url:
        environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "pod-token", "PORT": str(port)}
        process = await asyncio.create_subprocess_exec(sys.executable, PROGRAM, env=environment)
        base = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="pod-token", max_retries=20) as client:
            yield model, client
        process.terminate()
        assert await process.wait() == 0


async def answer(client: openai.AsyncOpenAI, text: str) -> str:
    messages = [*MESSAGES, {"role": "user", "content": text}]
    stream = await client.chat.completions.create(model="helper", messages=messages, stream=True)
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def test_a_short_draft_is_the_answer(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    model, client = agent
    assert await answer(client, "What is my name?") == "Your name is Ada."
    whole = await client.chat.completions.create(model="helper", messages=MESSAGES)
    assert whole.choices[0].message.content == "I will remember that your name is Ada."
    assert model.calls.report(None)["count"] == 2


async def test_a_long_draft_is_shortened_by_a_second_call(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    model, client = agent
    assert await answer(client, "words: 40") == "This is answer 3."
    assert [(call["messages"], call["stream"]) for call in model.calls.report(None)["calls"]] == [(3, False), (5, True)]


async def test_tools_are_called_until_the_model_needs_no_more(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    model, client = agent
    rounds = [[call("look", {"at": n}) for n in range(3)], [call("look", "{no json")]]
    messages: Any = [{"role": "user", "content": program(*rounds, final="{0.0}{0.1}{0.2}{1.0}", tag="looks")}]
    said = await client.chat.completions.create(model="helper", messages=messages, tools=TOOLS)
    assert said.choices[0].message.content == '<{"at": 0}><{"at": 1}><{"at": 2}><{no json>'
    assert len(model.tool_calls) == 4
    assert model.calls.report("looks")["count"] == 3
    assert model.calls.refused(None)["count"] == 0


async def test_a_draft_that_tools_made_long_is_shortened_too(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    model, client = agent
    text = program([call("look")], final=" ".join(["w"] * 40))
    messages: Any = [{"role": "user", "content": text}]
    stream = await client.chat.completions.create(model="helper", messages=messages, tools=TOOLS, stream=True)
    said = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert said == "This is answer 2."
    assert [recorded["messages"] for recorded in model.calls.report(None)["calls"]] == [1, 3, 5]


async def test_a_refused_tool_call_ends_the_turn(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    _, client = agent
    await answer(client, "hi")  # it is up: from now on nothing need be tried again
    messages: Any = [{"role": "user", "content": program([call("look", '"forbidden"')])}]
    with pytest.raises(openai.ConflictError):
        await client.with_options(max_retries=0).chat.completions.create(model="helper", messages=messages, tools=TOOLS)


async def test_it_passes_errors_on_and_lets_no_stranger_in(agent: tuple[Sidecar, openai.AsyncOpenAI]) -> None:
    _, client = agent
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "error: 400"}])
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{client.base_url}chat/completions", json={}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
