"""Official OpenAI clients, unchanged, hold conversations with agents."""

import openai
import pytest

from harness.kube import eventually
from harness.node import smoke
from harness.tenure import Place


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent("helper", instructions="You are the test's helper.")


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def test_models_are_the_agents_the_caller_may_use(client: openai.OpenAI, agent: str) -> None:
    assert [model.id for model in client.models.list()] == [agent]


def test_three_turns_by_conversation(client: openai.OpenAI, agent: str) -> None:
    conversation = client.conversations.create(metadata={"agent": agent, "topic": "names"})
    client.responses.create(model=agent, conversation=conversation.id, input="My name is Ada.")
    client.responses.create(model=agent, conversation=conversation.id, input="say: noted")
    answer = client.responses.create(model=agent, conversation=conversation.id, input="What is my name?")
    assert "Ada" in answer.output_text
    assert answer.status == "completed"
    assert answer.usage
    assert answer.usage.total_tokens > 0
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"] * 3
    assert client.conversations.retrieve(conversation.id).metadata == {"agent": agent, "topic": "names"}
    client.conversations.delete(conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


def test_three_turns_by_previous_response(client: openai.OpenAI, agent: str) -> None:
    first = client.responses.create(model=agent, input="My name is Grace.")
    second = client.responses.create(model=agent, previous_response_id=first.id, input="say: noted")
    third = client.responses.create(model=agent, previous_response_id=second.id, input="What is my name?")
    assert "Grace" in third.output_text
    assert client.responses.retrieve(third.id).output_text == third.output_text
    with pytest.raises(openai.BadRequestError, match="branch"):
        client.responses.create(model=agent, previous_response_id=first.id, input="say: too late")


def test_a_streamed_response_is_whole_and_in_the_transcript(client: openai.OpenAI, agent: str) -> None:
    conversation = client.conversations.create(metadata={"agent": agent})
    with client.responses.stream(
        model=agent, conversation=conversation.id, input="slow: 5: one two three four"
    ) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text == "one two three four"
    last = next(iter(client.conversations.items.list(conversation.id, order="desc", limit=1)))
    assert last.type == "message"
    assert last.content[0].type == "output_text"
    assert last.content[0].text == deltas


def test_three_turns_by_chat_completions_in_one_session(client: openai.OpenAI, agent: str) -> None:
    conversation = client.conversations.create(metadata={"agent": agent})
    chosen = {"X-Tenure-Session": conversation.id}

    def ask(text: str) -> str:
        answer = client.chat.completions.create(
            model=agent, messages=[{"role": "user", "content": text}], extra_headers=chosen
        )
        return answer.choices[0].message.content or ""

    ask("My name is Edsger.")
    ask("say: noted")
    assert "Edsger" in ask("What is my name?")
    chunks = client.chat.completions.create(
        model=agent,
        messages=[{"role": "user", "content": "say: a streamed answer"}],
        metadata={"conversation": conversation.id},
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = list(chunks)
    assert "".join(c.choices[0].delta.content or "" for c in seen if c.choices) == "a streamed answer"
    assert seen[-1].usage
    assert len(list(client.conversations.items.list(conversation.id))) == 8


def test_a_chat_completion_without_a_session_leaves_nothing_behind(
    client: openai.OpenAI, agent: str, place: Place
) -> None:
    before = {s["metadata"]["name"] for s in place.kube.items("agentsessions")}
    history = [
        {"role": "user", "content": "My name is Barbara."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is my name?"},
    ]
    answer = client.chat.completions.create(model=agent, messages=history)  # type: ignore[arg-type]
    assert "Barbara" in (answer.choices[0].message.content or "")
    eventually(lambda: {s["metadata"]["name"] for s in place.kube.items("agentsessions")} <= before, 30)


def test_what_is_not_supported_is_refused_and_named(client: openai.OpenAI, agent: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=agent, messages=[{"role": "user", "content": "x"}], n=2)
    assert refusal.value.param == "n"
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=agent, input="x", truncation="disabled")
    assert refusal.value.param == "truncation"


def test_a_second_turn_waits_for_the_first(client: openai.OpenAI, agent: str, place: Place) -> None:
    conversation = client.conversations.create(metadata={"agent": agent})
    with client.responses.stream(
        model=agent, conversation=conversation.id, input="slow: 100: a b c d e f g h"
    ) as first:
        next(iter(first))
        second = client.responses.create(model=agent, conversation=conversation.id, input="count-user")
        assert first.get_final_response().output_text == "a b c d e f g h"
    assert second.output_text == "2"


def test_the_node_client_does_the_same(place: Place, agent: str) -> None:
    result = smoke("smoke.mjs", BASE_URL=f"{place.tenure.gateway.url}/v1", TOKEN=place.caller(), MODEL=agent)
    assert "Ada" in result["responses"]["recalled"]
    assert result["responses"]["streamed"] == result["responses"]["final"]
    assert "Ada" in result["chat"]["recalled"]
