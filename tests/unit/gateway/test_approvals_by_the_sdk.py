"""A call that a person must approve, over the official client."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses.response_output_item import McpApprovalRequest, McpCall

from tenure_api.wire import CallOutcome
from tenure_gateway.ids import Key
from unit.gateway.courses import Used
from unit.gateway.world import World

MODEL = "shop/helper"


def buying(world: World) -> Key:
    """A session whose agent wants to buy something, for which it needs approval."""
    world.speech = lambda _: ["Let me see. ", Used("look"), "I buy it.", Used("buy", ask=True), "Bought."]
    return world.session("mine")


def decision(request: Any, approve: bool = True, **more: Any) -> list[Any]:
    return [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve, **more}]


async def ask(client: AsyncOpenAI) -> tuple[Any, McpApprovalRequest]:
    """A response that waits, and what it waits for."""
    waiting = await client.responses.create(model=MODEL, conversation="shop/mine", input="buy it")
    (request,) = [item for item in waiting.output if isinstance(item, McpApprovalRequest)]
    return waiting, request


async def test_a_response_waits_for_approval_and_goes_on_under_the_same_id(client: AsyncOpenAI, world: World) -> None:
    key = buying(world)
    waiting, request = await ask(client)
    assert waiting.status == "incomplete"
    assert waiting.incomplete_details.reason == "approval_required"
    assert [item.type for item in waiting.output] == ["message", "mcp_call", "message", "mcp_approval_request"]
    assert (request.name, request.server_label, request.arguments) == ("buy", "shop", '{"n": 1}')
    done = await client.responses.create(previous_response_id=waiting.id, input=decision(request))
    assert (done.id, done.status) == (waiting.id, "completed")
    assert done.output_text == "Let me see. I buy it.Bought."
    assert [item.type for item in done.output][3:] == ["mcp_approval_request", "mcp_call", "message"]
    call = done.output[4]
    assert isinstance(call, McpCall)
    assert (call.approval_request_id, call.output, call.status) == (request.id, "done", "completed")
    (course,) = world.volumes[key].turns.values()
    assert course.deciders == ["alice"]


async def test_a_refusal_is_told_to_the_model(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    _, request = await ask(client)
    done = await client.responses.create(
        model=MODEL, conversation="shop/mine", input=decision(request, approve=False, reason="too dear")
    )
    call = done.output[4]
    assert isinstance(call, McpCall)
    assert (call.status, call.output) == ("failed", None)
    assert call.error is not None
    assert call.error.type == "mcp_tool_execution_error"


async def test_the_stream_of_a_decision_begins_where_the_response_goes_on(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    numbers: list[int] = []
    async with client.responses.stream(model=MODEL, conversation="shop/mine", input="buy it") as stream:
        async for event in stream:
            numbers.append(event.sequence_number)
            last = event
    assert last.type == "response.incomplete"
    (request,) = [item for item in last.response.output if item.type == "mcp_approval_request"]
    async with client.responses.stream(
        model=MODEL, previous_response_id=last.response.id, input=decision(request)
    ) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[0].type == "response.created"
    assert [event.sequence_number for event in events] == list(range(len(numbers), len(numbers) + len(events)))
    assert (final.id, final.status) == (last.response.id, "completed")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "Bought."
    again = [
        event async for event in await client.responses.retrieve(final.id, stream=True, starting_after=numbers[-1])
    ]
    assert [event.sequence_number for event in again] == [event.sequence_number for event in events]


async def test_the_same_decision_again_changes_nothing_and_another_one_is_refused(
    client: AsyncOpenAI, world: World
) -> None:
    buying(world)
    waiting, request = await ask(client)
    first = await client.responses.create(previous_response_id=waiting.id, input=decision(request))
    assert await client.responses.create(previous_response_id=waiting.id, input=decision(request)) == first
    with pytest.raises(openai.ConflictError) as refused:
        await client.responses.create(previous_response_id=waiting.id, input=decision(request, approve=False))
    assert refused.value.code == "already_decided"
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_a_conversation_that_waits_takes_nothing_else(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    waiting, _ = await ask(client)
    with pytest.raises(openai.ConflictError, match="mcp_approval_response") as refused:
        await client.responses.create(conversation="shop/mine", input="and now?")
    assert refused.value.code == "approval_pending"
    assert (await client.responses.cancel(waiting.id)).status == "cancelled"
    world.speech = lambda _: ["Fine."]
    assert (await client.responses.create(conversation="shop/mine", input="and now?")).output_text == "Fine."


async def test_several_decisions_come_in_one_request(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: [Used("buy", ask=True), Used("sell", ask=True), "Both."]
    world.session("mine")
    waiting, first = await ask(client)
    waiting = await client.responses.create(previous_response_id=waiting.id, input=decision(first))
    assert waiting.status == "incomplete"
    second = waiting.output[-1]
    done = await client.responses.create(previous_response_id=waiting.id, input=decision(first) + decision(second))
    assert done.output_text == "Both."


async def test_a_decision_cannot_change_how_the_response_is_answered(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    waiting = await client.responses.create(conversation="shop/mine", input="x", instructions="brief", temperature=0.5)
    (request,) = [item for item in waiting.output if isinstance(item, McpApprovalRequest)]
    for other in ({"instructions": "long"}, {"temperature": 0.7}, {"metadata": {"a": "b"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(
                previous_response_id=waiting.id,
                input=decision(request),
                **other,
            )
        assert refused.value.param in other
    done = await client.responses.create(
        previous_response_id=waiting.id, input=decision(request), instructions="brief", temperature=0.5
    )
    assert done.status == "completed"


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"approval_request_id": "mcpr_x", "approve": True}], "input[0].approval_request_id"),
        ([{"approval_request_id": 3, "approve": True}], "input[0].approval_request_id"),
        ([{"approval_request_id": "mcpr_" + "0" * 32 + "_1", "approve": "yes"}], "input[0].approve"),
        ([{"approval_request_id": "mcpr_" + "0" * 32 + "_1", "approve": True, "reason": 3}], "input[0].reason"),
        ([{"approval_request_id": "mcpr_" + "0" * 32 + "_1", "approve": True, "x": 3}], "input[0].x"),
    ],
)
async def test_a_decision_that_makes_no_sense_is_refused(
    client: AsyncOpenAI, world: World, items: list[Any], param: str
) -> None:
    world.session("mine")
    given: Any = [{"type": "mcp_approval_response", **item} for item in items]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(conversation="shop/mine", input=given)
    assert refused.value.param == param


async def test_decisions_name_their_response_and_come_alone(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    waiting, request = await ask(client)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input=decision(request))
    assert refused.value.param == "previous_response_id"
    mixed = [*decision(request), {"role": "user", "content": "please"}]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(previous_response_id=waiting.id, input=mixed)
    assert refused.value.param == "input[1]"
    other = f"mcpr_{'0' * 32}_1"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(
            conversation="shop/mine",
            input=[{"type": "mcp_approval_response", "approval_request_id": other, "approve": True}],
        )
    assert missing.value.code == "approval_request_not_found"


async def test_an_approval_outlives_the_pod(client: AsyncOpenAI, world: World) -> None:
    key = buying(world)
    waiting, request = await ask(client)
    world.kill(key)
    world.cluster.starting(key)
    world.revive(key)
    retrieved = await client.responses.retrieve(waiting.id)
    assert retrieved == waiting
    done = await client.responses.create(previous_response_id=waiting.id, input=decision(request))
    assert done.output_text.endswith("Bought.")


async def test_a_throwaway_session_that_waits_is_kept_for_the_decision(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: [Used("buy", ask=True), "Bought."]
    waiting = await client.responses.create(model=MODEL, input="x", store=False)
    done = await client.responses.create(previous_response_id=waiting.id, input=decision(waiting.output[0]))
    assert done.output_text == "Bought."


async def test_a_completion_that_waits_says_how_to_approve(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: [Used("buy", ask=True), "Bought."]
    with pytest.raises(openai.ConflictError) as refused:
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    assert refused.value.code == "approval_required"
    assert refused.value.response.headers["x-should-retry"] == "false"
    (course,) = next(iter(world.volumes.values())).turns.values()
    request = course.output()[0]
    assert request.id in refused.value.message
    response = refused.value.message.split("'previous_response_id': '")[1].split("'")[0]
    done = await client.responses.create(previous_response_id=response, input=decision(request))
    assert done.output_text == "Bought."


async def test_streamed_chunks_that_wait_end_with_that_error(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        metadata={"conversation": "shop/mine"},
    )
    with pytest.raises(openai.APIError, match="waits for approval") as refused:
        [chunk async for chunk in stream]
    assert refused.value.code == "approval_required"


async def test_texts_around_calls_are_joined_by_a_blank_line_in_completions(client: AsyncOpenAI, world: World) -> None:
    world.speech = lambda _: ["One.", Used("look"), Used("look", outcome=CallOutcome.FAILED), "Two."]
    world.pod(world.session("mine")).breaks = ["", "middle"]
    for stream in (False, True):
        if stream:
            chunks = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "x"}],
                stream=True,
                metadata={"conversation": "shop/mine"},
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        else:
            answer = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "x"}], metadata={"conversation": "shop/mine"}
            )
            text = answer.choices[0].message.content or ""
        assert text == "One.\n\nTwo."


async def test_items_of_a_conversation_show_calls_and_approvals(client: AsyncOpenAI, world: World) -> None:
    buying(world)
    waiting, request = await ask(client)
    done = await client.responses.create(previous_response_id=waiting.id, input=decision(request))
    items = [item async for item in client.conversations.items.list("shop/mine", order="asc")]
    assert [item.type for item in items[1:]] == [item.type for item in done.output]
    assert [item.id for item in items[1:]] == [item.id for item in done.output]
