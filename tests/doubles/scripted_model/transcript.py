"""Whether the calls of tools in a conversation are all answered, and with what. Pure.

Endpoints refuse a conversation in which a result belongs to no call, or a call has no result. So does the stand-in, so
that a test can be sure that none was ever sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


class InvalidTranscriptError(ValueError):
    """Calls and results do not fit; the message says how."""


@dataclass(frozen=True)
class Said:
    """A message of text."""

    role: str


@dataclass(frozen=True)
class Asked:
    """A call that the model has asked for."""

    call_id: object


@dataclass(frozen=True)
class Answered:
    """The result of a call."""

    call_id: object
    text: str


Entry = Said | Asked | Answered


def of_messages(messages: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    """The entries of the messages of a chat completion."""
    for message in messages:
        if message.get("role") == "tool":
            yield Answered(message.get("tool_call_id"), text_of(message.get("content")))
            continue
        yield Said(str(message.get("role")))
        for call in message.get("tool_calls") or ():
            yield Asked(call.get("id"))


def of_items(items: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    """The entries of the input of a response."""
    for item in items:
        match item.get("type"):
            case "function_call":
                yield Asked(item.get("call_id"))
            case "function_call_output":
                yield Answered(item.get("call_id"), text_of(item.get("output")))
            case _:
                yield Said(str(item.get("role")))


def text_of(content: object) -> str:
    """The text of a message, whether it is one or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def rounds_of(entries: Iterable[Entry]) -> list[list[str]]:
    """The results of each round since the last message of the user, in the order of its calls.

    Raises `InvalidTranscriptError`.
    """
    rounds: list[list[str]] = []
    calls: dict[object, str | None] = {}
    for entry in entries:
        match entry:
            case Said(role):
                _close(calls, rounds)
                if role == "user":
                    rounds.clear()
            case Asked(call_id):
                if calls and None not in calls.values():
                    _close(calls, rounds)
                if not isinstance(call_id, str) or not call_id:
                    raise InvalidTranscriptError("a tool call has no id")
                if call_id in calls:
                    raise InvalidTranscriptError(f"two tool calls have the id {call_id}")
                calls[call_id] = None
            case Answered(call_id, text):
                if call_id not in calls:
                    raise InvalidTranscriptError(f"the tool result {call_id} belongs to no tool call before it")
                if calls[call_id] is not None:
                    raise InvalidTranscriptError(f"the tool call {call_id} has two results")
                calls[call_id] = text
    _close(calls, rounds)
    return rounds


def _close(calls: dict[object, str | None], rounds: list[list[str]]) -> None:
    open_ = [call_id for call_id, result in calls.items() if result is None]
    if open_:
        raise InvalidTranscriptError(f"the tool call {open_[0]} has no result")
    if calls:
        rounds.append([result or "" for result in calls.values()])
        calls.clear()
