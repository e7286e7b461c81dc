"""What the stand-in reads in a request, and what it says when no directive tells it. Pure."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .transcript import Entry, of_items, of_messages, text_of

_FACT = re.compile(r"\bmy ([\w -]{1,40}?) is ([^.,!?\n]{1,80})", re.IGNORECASE)
_QUESTION = re.compile(r"\bwhat is my ([\w -]{1,40}?)\s*\?", re.IGNORECASE)


class InvalidRequestError(ValueError):
    """The body is not one of the OpenAI API; the message says why."""


@dataclass(frozen=True)
class Call:
    """One request for an answer, of either API."""

    model: str
    messages: list[tuple[str, str]]
    """Role and text of each."""
    stream: bool
    usage_in_stream: bool
    limit: int | None
    """Most words of the answer."""
    functions: tuple[str, ...]
    """Names of the functions that the answer may call."""
    entries: list[Entry]
    """What was said, asked and answered."""

    @property
    def last_user_text(self) -> str:
        """What decides about the answer."""
        return next((text for role, text in reversed(self.messages) if role == "user"), "")

    @property
    def words(self) -> int:
        """Words of all messages: the stand-in's tokens."""
        return sum(len(text.split()) for _, text in self.messages)


def of_chat(body: dict[str, Any]) -> Call:
    """The call in the body of a chat completion."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("messages must be a list of at least one message")
    options = body.get("stream_options")
    return Call(
        model=_model(body),
        messages=[_message(m) for m in messages],
        stream=bool(body.get("stream")),
        usage_in_stream=isinstance(options, dict) and bool(options.get("include_usage")),
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        functions=_functions([tool.get("function") for tool in body.get("tools") or ()]),
        entries=list(of_messages(messages)),
    )


def of_response(body: dict[str, Any]) -> Call:
    """The call in the body of `POST /v1/responses`."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise InvalidRequestError("input must be a text or a list of at least one item")
    messages = [_message(item) for item in map(_of_item, items) if item is not None]
    if isinstance(body.get("instructions"), str):
        messages.insert(0, ("system", body["instructions"]))
    return Call(
        model=_model(body),
        messages=messages,
        stream=bool(body.get("stream")),
        usage_in_stream=True,
        limit=body.get("max_output_tokens"),
        functions=_functions(body.get("tools") or ()),
        entries=list(of_items(items)),
    )


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("model must be given")
    return model


def _functions(described: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(one.get("name")) for one in described if isinstance(one, dict))


def _of_item(item: Any) -> Any:
    """An item of a response's input as a message; None for a call, which is no text."""
    match item:
        case {"type": "function_call"}:
            return None
        case {"type": "function_call_output", "output": output}:
            return {"role": "tool", "content": output}
    return item


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequestError("each message must have a role")
    content = message.get("content")
    if not isinstance(content, str | list) and not message.get("tool_calls"):
        raise InvalidRequestError("each message must have a text")
    return message["role"], text_of(content)


def answer(call: Call, text: str) -> str:
    """The answer to a message that says nothing about how to answer; `text` is the message without its tags."""
    match text:
        case "history":
            return json.dumps([{"role": role, "text": said} for role, said in call.messages], ensure_ascii=False)
        case "count-user":
            return str(sum(role == "user" for role, _ in call.messages))
        case "which-model":
            return call.model
    facts = {
        what.lower(): value.strip()
        for role, said in call.messages
        if role == "user" and not _QUESTION.search(said)
        for what, value in _FACT.findall(said)
    }
    if asked := _QUESTION.search(text):
        what = asked[1]
        known = facts.get(what.lower())
        return f"Your {what} is {known}." if known else f"You have not told me your {what}."
    if told := _FACT.search(text):
        return f"I will remember that your {told[1]} is {told[2].strip()}."
    count = sum(role == "user" for role, _ in call.messages)
    return f"This is answer {count}."
