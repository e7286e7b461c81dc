"""What a model's answer says, whichever API it came by."""

from typing import Any, NamedTuple

from tenure_sidecar.codec import decode


class WantedCall(NamedTuple):
    """A call that the model asks for."""

    call_id: str
    name: str
    arguments: str


class Said(NamedTuple):
    """Text and calls of an answer."""

    text: str
    calls: tuple[WantedCall, ...]


NOTHING = Said("", ())


def said(body: str) -> Said:
    """What an answer says, given as the JSON of a chat completion or of a response; nothing if it is neither.

    Of calls with one id the later ones have `_` appended, as the built-in agent does it.
    """
    try:
        answer = decode(body.encode())
    except ValueError:
        return NOTHING
    match answer:
        case {"choices": [{"message": dict(message)}, *_]}:
            return _told_apart(_of_message(message))
        case {"output": list(items)}:
            return _told_apart(_of_items([item for item in items if isinstance(item, dict)]))
    return NOTHING


def _told_apart(said: Said) -> Said:
    taken: set[str] = set()
    calls = []
    for call in said.calls:
        call_id = call.call_id
        while call_id in taken:
            call_id += "_"
        taken.add(call_id)
        calls.append(call._replace(call_id=call_id))
    return Said(said.text, tuple(calls))


def _of_message(message: dict[str, Any]) -> Said:
    found = []
    for call in message.get("tool_calls") or []:
        match call:
            case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
                found.append(WantedCall(call_id, name, arguments))
    content = message.get("content")
    return Said(content if isinstance(content, str) else "", tuple(found))


def _of_items(items: list[dict[str, Any]]) -> Said:
    texts, found = [], []
    for item in items:
        match item:
            case {"type": "message", "content": list(parts)}:
                texts += [
                    text
                    for part in parts
                    if isinstance(part, dict) and isinstance(text := part.get("text") or part.get("refusal"), str)
                ]
            case {"type": "function_call", "call_id": str(call_id), "name": str(name), "arguments": str(arguments)}:
                found.append(WantedCall(call_id, name, arguments))
    return Said("".join(texts), tuple(found))
