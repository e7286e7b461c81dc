"""Frameworks as clients of the gateway: the agents SDK and LangChain converse with an agent that calls tools itself."""

import asyncio
import json

import pytest
import yaml
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI

from harness.kube import eventually
from harness.model import call, program
from harness.node import smoke
from harness.tenure import ROOT, Place

SHOP = ROOT / "examples" / "tools"
STOCK, PIECES = "There are 42 teapots in stock.", {"article": "cup", "pieces": 5}
QUIET = RunConfig(tracing_disabled=True)


def calling(name: str, **arguments: object) -> str:
    """A message on which the scripted model calls one function, and then says what came of it."""
    return program({"say": "Let me see.", "calls": [call(name, arguments)]}, final="Seen: {0.0}")


LOOK = calling("stock", article="teapot")


@pytest.fixture(scope="module")
def clerk(place: Place) -> str:
    """The agent of the example, which talks to the scripted model here."""
    place.kube.apply(*(d for d in yaml.safe_load_all((SHOP / "shop.yaml").read_text()) if d))
    place.kube.run("rollout", "status", "deploy/shop", "--timeout=60s")
    spec = yaml.safe_load((SHOP / "agent.yaml").read_text())["spec"]
    return place.agent("clerk", tools=[tool for tool in spec["tools"] if "http" in tool])


def langchain(place: Place, clerk: str, **options: object) -> ChatOpenAI:
    """LangChain's client of the gateway."""
    return ChatOpenAI(
        model=clerk,
        api_key=place.caller(),
        base_url=f"{place.tenure.gateway.url}/v1",
        timeout=180,
        max_retries=0,
        **options,
    )


def test_the_agents_sdk_converses_with_an_agent_that_calls_tools(place: Place, clerk: str) -> None:
    async def converse() -> None:
        client = place.tenure.client(place.caller())
        conversation = client.conversations.create(metadata={"agent": clerk}).id
        model = OpenAIResponsesModel(clerk, place.tenure.async_client(place.caller()))
        agent = Agent(name="front", instructions="Be brief.", model=model)

        answered = await Runner.run(agent, LOOK, conversation_id=conversation, run_config=QUIET)
        assert answered.final_output == f"Seen: {STOCK}"
        assert [item.type for item in answered.new_items] == [
            "message_output_item",
            "tool_call_item",
            "message_output_item",
        ]

        streaming = Runner.run_streamed(agent, f"{LOOK} ", conversation_id=conversation, run_config=QUIET)
        seen = [event async for event in streaming.stream_events()]
        assert streaming.final_output == f"Seen: {STOCK}"
        assert "tool_called" in [event.name for event in seen if event.type == "run_item_stream_event"]

        counted = await Runner.run(agent, "count-user", conversation_id=conversation, run_config=QUIET)
        assert counted.final_output == "3"
        assert counted.last_response_id is not None
        again = await Runner.run(agent, "count-user", previous_response_id=counted.last_response_id, run_config=QUIET)
        assert again.final_output == "4"

    asyncio.run(converse())


def test_langchain_converses_over_chat_completions(place: Place, clerk: str) -> None:
    conversation = place.session("chain", "clerk")
    chat = langchain(place, clerk, extra_body={"metadata": {"conversation": conversation}})
    said: list[BaseMessage] = [HumanMessage(LOOK)]

    answered = chat.invoke(said)
    assert answered.text == f"Let me see.\n\nSeen: {STOCK}"
    assert isinstance(answered, AIMessage)
    assert not answered.tool_calls
    assert answered.usage_metadata is not None

    said += [answered, HumanMessage(f"{LOOK} ")]
    parts = [part.text for part in chat.stream(said)]
    assert "".join(parts) == f"Let me see.\n\nSeen: {STOCK}"
    assert len(parts) > 2

    said += [AIMessage("".join(parts)), HumanMessage("count-user")]
    assert chat.invoke(said).text == "3"


def test_langchain_converses_over_responses_and_approves_a_call(place: Place, clerk: str) -> None:
    chat = langchain(place, clerk, use_responses_api=True, use_previous_response_id=True)
    said: list[BaseMessage] = [HumanMessage(LOOK)]

    answered = chat.invoke(said)
    assert isinstance(answered, AIMessage)
    assert [block["type"] for block in _blocks(answered)] == ["text", "mcp_call", "text"]
    assert answered.text.endswith(f"Seen: {STOCK}")

    said += [answered, HumanMessage(f"{LOOK} ")]
    streamed: BaseMessage | None = None
    for part in chat.stream(said):
        streamed = part if streamed is None else streamed + part  # type: ignore[assignment]
    assert streamed is not None
    assert [block["type"] for block in _blocks(streamed)] == ["text", "mcp_call", "text"]
    assert streamed.response_metadata["id"].startswith("resp_")

    said += [AIMessage(streamed.content, response_metadata=streamed.response_metadata)]
    said += [HumanMessage(calling("order", **PIECES))]
    asking = chat.invoke(said)
    (asked,) = (block for block in _blocks(asking) if block["type"] == "mcp_approval_request")
    assert json.loads(asked["arguments"]) == PIECES

    decision = {"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}
    done = chat.invoke([*said, asking, HumanMessage([decision])])
    assert done.text.endswith(f"Seen: {json.dumps({**PIECES, 'number': 1})}")
    assert done.response_metadata["id"] == asking.response_metadata["id"]
    eventually(lambda: orders(place) == [{**PIECES, "number": 1}], 10)


def test_the_node_client_sees_calls_and_refuses_one(place: Place, clerk: str) -> None:
    seen = smoke(
        "tools.mjs",
        BASE_URL=f"{place.tenure.gateway.url}/v1",
        TOKEN=place.caller(),
        MODEL=clerk,
        LOOK=LOOK,
        ORDER=calling("order", article="spoon", pieces=1),
    )
    assert seen["events"] == seen["streamed"] == ["message", "mcp_call", "message"]
    assert (seen["asking"], seen["done"], seen["same"]) == ("incomplete", "completed", True)
    assert "not today" in seen["text"]
    assert seen["items"].count("mcp_call") == 2
    assert not any(order["article"] == "spoon" for order in orders(place))


def _blocks(message: BaseMessage) -> list[dict[str, str]]:
    return [block for block in message.content if isinstance(block, dict)]


def orders(place: Place) -> list[dict[str, object]]:
    """What the shop has sold."""
    pod = place.kube.items("pods", "app.kubernetes.io/name=shop")[0]["metadata"]["name"]
    ask = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/orders').read().decode())"
    found: list[dict[str, object]] = json.loads(place.kube.execute(pod, "shop", "python3", "-c", ask))
    return found
