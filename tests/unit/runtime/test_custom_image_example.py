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

PROGRAM = Path(__file__).parents[3] / "examples" / "custom-image" / "agent.py"
MESSAGES: Any = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello."}]


@pytest.fixture
async def agent() -> AsyncIterator[tuple[ScriptedModel, openai.AsyncOpenAI]]:
    model = ScriptedModel(require_api_key="pod-token")
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


async def test_a_short_draft_is_the_answer(agent: tuple[ScriptedModel, openai.AsyncOpenAI]) -> None:
    model, client = agent
    assert await answer(client, "What is my name?") == "Your name is Ada."
    whole = await client.chat.completions.create(model="helper", messages=MESSAGES)
    assert whole.choices[0].message.content == "I will remember that your name is Ada."
    assert model.calls.report(None)["count"] == 2


async def test_a_long_draft_is_shortened_by_a_second_call(agent: tuple[ScriptedModel, openai.AsyncOpenAI]) -> None:
    model, client = agent
    assert await answer(client, "words: 40") == "This is answer 3."
    assert [(call["messages"], call["stream"]) for call in model.calls.report(None)["calls"]] == [(3, False), (5, True)]


async def test_it_passes_errors_on_and_lets_no_stranger_in(agent: tuple[ScriptedModel, openai.AsyncOpenAI]) -> None:
    _, client = agent
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "error: 400"}])
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{client.base_url}chat/completions", json={}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
