"""Completions and chunks: a turn as an answer of Chat Completions.

That API knows text only: the texts before and after calls are joined by a blank line, and what it has no words for, a
call that waits for approval or text that became void, ends the answer with an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tenure_api.wire import ItemType, Turn, TurnStatus
from tenure_gateway.events import Event
from tenure_gateway.faults import TurnInterrupted
from tenure_gateway.ids import Key, response_id
from tenure_gateway.openai.errors import NO_RETRY, ApiError, Json, turn_failed
from tenure_gateway.openai.sse import data

_JOINT = "\n\n"


@dataclass(frozen=True)
class Frame:
    """What is known of a completion besides its turn. `created` is in seconds since the epoch."""

    session: Key
    turn: str
    model: str
    created: int

    def _shown(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self.turn}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": choices,
        }

    def completion(self, turn: Turn) -> Json:
        """The whole completion."""
        text = _JOINT.join(entry.text for entry in turn.output if entry.type is ItemType.MESSAGE and entry.text)
        message: Json = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}
        return self._shown("chat.completion", [choice]) | {"usage": _usage(turn)}

    def chunk(self, delta: Json, finish: str | None) -> Json:
        """A piece of it."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._shown("chat.completion.chunk", [choice])

    def usage_chunk(self, turn: Turn) -> Json:
        """The piece that tells the usage."""
        return self._shown("chat.completion.chunk", []) | {"usage": _usage(turn)}

    def trouble(self, turn: Turn) -> ApiError | None:
        """Why the turn is no completion, if it is none."""
        match turn.status:
            case TurnStatus.FAILED:
                return turn_failed(turn)
            case TurnStatus.CANCELLED:
                return ApiError(409, "turn_cancelled", "The answer was cancelled.", headers=NO_RETRY)
            case TurnStatus.AWAITING_APPROVAL:
                return self._approval_required(turn)
        return None

    def _approval_required(self, turn: Turn) -> ApiError:
        decided = {entry.call.approval for entry in turn.output if entry.call is not None}
        asked = [entry.approval for entry in turn.output if entry.approval and entry.id not in decided]
        calls = ", ".join(f"'{approval.id}' ({approval.function})" for approval in asked)
        message = (
            f"The answer waits for approval of {calls}. POST /v1/responses with 'previous_response_id': "
            f"'{response_id(self.session, self.turn)}' and an 'mcp_approval_response' for each as 'input': it goes on."
        )
        return ApiError(409, "approval_required", message, headers=NO_RETRY)


class Chunks:
    """Writes the chunks of one streamed completion: the role, text, the reason of its end, `[DONE]`."""

    def __init__(self, frame: Frame, include_usage: bool) -> None:
        self._frame = frame
        self._include_usage = include_usage
        self._opened = False
        self._sent = 0
        """Characters of the turn's text that were passed on."""
        self.again()

    def again(self) -> None:
        """The events of the turn come from the beginning again."""
        self._place = 0
        self._joint = False

    def write(self, events: Iterable[Event]) -> bytes:
        """What these events add. Raises `TurnInterrupted` if text that was passed on became void."""
        texts = []
        for event in events:
            if event.kind == "delta":
                texts.append(self._text(event.text))
            elif event.kind == "item":
                self._joint = self._place > 0
            elif event.kind == "attempt":
                if event.offset < self._sent:
                    raise TurnInterrupted
                self._place = min(self._place, event.offset)
        opening = b""
        if not self._opened:
            self._opened = True
            opening = self._chunk({"role": "assistant", "content": "", "refusal": None})
        text = "".join(texts)
        return opening + self._chunk({"content": text}) if text else opening

    def end(self, turn: Turn) -> bytes:
        """The turn has ended, or waits for approvals."""
        trouble = self._frame.trouble(turn)
        if trouble is not None:
            return self.error(trouble)
        usage = data(self._frame.usage_chunk(turn)) if self._include_usage else b""
        return self._chunk({}, _finish(turn)) + usage + b"data: [DONE]\n\n"

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on."""
        return data(error.body())

    def _text(self, text: str) -> str:
        """What of it has not been passed on yet, after a blank line where another message begins."""
        known = max(0, self._sent - self._place)
        joint = _JOINT if self._joint and known == 0 else ""
        self._joint = self._joint and not text
        self._place += len(text)
        new = text[known:]
        if new:
            self._sent = self._place
        return joint + new if new else ""

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        chunk = self._frame.chunk(delta, finish)
        return data(chunk | {"usage": None} if self._include_usage else chunk)


def _finish(turn: Turn) -> str:
    return "length" if turn.finish_reason == "length" else "stop"


def _usage(turn: Turn) -> Json:
    return {
        "prompt_tokens": turn.usage.input_tokens,
        "completion_tokens": turn.usage.output_tokens,
        "total_tokens": turn.usage.input_tokens + turn.usage.output_tokens,
    }
