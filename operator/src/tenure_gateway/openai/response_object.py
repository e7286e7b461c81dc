"""A turn as a response. All that it shows is recorded with the turn: so it is the same for everybody who asks."""

from dataclasses import dataclass

from tenure_api.wire import ItemType, Turn, TurnStatus
from tenure_gateway.ids import Key, conversation_id, response_id
from tenure_gateway.openai.errors import Json, turn_failed
from tenure_gateway.openai.items import item


@dataclass(frozen=True)
class Frame:
    """What is known of a response besides its turn."""

    session: Key
    model: str
    kept: bool = True
    """Whether it can be retrieved and continued; a throwaway session's cannot."""


def begun(frame: Frame, turn: Turn, output: list[Json]) -> Json:
    """A response that goes on, with its output so far."""
    options = turn.options
    previous = options.previous_turn
    return {
        "id": response_id(frame.session, turn.turn),
        "object": "response",
        "created_at": int(turn.created_at.timestamp()),
        "status": "in_progress",
        "background": options.background,
        "conversation": {"id": conversation_id(frame.session)} if frame.kept else None,
        "error": None,
        "incomplete_details": None,
        "instructions": options.instructions,
        "max_output_tokens": options.max_output_tokens,
        "metadata": options.metadata,
        "model": frame.model,
        "output": output,
        "parallel_tool_calls": options.parallel_tool_calls is not False,
        "previous_response_id": None if previous is None else response_id(frame.session, previous),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": frame.kept,
        "temperature": options.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": options.top_p,
        "truncation": "auto",
        "usage": None,
    }


def awaiting(frame: Frame, turn: Turn, output: list[Json]) -> Json:
    """A response that waits for approvals, with its output so far."""
    return begun(frame, turn, output) | _incomplete("approval_required") | {"usage": _usage(turn)}


def response(frame: Frame, turn: Turn) -> Json:
    """A response as recorded."""
    shown = begun(frame, turn, [item(entry) for entry in turn.output])
    if turn.status is TurnStatus.IN_PROGRESS:
        return shown
    shown["usage"] = _usage(turn)
    match turn.status:
        case TurnStatus.AWAITING_APPROVAL:
            return shown | _incomplete("approval_required")
        case TurnStatus.CANCELLED:
            return shown | {"status": "cancelled"}
        case TurnStatus.FAILED:
            # OpenAI's list of codes is closed: ours goes into the message.
            failure = turn_failed(turn)
            code = "rate_limit_exceeded" if failure.status == 429 else "server_error"
            return shown | {
                "status": "failed",
                "error": {"code": code, "message": f"{failure.code}: {failure.message}"},
            }
    if was_cut(turn):
        if turn.output and turn.output[-1].type is ItemType.MESSAGE:
            shown["output"][-1]["status"] = "incomplete"
        return shown | _incomplete("max_output_tokens")
    return shown | {"status": "completed"}


def was_cut(turn: Turn) -> bool:
    """Whether the answer was cut by the token limit."""
    return turn.finish_reason == "length"


def _incomplete(reason: str) -> Json:
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def _usage(turn: Turn) -> Json:
    return {
        "input_tokens": turn.usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": turn.usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": turn.usage.input_tokens + turn.usage.output_tokens,
    }
