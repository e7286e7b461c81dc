"""The entries of a transcript as OpenAI's items: messages, calls of tools, and requests for approval.

All calls are shown as calls of MCP tools, whatever the tool is: of the forms that OpenAI has, it is the one for tools
that the server calls itself, and the only one that knows approvals.
"""

from tenure_api.wire import Call, CallOutcome, Item, ItemType, Role
from tenure_gateway.openai.errors import Json

_STATUS = {CallOutcome.COMPLETED: "completed", CallOutcome.UNKNOWN: "incomplete"}
"""Statuses of calls; that of the others is `failed`."""


def item(entry: Item, status: str = "completed") -> Json:
    """One entry. `status` is that of a message."""
    match entry.type:
        case ItemType.CALL if entry.call is not None:
            return _call(entry.id, entry.call)
        case ItemType.APPROVAL if entry.approval is not None:
            asked = entry.approval
            return {
                "id": entry.id,
                "type": "mcp_approval_request",
                "server_label": asked.tool,
                "name": asked.function,
                "arguments": asked.arguments,
            }
    if entry.role is Role.ASSISTANT:
        return message(entry.id, [output_text(entry.text)], status)
    content = [{"type": "input_text", "text": entry.text}]
    return {"id": entry.id, "type": "message", "status": status, "role": entry.role.value, "content": content}


def begun(shown: Json) -> Json:
    """A shown item as it was when it began."""
    return {**shown, "status": "in_progress", "output": None, "error": None} if shown["type"] == "mcp_call" else shown


def message(identifier: str, content: list[Json], status: str) -> Json:
    """A message of the assistant's."""
    return {"id": identifier, "type": "message", "status": status, "role": "assistant", "content": content}


def output_text(text: str) -> Json:
    """A part of an answer."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(identifier: str, call: Call) -> Json:
    done = call.outcome is CallOutcome.COMPLETED
    told = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": call.output}]}
    return {
        "id": identifier,
        "type": "mcp_call",
        "status": _STATUS.get(call.outcome, "failed"),
        "server_label": call.tool,
        "name": call.function,
        "arguments": call.arguments,
        "output": call.output if done else None,
        "error": None if done else told,
        "approval_request_id": call.approval,
    }
