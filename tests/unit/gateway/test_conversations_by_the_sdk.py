"""The official client, unchanged, holds conversations. What it parses into its typed models is valid by them."""

import json
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tenure_api.names import METADATA_ANNOTATION
from tenure_gateway.ids import parse_conversation
from unit.gateway.doubles import Object
from unit.gateway.world import World

MODEL = "shop/helper"


async def test_models_are_the_agents_the_caller_may_use(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).owned_by == "shop"


async def test_three_turns_by_conversation(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(metadata={"agent": MODEL, "topic": "t"})
    answers = [await client.responses.create(model=MODEL, conversation=conversation.id, input=text) for text in "abc"]
    assert [answer.output_text for answer in answers] == ["a", "a | a | b", "a | a | b | a | a | b | c"]
    assert all(answer.status == "completed" for answer in answers)
    assert answers[0].usage is not None
    assert answers[0].usage.total_tokens == 10
    assert answers[0].conversation is not None
    assert answers[0].conversation.id == conversation.id


async def test_three_turns_by_previous_response(client: AsyncOpenAI, world: World) -> None:
    first = await client.responses.create(model=MODEL, input="a")
    second = await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)
    third = await client.responses.create(input="c", previous_response_id=second.id)
    assert third.output_text == "a | a | b | a | a | b | c"
    assert third.previous_response_id == second.id
    assert len(world.sessions) == 1


async def test_a_response_is_valid_by_the_models_of_the_sdk(client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(model=MODEL, input="a", metadata={"k": "v"}, temperature=0.5)
    response = Response.model_validate(json.loads(raw.text))
    assert response.metadata == {"k": "v"}
    assert response.temperature == 0.5
    assert response.output[0].type == "message"


async def test_only_the_last_response_can_be_continued(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="a")
    await client.responses.create(model=MODEL, input="b", previous_response_id=first.id)
    with pytest.raises(openai.BadRequestError, match="branching is not available") as refusal:
        await client.responses.create(model=MODEL, input="c", previous_response_id=first.id)
    assert refusal.value.code == "previous_response_not_last"
    assert refusal.value.param == "previous_response_id"


async def test_a_response_is_retrieved_as_it_was_given(client: AsyncOpenAI) -> None:
    given = await client.responses.create(model=MODEL, input="a")
    retrieved = await client.responses.retrieve(given.id)
    assert (retrieved.id, retrieved.output_text, retrieved.usage) == (given.id, given.output_text, given.usage)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.retrieve(given.id[:-1] + ("0" if given.id[-1] != "0" else "1"))
    assert missing.value.code == "response_not_found"


async def test_a_conversation_keeps_its_metadata_and_says_whose_agent_it_is(client: AsyncOpenAI, world: World) -> None:
    conversation = await client.conversations.create(metadata={"agent": MODEL, "topic": "names"})
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"agent": MODEL, "topic": "names"}
    key = parse_conversation(conversation.id)
    assert key is not None
    session = world.sessions[key]
    assert json.loads(session["metadata"]["annotations"][METADATA_ANNOTATION]) == {"topic": "names"}
    assert session["spec"] == {"agentRef": {"name": "helper"}, "subject": "alice"}


async def test_items_come_in_pages_that_the_sdk_follows(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(metadata={"agent": MODEL})
    for text in "abc":
        await client.responses.create(model=MODEL, conversation={"id": conversation.id}, input=text)
    items = [item async for item in client.conversations.items.list(conversation.id, order="asc", limit=2)]
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"] * 3
    newest = await client.conversations.items.list(conversation.id, limit=1)
    assert newest.data[0].id == items[-1].id
    assert newest.has_more


async def test_a_deleted_conversation_is_gone(client: AsyncOpenAI, world: World) -> None:
    conversation = await client.conversations.create(metadata={"agent": MODEL})
    assert (await client.conversations.delete(conversation.id)).deleted
    assert world.sessions == {}
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation.id)


async def test_a_session_made_with_kubectl_is_a_conversation_by_its_name(client: AsyncOpenAI, world: World) -> None:
    world.session("mine")
    assert (await client.responses.create(conversation="shop/mine", input="a")).output_text == "a"
    assert (await client.conversations.retrieve("shop/mine")).metadata == {"agent": MODEL}
    assert len([item async for item in client.conversations.items.list("shop/mine")]) == 2


