"""Translates chat completions to the Responses API and back. Pure.

Only what the sidecar sends is translated; any other field is refused, since to drop it silently would be worse.
`store` is always false: what may be kept, and for how long, is for the session's policy to say, not for the endpoint.
"""

from collections.abc import Iterator
from typing import Any

from tenure_runtime.errors import BadRequestError, ModelError

_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls")
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")
_KNOWN = {*_SAME, *_OUTPUT_LIMITS, "messages", "stream_options", "tools"}
_ROLES = ("system", "developer", "user", "assistant")


def request(chat: dict[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/responses` for that of a chat completion. Raises `BadRequestError`."""
    for name in chat:
        if name not in _KNOWN:
            raise BadRequestError(f"{name} cannot be sent to a model that speaks the Responses API", param=name)
    body = {name: chat[name] for name in _SAME if chat.get(name) is not None}
    for name in _OUTPUT_LIMITS:
        if chat.get(name) is not None:
            body["max_output_tokens"] = chat[name]
            break
    body["input"] = [item for message in chat["messages"] for item in _items(message)]
    if chat.get("tools"):
        body["tools"] = [_tool(tool) for tool in chat["tools"]]
    body["store"] = False
    return body


def _tool(tool: object) -> dict[str, Any]:
    """A function tool. Without `strict` the Responses API assumes true, and chat completions false."""
    match tool:
        case {"type": "function", "function": dict(function)}:
            return {"type": "function", "strict": False, **function}
    raise BadRequestError("only function tools can be sent to a model that speaks the Responses API", param="tools")


def _items(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    role = message.get("role")
    if role == "tool":
        output = _text(message.get("content"))
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
        return
    if role not in _ROLES:
        raise BadRequestError(f"messages of the role {role!r} cannot be sent to a model that speaks the Responses API")
    calls = message.get("tool_calls") or ()
    if message.get("content") or not calls:
        yield {"role": role, "content": _text(message.get("content"))}
    for call in calls:
        match call:
            case {"id": call_id, "function": {"name": name, "arguments": arguments}}:
                yield {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
            case _:
                raise BadRequestError("a tool call must have an id and a function with a name and arguments")


def _text(content: object) -> str:
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise BadRequestError("only messages of text can be sent to a model that speaks the Responses API")
    return content


def completion(response: dict[str, Any]) -> dict[str, Any]:
    """The chat completion for an answer of the Responses API. Raises `ModelError` if it failed."""
    reason = _finish_reason(response)
    text = "".join(
        part.get("text") or part.get("refusal") or ""
        for item in response.get("output", [])
        if item.get("type") == "message"
        for part in item.get("content", [])
    )
    message = {"role": "assistant", "content": text, **_tool_calls(response)}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**_head(response, "chat.completion"), "choices": [choice], "usage": _usage(response)}


class Translation:
    """Translates the events of one streamed answer.

    Nothing is said before the first text, so that until then an answer can still be refused as a whole. Function calls
    are taken from the last event, which has all of them whole.
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = _head({}, "chat.completion.chunk")
        self._begun = False
        self._ended = False

    def chunks(self, event: object) -> Iterator[dict[str, Any]]:
        """The chunks of a chat completion for one event. Raises `ModelError` if the event says that the answer failed.

        The text of a refusal counts as text: it is what the model answered.
        """
        if not isinstance(event, dict):
            raise ModelError.broken("the model sent an event that is no JSON object")
        match event.get("type"):
            case "response.created":
                self._head = _head(event.get("response") or {}, "chat.completion.chunk")
            case "response.output_text.delta" | "response.refusal.delta":
                yield from self._begin()
                yield self._chunk({"content": str(event.get("delta", ""))})
            case "response.completed" | "response.incomplete" | "response.failed":
                response = event.get("response") or {}
                reason = _finish_reason(response)
                yield from self._begin()
                yield self._chunk(_tool_calls(response), reason)
                yield {**self._head, "choices": [], "usage": _usage(response)}
                self._ended = True
            case "error":
                raise ModelError.reported(event.get("error") or event)

    def finish(self) -> None:
        """Raises `ModelError` if the stream has ended before the answer did."""
        if not self._ended:
            raise ModelError.broken("the answer of the model broke off")

    def _begin(self) -> Iterator[dict[str, Any]]:
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**self._head, "choices": [choice]}


def _head(response: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{response.get('id', '')}",
        "object": kind,
        "created": int(response.get("created_at") or 0),
        "model": response.get("model", ""),
    }


def _tool_calls(response: dict[str, Any]) -> dict[str, Any]:
    """The field `tool_calls` of a message or delta; empty if the model calls nothing."""
    calls = [item for item in response.get("output") or () if item.get("type") == "function_call"]
    entries = [
        {
            "index": n,
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        for n, item in enumerate(calls)
    ]
    return {"tool_calls": entries} if entries else {}


def _finish_reason(response: dict[str, Any]) -> str:
    match response.get("status"):
        case "completed":
            return "tool_calls" if _tool_calls(response) else "stop"
        case "incomplete":
            why = (response.get("incomplete_details") or {}).get("reason")
            return "content_filter" if why == "content_filter" else "length"
        case "failed":
            raise ModelError.reported(response.get("error"))
        case _:
            raise ModelError.broken("the model sent an answer without a status")


def _usage(response: dict[str, Any]) -> dict[str, Any] | None:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    put_in, put_out = int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)
    return {"prompt_tokens": put_in, "completion_tokens": put_out, "total_tokens": put_in + put_out}
