"""What was said: the messages of a request, as the messages of a turn. Text only."""

from typing import Any

from tenure_api.wire import Message, Role
from tenure_gateway.openai.body import wrong_type
from tenure_gateway.openai.errors import Json, invalid, unsupported

MAX_MESSAGES = 1024
"""The limit of `wire.TurnRequest.input`."""

_TEXT_PARTS = ("text", "input_text", "output_text")
_ITEM_FIELDS = frozenset({"type", "role", "content", "id", "status", "phase"})
_ROLES = tuple(role.value for role in Role)
_PART_FIELDS = frozenset({"type", "text"})


def messages(value: Any, param: str) -> list[Message]:
    """Messages in the form of Chat Completions or of message items of Responses; `param` names the field they came in.

    Several text parts of one message are joined by line ends. Raises `ApiError` for what is not text.
    """
    if not isinstance(value, list):
        raise wrong_type(param, "a list of messages")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise invalid(f"'{param}' must have from 1 to {MAX_MESSAGES} messages.", param)
    return [_message(item, f"{param}[{position}]") for position, item in enumerate(value)]


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object with 'role' and 'content'")
    if item.get("type", "message") != "message":
        raise unsupported(f"{where}.type", "Send items of the type 'message' only.")
    _refuse_fields(item, _ITEM_FIELDS, where)
    role = item.get("role")
    if role in ("tool", "function"):
        raise unsupported(f"{where}.role", "Callers cannot bring tools of their own; send text.")
    if role not in _ROLES:
        raise invalid(f"'{where}.role' must be user, assistant, system or developer.", f"{where}.role")
    return Message(role=Role(role), text=_text(item.get("content"), f"{where}.content"))


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(where, "a string or a list of text parts")
    return "\n".join(_part(part, f"{where}[{position}]") for position, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object with 'type' and 'text'")
    if part.get("type") not in _TEXT_PARTS:
        raise unsupported(f"{where}.type", "Agents read text only: send parts of the type 'input_text' or 'text'.")
    _refuse_fields(part, _PART_FIELDS, where)
    value = part.get("text")
    if not isinstance(value, str):
        raise wrong_type(f"{where}.text", "a string")
    return value


def _refuse_fields(value: Json, known: frozenset[str], where: str) -> None:
    """Refuses further fields that say something: an empty one is what a client gets when it sends back an answer."""
    for name, entry in value.items():
        if name not in known and entry not in (None, [], {}, ""):
            raise unsupported(f"{where}.{name}", "Leave it out.")
