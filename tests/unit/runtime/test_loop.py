from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tenure_runtime.errors import BadRequestError, ModelError
from tenure_runtime.loop import AgentLoop
from tenure_runtime.model import Model
from tenure_runtime.rounds import Call

TURNS = [m for n in range(8) for m in ({"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"})]
REQUEST = {"model": "helper", "messages": [*TURNS, {"role": "user", "content": "now"}]}
TOO_LONG = {"code": 400, "type": "exceed_context_size_error", "message": "request exceeds the available context size"}


class NarrowModel:
    """Refuses more than `turns` user messages, as an endpoint with a small window would."""

    def __init__(self, turns: int, error: dict[str, Any] | None = None, status: int = 400) -> None:
        self.asked: list[tuple[int, int]] = []
        self._turns = turns
        self._refusal = (status, error or TOO_LONG)

    async def ask(self, request: dict[str, Any], cut: int) -> AsyncGenerator[bytes, None]:
        users = [m["content"] for m in request["messages"] if m["role"] == "user"]
        assert users[-1] == "now"
        self.asked.append((cut, len(users)))
        if len(users) > self._turns:
            raise ModelError(*self._refusal)
        yield b"one "
        yield b"two"

    def chunks(self, request: dict[str, Any], cut: int) -> AsyncGenerator[object, None]:
        raise AssertionError("without tools the answer is passed on as it is")


class NoTools:
    async def call(self, call: Call) -> str:
        raise AssertionError("no tool is called")


async def answer(model: Model, window: int | None = None, request: dict[str, Any] = REQUEST) -> bytes:
    return b"".join([piece async for piece in AgentLoop(model, NoTools(), window).answer(request)])


async def test_a_refusal_as_too_long_leaves_out_half_of_the_turns_until_it_fits() -> None:
    model = NarrowModel(turns=2)
    assert await answer(model) == b"one two"
    assert model.asked == [(0, 9), (4, 5), (6, 3), (7, 2)]


async def test_the_refusal_is_passed_on_when_nothing_is_left_to_cut() -> None:
    model = NarrowModel(turns=0)
    with pytest.raises(ModelError) as refused:
        await answer(model)
    assert refused.value.error == TOO_LONG
    assert model.asked[-1] == (8, 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "invalid_prompt", "message": "no"}),
        (500, TOO_LONG),
        (429, {"code": "rate_limit_exceeded", "message": "slow down"}),
    ],
)
async def test_other_errors_are_not_asked_again(status: int, error: dict[str, Any]) -> None:
    model = NarrowModel(turns=0, error=error, status=status)
    with pytest.raises(ModelError):
        await answer(model)
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "too many"},
        {"code": None, "message": "This model's maximum context length is 8192 tokens."},
        {"type": "exceed_context_size_error", "message": "no"},
        {"message": "The context window is full"},
        {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
    ],
)
def test_endpoints_say_too_long_in_their_own_ways(error: dict[str, Any]) -> None:
    assert ModelError(400, error).too_long
    assert not ModelError(503, error).too_long


async def test_with_a_known_window_old_turns_are_left_out_before_the_model_refuses() -> None:
    model = NarrowModel(turns=9)
    assert await answer(model, 60) == b"one two"
    assert model.asked == [(4, 5)]


async def test_room_for_a_long_answer_costs_more_turns() -> None:
    model = NarrowModel(turns=9)
    await answer(model, 60, {**REQUEST, "max_completion_tokens": 30})
    assert model.asked == [(6, 3)]


async def test_the_same_request_leads_to_the_same_calls() -> None:
    first, second = NarrowModel(turns=3), NarrowModel(turns=3)
    await answer(first, 70)
    await answer(second, 70)
    assert first.asked == second.asked


@pytest.mark.parametrize("messages", [None, [], "hi", [1]])
async def test_a_request_without_messages_is_refused(messages: object) -> None:
    with pytest.raises(BadRequestError) as refused:
        await answer(NarrowModel(1), request={"messages": messages})
    assert refused.value.status == 400


async def test_an_empty_answer_is_an_error() -> None:
    class SilentModel:
        async def ask(self, request: dict[str, Any], cut: int) -> AsyncGenerator[bytes, None]:
            return
            yield b""

        async def chunks(self, request: dict[str, Any], cut: int) -> AsyncGenerator[object, None]:
            return
            yield b""

    for request in (REQUEST, {**REQUEST, "tools": [{"type": "function"}]}):
        with pytest.raises(ModelError):
            await answer(SilentModel(), request=request)
