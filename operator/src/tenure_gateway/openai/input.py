"""What was said: the messages of a request, as the messages of a turn. Text, and files for the workspace."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Any

from tenure_api.wire import Decision, InputFile, Message, Role
from tenure_gateway.openai.body import wrong_type
from tenure_gateway.openai.errors import Json, invalid, unsupported

MAX_MESSAGES = 1024
"""The limit of `wire.TurnRequest.input`."""

MAX_FILES = 16
"""That of `wire.TurnRequest.files`."""
UPLOADS = "uploads"
"""Directory of the workspace in which files of the input are."""

_TEXT_PARTS = ("text", "input_text", "output_text")
_FILE_FIELDS = frozenset({"type", "filename", "file_data"})
_APPROVAL_FIELDS = frozenset({"type", "id", "approval_request_id", "approve", "reason"})
_MAX_REASON = 1024
_ITEM_FIELDS = frozenset({"type", "role", "content", "id", "status", "phase"})
_ROLES = tuple(role.value for role in Role)
_PART_FIELDS = frozenset({"type", "text"})


@dataclass(frozen=True)
class Input:
    """What a request brings: messages and their files, or decisions on calls."""

    messages: list[Message] = field(default_factory=list)
    files: list[InputFile] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


def parse(value: Any, param: str) -> Input:
    """Messages in the form of Chat Completions or of message items of Responses; `param` names the field they came in.

    Several parts of one message are joined by line ends; a file's part says where the file is. Raises `ApiError`.
    """
    if not isinstance(value, list):
        raise wrong_type(param, "a list of messages")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise invalid(f"'{param}' must have from 1 to {MAX_MESSAGES} messages.", param)
    files: dict[str, InputFile] = {}
    read = [_message(item, f"{param}[{position}]", files) for position, item in enumerate(value)]
    if len(files) > MAX_FILES:
        raise invalid(f"'{param}' must have at most {MAX_FILES} files.", param)
    return Input(read, list(files.values()))


def is_decision(value: Any) -> bool:
    """Whether an input decides on calls: then it consists of decisions, and of nothing else."""
    return isinstance(value, list) and any(
        isinstance(item, dict) and item.get("type") == "mcp_approval_response" for item in value
    )


def decisions(value: list[Any], param: str) -> Input:
    """The decisions of an input. Raises `ApiError`."""
    return Input(decisions=[_decision(item, f"{param}[{position}]") for position, item in enumerate(value)])


def _decision(item: Any, where: str) -> Decision:
    if not isinstance(item, dict) or item.get("type") != "mcp_approval_response":
        raise invalid("Send either decisions on calls or messages, not both at once.", where)
    _refuse_fields(item, _APPROVAL_FIELDS, where)
    approval, approve, reason = item.get("approval_request_id"), item.get("approve"), item.get("reason")
    if not isinstance(approval, str):
        raise wrong_type(f"{where}.approval_request_id", "the id of an 'mcp_approval_request'")
    if not isinstance(approve, bool):
        raise wrong_type(f"{where}.approve", "true or false")
    if reason is not None and not isinstance(reason, str):
        raise wrong_type(f"{where}.reason", "a string")
    if reason and len(reason) > _MAX_REASON:
        raise invalid(f"'{where}.reason' must have at most {_MAX_REASON} characters.", f"{where}.reason")
    return Decision(approval=approval, approve=approve, reason=reason or "")


def _message(item: Any, where: str, files: dict[str, InputFile]) -> Message:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object with 'role' and 'content'")
    if item.get("type", "message") != "message":
        raise unsupported(f"{where}.type", "Send items of the type 'message' only: the session has the others.")
    _refuse_fields(item, _ITEM_FIELDS, where)
    role = item.get("role")
    if role in ("tool", "function"):
        raise unsupported(f"{where}.role", "Callers cannot bring tools of their own; send text.")
    if role not in _ROLES:
        raise invalid(f"'{where}.role' must be user, assistant, system or developer.", f"{where}.role")
    return Message(role=Role(role), text=_text(item.get("content"), f"{where}.content", files))


def _text(content: Any, where: str, files: dict[str, InputFile]) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(where, "a string or a list of parts")
    return "\n".join(_part(part, f"{where}[{position}]", files) for position, part in enumerate(content))


def _part(part: Any, where: str, files: dict[str, InputFile]) -> str:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object with 'type' and 'text'")
    match part.get("type"):
        case "input_file":
            return _file(part, where, files)
        case "file":
            _refuse_fields(part, frozenset({"type", "file"}), where)
            return _file(part.get("file"), f"{where}.file", files)
    if part.get("type") not in _TEXT_PARTS:
        raise unsupported(f"{where}.type", "Agents read text and files: send parts of the type 'input_text' or 'text'.")
    _refuse_fields(part, _PART_FIELDS, where)
    value = part.get("text")
    if not isinstance(value, str):
        raise wrong_type(f"{where}.text", "a string")
    return value


def _file(part: Any, where: str, files: dict[str, InputFile]) -> str:
    """Takes up a file, and says to the model where it is."""
    if not isinstance(part, dict):
        raise wrong_type(where, "an object with 'filename' and 'file_data'")
    _refuse_fields(part, _FILE_FIELDS, where)
    name, data = part.get("filename"), part.get("file_data")
    if not isinstance(name, str):
        raise wrong_type(f"{where}.filename", "a string")
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > 255:
        raise invalid(f"'{where}.filename' must be the plain name of a file.", f"{where}.filename")
    if not isinstance(data, str):
        raise wrong_type(f"{where}.file_data", "base64, or a data: URL with base64")
    if data.startswith("data:"):
        data = data.partition(",")[2]
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"'{where}.file_data' is not valid base64.", f"{where}.file_data") from None
    path = f"{UPLOADS}/{name}"
    file = InputFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), data=data)
    if files.setdefault(path, file).sha256 != file.sha256:
        raise invalid(f"There are two files of the name '{name}'.", f"{where}.filename")
    return f"[file /workspace/{path}, {len(content)} bytes]"


def _refuse_fields(value: Json, known: frozenset[str], where: str) -> None:
    """Refuses further fields that say something: an empty one is what a client gets when it sends back an answer."""
    for name, entry in value.items():
        if name not in known and entry not in (None, [], {}, ""):
            raise unsupported(f"{where}.{name}", "Leave it out.")
