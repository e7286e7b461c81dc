"""Frameworks that people build with, unchanged, against the gateway."""

from typing import Any

import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

from unit.gateway.courses import Used
from unit.gateway.world import World

MODEL = "shop/helper"
OFFLINE = RunConfig(tracing_disabled=True)


@pytest.fixture
async def helper(world: World) -> World:
    """A world whose agent uses a tool before it answers."""
    world.speech = lambda heard: ["I look. ", Used("look"), f"You said {heard[-1]}."]
    world.session("mine")
    return world


async def test_the_agents_sdk_runs_a_conversation_over_responses(helper: World, client: AsyncOpenAI) -> None:
    agent = Agent(name="a", instructions="be kind", model=OpenAIResponsesModel(MODEL, client))
    first = await Runner.run(agent, "one", run_config=OFFLINE)
    assert first.final_output == "You said one."
    second = await Runner.run(agent, "two", previous_response_id=first.last_response_id, run_config=OFFLINE)
    assert second.final_output == "You said two."
    (key,) = [key for key in helper.sessions if key.name != "mine"]
    assert [request.instructions for request in helper.pod(key).requests] == ["be kind", "be kind"]


async def test_the_agents_sdk_streams(helper: World, client: AsyncOpenAI) -> None:
    agent = Agent(name="a", model=OpenAIResponsesModel(MODEL, client))
    run = Runner.run_streamed(agent, "one", run_config=OFFLINE)
    kinds = [event.type async for event in run.stream_events()]
    assert "raw_response_event" in kinds
    assert run.final_output == "You said one."


async def test_the_agents_sdk_runs_over_chat_completions(helper: World, client: AsyncOpenAI) -> None:
    agent = Agent(name="a", model=OpenAIChatCompletionsModel(MODEL, client))
    assert (await Runner.run(agent, "one", run_config=OFFLINE)).final_output == "I look. \n\nYou said one."


def langchain(world: World, **more: Any) -> ChatOpenAI:
    """LangChain's client."""
    return ChatOpenAI(model=MODEL, base_url=f"{world.url}/v1", api_key=lambda: world.alice, max_retries=0, **more)


@pytest.mark.parametrize("responses", [False, True])
async def test_langchain_asks_and_streams(helper: World, responses: bool) -> None:
    chat = langchain(helper, use_responses_api=responses)
    answer = await chat.ainvoke("one")
    assert "You said one." in answer.text
    streamed = [chunk.text async for chunk in chat.astream("one")]
    assert "You said one." in "".join(streamed)
    assert len(streamed) > 2


async def test_langchain_stays_in_a_session(helper: World) -> None:
    chat = langchain(helper, default_headers={"X-Tenure-Session": "shop/mine"})
    await chat.ainvoke("one")
    assert "You said two." in (await chat.ainvoke("two")).text
    assert len(helper.sessions) == 1
