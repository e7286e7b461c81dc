"""The Chat Completions API. https://platform.openai.com/docs/api-reference/chat."""

from collections.abc import Iterator
from typing import Any

from tenure_api.configuration import ModelRoute
from tenure_api.wire import Usage
from tenure_sidecar.codec import decode, encode
from tenure_sidecar.errors import GarbageError
from tenure_sidecar.proxy.dialect import Json, Progress, StreamError, tokens
from tenure_sidecar.sse import Event

DONE = Event(b"", b"[DONE]")


class ChatAssembler:
    """Puts a chat completion together from its chunks.

    Text fields of a delta are joined, whatever their names, since vendors add their own (`reasoning_content`); tool
    calls are joined by index, see `_Calls`.
    """

    def __init__(self, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self._frame: Json = {}
        self._choices: dict[int, Json] = {}
        self._messages: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, _Calls] = {}
        self._usage: Json | None = None
        self._begun = False

    def feed(self, event: Event) -> Progress:
        """Take an event."""
        if event.data == DONE.data:
            return Progress.END
        chunk = parsed(event)
        if not self._frame:
            self._frame = {key: chunk[key] for key in ("id", "created", "model", "system_fingerprint") if key in chunk}
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise GarbageError("an event of the stream has no choices")
        for choice in choices:
            self._take(choice)
        if self._finished():
            return Progress.FINAL
        return Progress.TOKEN if self._begun else Progress.PREAMBLE

    def answer(self) -> Json | None:
        """The whole completion."""
        if not self._finished():
            return None
        choices = []
        for index in sorted(self._choices):
            message = {key: "".join(v) if isinstance(v, list) else v for key, v in self._messages[index].items()}
            if index in self._calls:
                message["tool_calls"] = self._calls[index].joined()
            choices.append({**self._choices[index], "message": {"role": "assistant", "content": None, **message}})
        answer = {"object": "chat.completion", **self._frame, "choices": choices}
        return answer if self._usage is None else {**answer, "usage": self._usage}

    def wanted(self, event: Event) -> bool:
        """Whether the agent asked for this event."""
        return self._usage_wanted or b'"usage"' not in event.data or bool(decode(event.data).get("choices"))

    def _finished(self) -> bool:
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())

    def _take(self, choice: object) -> None:
        if not isinstance(choice, dict):
            raise GarbageError("a choice of the stream is not an object")
        index = choice.get("index", 0)
        delta = choice.get("delta") or {}
        if not isinstance(index, int) or not isinstance(delta, dict):
            raise GarbageError("a choice of the stream has no proper index and delta")
        state = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        message = self._messages.setdefault(index, {})
        if choice.get("finish_reason"):
            state["finish_reason"] = choice["finish_reason"]
            self._begun = True
        if choice.get("logprobs"):
            state["logprobs"] = choice["logprobs"]
        for key, value in delta.items():
            if value is None or key == "role":
                continue
            self._begun = self._begun or bool(value)
            if key == "tool_calls":
                self._calls.setdefault(index, _Calls()).take(value)
            elif isinstance(value, str):
                known = message.setdefault(key, [])
                if isinstance(known, list):
                    known.append(value)
            else:
                message[key] = value


class _Calls:
    """The tool calls of one message, put together from their parts.

    `index` says which call a part belongs to. Some endpoints leave it out, or send 0 with every call: then a new id
    begins a new call. The built-in agent reads them in the same way, so that a replayed answer says what the live one
    said.
    """

    def __init__(self) -> None:
        self._calls: dict[int, Json] = {}
        self._last: Json | None = None

    def take(self, deltas: object) -> None:
        """Take a list of parts. Raises `GarbageError`."""
        if not isinstance(deltas, list) or not all(isinstance(delta, dict) for delta in deltas):
            raise GarbageError("the tool calls of the stream are not a list of objects")
        for delta in deltas:
            call = self._call_of(delta)
            more = {k: v for k, v in delta.items() if k not in ("index", "function", "id") and v is not None}
            call |= more | ({"id": delta["id"]} if delta.get("id") else {})
            function = delta.get("function")
            if isinstance(function, dict):
                for key in ("name", "arguments"):
                    if isinstance(function.get(key), str):
                        call["function"][key].append(function[key])

    def joined(self) -> list[Json]:
        """The calls in their order."""
        return [_joined(self._calls[place]) for place in sorted(self._calls)]

    def _call_of(self, delta: Json) -> Json:
        place = delta.get("index")
        call = self._calls.get(place) if isinstance(place, int) else self._last
        if call is None or (delta.get("id") and call.get("id") and delta["id"] != call["id"]):
            free = max(self._calls, default=-1) + 1
            call = {"function": {"name": [], "arguments": []}}
            self._calls[place if isinstance(place, int) and place not in self._calls else free] = call
        self._last = call
        return call


def _joined(call: Json) -> Json:
    return {"type": "function", **call, "function": {key: "".join(parts) for key, parts in call["function"].items()}}


def parsed(event: Event) -> Json:
    """The JSON object of an event. Raises `GarbageError`, or `StreamError` if it reports an error."""
    try:
        chunk = decode(event.data)
    except ValueError:
        raise GarbageError("an event of the stream is not JSON") from None
    if not isinstance(chunk, dict):
        raise GarbageError("an event of the stream is not an object")
    if chunk.get("error"):
        raise StreamError(event.data)
    return chunk


class ChatCompletions:
    """The Chat Completions API."""

    path = "/chat/completions"

    def completed(self, request: Json, route: ModelRoute) -> Json:
        """The request with the configured parameters where it sets none, and with usage, which is always metered."""
        full = dict(request)
        if route.temperature is not None:
            full.setdefault("temperature", route.temperature)
        if route.top_p is not None:
            full.setdefault("top_p", route.top_p)
        if route.max_output_tokens is not None and "max_tokens" not in full:
            full.setdefault("max_completion_tokens", route.max_output_tokens)
        if full.get("stream"):
            full["stream_options"] = {**(full.get("stream_options") or {}), "include_usage": True}
        return full

    def assembler(self, request: Json) -> ChatAssembler:
        """For the stream that answers this request."""
        return ChatAssembler(_usage_wanted(request))

    def is_answer(self, answer: object) -> bool:
        """Whether JSON is a whole completion."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        return (
            isinstance(choices, list)
            and bool(choices)
            and all(isinstance(choice, dict) and isinstance(choice.get("message"), dict) for choice in choices)
        )

    def usage(self, answer: Json) -> Usage:
        """The tokens that the completion reports."""
        usage = answer.get("usage")
        return Usage(input_tokens=tokens(usage, "prompt_tokens"), output_tokens=tokens(usage, "completion_tokens"))

    def replay(self, answer: Json, request: Json) -> Iterator[Event]:
        """One chunk with each message, one with its end, then usage if it was asked for."""
        frame = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
        frame["object"] = "chat.completion.chunk"
        for choice in answer["choices"]:
            delta = {key: value for key, value in choice["message"].items() if value is not None}
            if delta.get("tool_calls"):
                delta["tool_calls"] = [{"index": n, **call} for n, call in enumerate(delta["tool_calls"])]
            index = choice.get("index", 0)
            yield _chunk(frame, [{"index": index, "delta": delta, "finish_reason": None}])
            yield _chunk(frame, [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}])
        if _usage_wanted(request) and answer.get("usage"):
            yield _chunk({**frame, "usage": answer["usage"]}, [])
        yield DONE


def _chunk(frame: Json, choices: list[Json]) -> Event:
    return Event(b"", encode({**frame, "choices": choices}))


def _usage_wanted(request: Json) -> bool:
    options = request.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))