async def test_messages_of_all_roles_reach_the_turn_with_its_parameters(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")
    await client.responses.create(
        model=MODEL,
        conversation="shop/mine",
        input=[
            {"role": "developer", "content": "be brief"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}] * 2},
        ],
        instructions="in verse",
        temperature=0,
        top_p=0.5,
        max_output_tokens=7,
    )
    request = world.pod(key).requests[0]
    assert [(message.role, message.text) for message in request.input] == [("developer", "be brief"), ("user", "x\nx")]
    assert (request.instructions, request.temperature, request.top_p) == ("in verse", 0, 0.5)
    assert request.max_output_tokens == 7
    assert world.pod(key).subjects == ["alice"]


async def test_a_cut_answer_is_incomplete(client: AsyncOpenAI, world: World) -> None:
    world.pod(world.session("mine")).breaks = ["cut"]
    response = await client.responses.create(conversation="shop/mine", input="a")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("code", "status", "again"),
    [
        ("model_error", 502, True),
        ("model_rate_limited", 429, True),
        ("model_unauthorized", 502, False),
        ("determinism_error", 502, False),
        ("context_length_exceeded", 400, False),
    ],
)
async def test_a_failed_turn_is_an_error_that_says_why_and_whether_to_try_again(
    client: AsyncOpenAI, world: World, code: str, status: int, again: bool
) -> None:
    pod = world.pod(world.session("mine"))
    pod.breaks, pod.failure = ["fail"], code
    with pytest.raises(openai.APIStatusError, match="the model said no") as error:
        await client.responses.create(conversation="shop/mine", input="a")
    assert (error.value.status_code, error.value.code) == (status, code)
    assert ("x-should-retry" not in error.value.response.headers) == again


async def test_an_unstored_response_leaves_nothing_behind(client: AsyncOpenAI, world: World) -> None:
    response = await client.responses.create(model=MODEL, input="a", store=False)
    assert response.output_text == "a"
    assert response.conversation is None
    await world.gateway.sessions.settle()
    assert world.sessions == {}


@pytest.mark.parametrize(("store", "days"), [(True, 30), (False, 0)])
async def test_sessions_made_for_a_response_expire(client: AsyncOpenAI, world: World, store: bool, days: int) -> None:
    made = []

    def create(obj: Object) -> None:
        made.append(obj["spec"]["expiresAt"])
        world.serve(obj)

    world.cluster.on_create = create
    await client.responses.create(model=MODEL, input="a", store=store)
    left = datetime.fromisoformat(made[0]) - datetime.now(UTC)
    assert left.days == (days - 1 if days else 0)


# --- chat completions -----------------------------------------------------------------------------------------------


async def test_three_turns_by_chat_completions_in_a_chosen_session(client: AsyncOpenAI, world: World) -> None:
    world.session("mine")

    async def ask(*history: tuple[str, str]) -> str:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": role, "content": text} for role, text in history],  # type: ignore[misc]
            extra_headers={"X-Tenure-Session": "shop/mine"},
        )
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content or ""

    assert await ask(("user", "a")) == "a"
    assert await ask(("user", "a"), ("assistant", "a"), ("user", "b")) == "a | a | b"
    assert await ask(("assistant", "?"), ("system", "s"), ("user", "c")) == "a | a | b | a | a | b | s | c"
    assert len([item async for item in client.conversations.items.list("shop/mine")]) == 7


async def test_a_completion_without_a_session_gets_all_messages_and_leaves_nothing_behind(
    client: AsyncOpenAI, world: World
) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
    )
    assert answer.choices[0].message.content == "a | b | c"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10
    await world.gateway.sessions.settle()
    assert world.sessions == {}


async def test_only_the_files_of_new_messages_are_put_into_the_workspace(client: AsyncOpenAI, world: World) -> None:
    key = world.session("mine")

    def with_file(name: str) -> Any:
        data = {"filename": name, "file_data": "data:text/plain;base64,YQ=="}
        return {"role": "user", "content": [{"type": "file", "file": data}, {"type": "text", "text": "read it"}]}

    await client.chat.completions.create(
        model=MODEL,
        messages=[with_file("old.txt"), {"role": "assistant", "content": "read"}, with_file("new.txt")],
        extra_headers={"X-Tenure-Session": "shop/mine"},
    )
    (request,) = world.pod(key).requests
    assert [(file.path, file.size, file.data) for file in request.files] == [("uploads/new.txt", 1, "YQ==")]
    assert [message.text for message in request.input] == ["[file /workspace/uploads/new.txt, 1 bytes]\nread it"]
