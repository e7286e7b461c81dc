"""The two shapes in which the stand-in answers: chat completions and responses. Pure.

The first and last events of a stream are dictionaries; events of text, of which there are many, are put together from
prepared bytes: the stand-in is the baseline of benches and must cost little.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .program import ToolCall

Json = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Words read and said; a call counts as a word."""

    read: int
    said: int


@dataclass(frozen=True)
class Answer:
    """What is answered. `cut` says that the output limit ended it."""

    text: str
    usage: Usage
    cut: bool = False
    calls: Sequence[ToolCall] = ()


class Shape(Protocol):
    """One answer in the shape of one API."""

    def begin(self, speaks: bool) -> bytes:
        """The events before the first word, if there is one."""
        ...

    def word(self, text: str) -> bytes:
        """The event of one word."""
        ...

    def end(self, answer: Answer) -> tuple[bytes, bytes]:
        """The events after the last word: the calls, and those that say that the answer has ended."""
        ...

    def whole(self, answer: Answer) -> Json:
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

    def begin(self, speaks: bool) -> bytes:
        """See `Shape`."""
        return _data(self._chunk({"role": "assistant", "content": "" if speaks else None}, None))

    def word(self, text: str) -> bytes:
        """See `Shape`."""
        return self._before_word + json.dumps(text).encode() + b'}, "finish_reason": null}]}\n\n'

    def end(self, answer: Answer) -> tuple[bytes, bytes]:
        """See `Shape`."""
        parts = [part for n, call in enumerate(answer.calls) for part in _parts(n, call)]
        calls = b"".join(_data(self._chunk({"tool_calls": [part]}, None)) for part in parts)
        last = _data(self._chunk({}, _reason(answer)))
        if self._usage_in_stream:
            last += _data({**self._head, "choices": [], "usage": _chat_usage(answer.usage)})
        return calls, last + b"data: [DONE]\n\n"

    def whole(self, answer: Answer) -> Json:
        """See `Shape`."""
        message: Json = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message = {**message, "content": answer.text or None, "tool_calls": [_entry(c) for c in answer.calls]}
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer)}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(answer.usage)}

    def _chunk(self, delta: Json, reason: str | None) -> Json:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _entry(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _parts(index: int, call: ToolCall) -> list[Json]:
    """A call in pieces, as models send it: its name first, and its arguments bit by bit."""
    head = {**_entry(call), "index": index, "function": {"name": call.name, "arguments": ""}}
    return [head, *({"index": index, "function": {"arguments": half}} for half in _halves(call.arguments))]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _reason(answer: Answer) -> str:
    return "length" if answer.cut else "tool_calls" if answer.calls else "stop"


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

    def begin(self, speaks: bool) -> bytes:
        """See `Shape`."""
        response = self._response("in_progress", [], None)
        events = self._event("response.created", response=response)
        events += self._event("response.in_progress", response=response)
        if speaks:
            events += self._event("response.output_item.added", output_index=0, item=self._item("in_progress", []))
            events += self._event("response.content_part.added", **self._place(), part=_part(""))
        return events

    def word(self, text: str) -> bytes:
        """See `Shape`."""
        head = f'data: {{"type": "response.output_text.delta", "sequence_number": {self._next()}'.encode()
        name = b"event: response.output_text.delta\n"
        return name + head + self._before_word + json.dumps(text).encode() + b"}\n\n"

    def end(self, answer: Answer) -> tuple[bytes, bytes]:
        """See `Shape`."""
        whole = self.whole(answer)
        name = "response.incomplete" if answer.cut else "response.completed"
        events = b""
        for place, item in enumerate(whole["output"]):
            if item["type"] == "message":
                events += self._event("response.output_text.done", **self._place(), text=answer.text, logprobs=[])
                events += self._event("response.content_part.done", **self._place(), part=_part(answer.text))
            else:
                events += self._call_events(place, item)
            events += self._event("response.output_item.done", output_index=place, item=item)
        return events, self._event(name, response=whole)

    def whole(self, answer: Answer) -> Json:
        """See `Shape`."""
        status = "incomplete" if answer.cut else "completed"
        output = [self._item(status, [_part(answer.text)])] if answer.text or not answer.calls else []
        for n, call in enumerate(answer.calls):
            item = {"type": "function_call", "id": f"fc_{self._id}_{n}", "call_id": call.id, "name": call.name}
            output.append({**item, "arguments": call.arguments, "status": "completed"})
        return self._response(status, output, answer.usage)

    def _call_events(self, place: int, item: Json) -> bytes:
        begun = {**item, "arguments": "", "status": "in_progress"}
        events = self._event("response.output_item.added", output_index=place, item=begun)
        where = {"item_id": item["id"], "output_index": place}
        for half in _halves(item["arguments"]):
            events += self._event("response.function_call_arguments.delta", **where, delta=half)
        return events + self._event(
            "response.function_call_arguments.done", **where, name=item["name"], arguments=item["arguments"]
        )

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

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._next(), **fields}
        return f"event: {kind}\n".encode() + _data(event)

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
