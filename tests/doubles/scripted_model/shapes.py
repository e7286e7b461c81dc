"""The two shapes in which the stand-in answers: chat completions and responses. Pure.

The first and last events of a stream are dictionaries; events of text, of which there are many, are put together from
prepared bytes: the stand-in is the baseline of benches and must cost little.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Words read and said."""

    read: int
    said: int


class Shape(Protocol):
    """One answer in the shape of one API."""

    def begin(self) -> bytes:
        """The events before the first word."""
        ...

    def word(self, text: str) -> bytes:
        """The event of one word."""
        ...

    def end(self, text: str, usage: Usage, cut: bool) -> bytes:
        """The events after the last word. `cut` says that the output limit ended the answer."""
        ...

    def whole(self, text: str, usage: Usage, cut: bool) -> Json:
        """The answer as one document."""
        ...


def error(status: int, message: str, code: str | None = None) -> Json:
    """An error as the OpenAI API says it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _data(event: Json) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class ChatShape:
    """A chat completion."""

    def __init__(self, number: int, model: str, now: int, usage_in_stream: bool) -> None:
        self._head: Json = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": now}
        self._head["model"] = model
        self._usage_in_stream = usage_in_stream
        before = json.dumps({**self._head, "choices": []})
        self._before_word = f'data: {before[:-2]}{{"index": 0, "delta": {{"content": '.encode()

    def begin(self) -> bytes:
        """See `Shape`."""
        return _data(self._chunk({"role": "assistant", "content": ""}, None))

    def word(self, text: str) -> bytes:
        """See `Shape`."""
        return self._before_word + json.dumps(text).encode() + b'}, "finish_reason": null}]}\n\n'

    def end(self, text: str, usage: Usage, cut: bool) -> bytes:
        """See `Shape`."""
        events = _data(self._chunk({}, "length" if cut else "stop"))
        if self._usage_in_stream:
            events += _data({**self._head, "choices": [], "usage": _chat_usage(usage)})
        return events + b"data: [DONE]\n\n"

    def whole(self, text: str, usage: Usage, cut: bool) -> Json:
        """See `Shape`."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(usage)}

    def _chunk(self, delta: Json, reason: str | None) -> Json:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _chat_usage(usage: Usage) -> Json:
    read, said = usage.read, usage.said
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


class ResponseShape:
    """An answer of the Responses API."""

    def __init__(self, number: int, model: str, now: int) -> None:
        self._id = f"resp_{number}"
        self._item_id = f"msg_{number}"
        self._model = model
        self._now = now
        self._number = 0
        self._before_word = (
            f', "item_id": "{self._item_id}", "output_index": 0, "content_index": 0, "logprobs": [], "delta": '
        ).encode()

    def begin(self) -> bytes:
        """See `Shape`."""
        response = self._response("in_progress", [], None)
        return (
            self._event("response.created", response=response)
            + self._event("response.in_progress", response=response)
            + self._event("response.output_item.added", output_index=0, item=self._item("in_progress", []))
            + self._event("response.content_part.added", **self._place(), part=_part(""))
        )

    def word(self, text: str) -> bytes:
        """See `Shape`."""
        head = f'data: {{"type": "response.output_text.delta", "sequence_number": {self._next()}'.encode()
        name = b"event: response.output_text.delta\n"
        return name + head + self._before_word + json.dumps(text).encode() + b"}\n\n"

    def end(self, text: str, usage: Usage, cut: bool) -> bytes:
        """See `Shape`."""
        whole = self.whole(text, usage, cut)
        name = "response.incomplete" if cut else "response.completed"
        return (
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=_part(text))
            + self._event("response.output_item.done", output_index=0, item=whole["output"][0])
            + self._event(name, response=whole)
        )

    def whole(self, text: str, usage: Usage, cut: bool) -> Json:
        """See `Shape`."""
        status = "incomplete" if cut else "completed"
        return self._response(status, [self._item(status, [_part(text)])], usage)

    def _place(self) -> Json:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _item(self, status: str, content: list[Json]) -> Json:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _response(self, status: str, output: list[Json], usage: Usage | None) -> Json:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._now,
            "status": status,
            "model": self._model,
            "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "usage": None if usage is None else _response_usage(usage),
        }

    def _event(self, name: str, **fields: Any) -> bytes:
        event = {"type": name, "sequence_number": self._next(), **fields}
        return f"event: {name}\n".encode() + _data(event)

    def _next(self) -> int:
        self._number += 1
        return self._number - 1


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.read + usage.said,
    }
