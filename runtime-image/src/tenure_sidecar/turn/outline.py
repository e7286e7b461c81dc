"""The outline of a turn: its text, and the log of what stands between the parts of the text. Pure.

Items, events and the context of later turns are all made from these two, so that they agree with one another whenever
they are made: while the turn runs, after a crash, or long after its end.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tenure_api.report import UnknownOutcome
from tenure_api.wire import CallOutcome, Item, ItemType, Message, Role
from tenure_sidecar.clock import moment
from tenure_sidecar.codec import encode
from tenure_sidecar.journal.records import LogEntry, Round


def approval_id(turn: str, step: int) -> str:
    """The id by which a person decides on a call."""
    return f"mcpr_{turn}_{step}"


def pieces(text: str, log: Iterable[LogEntry]) -> Iterator[str | LogEntry]:
    """Parts of the text and entries in their order. An entry that lies beyond the text comes at its end."""
    place = 0
    for entry in log:
        at = min(max(entry.offset, place), len(text))
        if at > place:
            yield text[place:at]
            place = at
        yield entry
    if place < len(text):
        yield text[place:]


def entry_item(turn: str, entry: LogEntry) -> Item | None:
    """The item that an entry is, if it is one."""
    if entry.call is None and entry.approval is None:
        return None
    made = "mcp" if entry.call is not None else "mcpr"
    return Item(
        id=f"{made}_{turn}_{entry.step}",
        turn=turn,
        role=Role.ASSISTANT,
        created_at=moment(entry.at),
        type=ItemType.CALL if entry.call is not None else ItemType.APPROVAL,
        call=entry.call,
        approval=entry.approval,
    )


def items(turn: str, first: int, text: str, log: Iterable[LogEntry], at: float) -> list[Item]:
    """The output of a turn; `first` is the number of its first item, `at` the time of its messages.

    The text is cut where calls and approvals stand. A message that was begun anew has the attempt in its id.
    """
    found: list[Item] = []
    said, attempt = "", 0

    def message() -> None:
        nonlocal said
        if said:
            found.append(message_item(turn, first + len(found), attempt, said, at))
            said = ""

    for piece in pieces(text, log):
        if isinstance(piece, str):
            said += piece
        elif piece.attempt is not None:
            attempt = piece.attempt
        elif (item := entry_item(turn, piece)) is not None:
            message()
            found.append(item)
    message()
    return found


def unknown_in(turn: str, log: Sequence[LogEntry]) -> UnknownOutcome | None:
    """The latest call of a turn of which nobody knows whether it took effect."""
    for entry in reversed(log):
        if entry.call is not None and entry.call.outcome is CallOutcome.UNKNOWN:
            return UnknownOutcome(turn=turn, step=entry.step, function=entry.call.function, at=moment(entry.at))
    return None


def message_item(turn: str, number: int, attempt: int, text: str, at: float) -> Item:
    """A message of the assistant; `wire.Item` says how its id is made."""
    name = f"msg_{turn}_{number}" + (f"_{attempt}" if attempt else "")
    return Item(id=name, turn=turn, role=Role.ASSISTANT, text=text, created_at=moment(at))


def messages_json(messages: Iterable[Message]) -> bytes:
    """Messages in the form of the chat completions API, joined by commas."""
    return b",".join(encode({"role": m.role.value, "content": m.text}) for m in messages)


def context(asked: Sequence[Message], text: str, log: Iterable[LogEntry], rounds: Iterable[Round]) -> bytes:
    """What later turns show the model of a completed turn: messages of the chat completions API, joined by commas.

    Every call has its result, which the API demands. What the model said with its calls is put before them if the
    answer begins with it; an agent that says something of its own is quoted after its calls.
    """
    calls = {entry.step: entry.call for entry in log if entry.call is not None}
    kept = [one for one in rounds if all(call.step in calls for call in one.calls)]
    spoken = "".join(one.text for one in kept)
    quoted = text.startswith(spoken)
    parts = [messages_json(asked)]
    for one in kept:
        wanted: list[dict[str, Any]] = []
        results: list[bytes] = []
        for call in one.calls:
            made = calls[call.step]
            function = {"name": made.function, "arguments": made.arguments}
            wanted.append({"id": call.call_id, "type": "function", "function": function})
            results.append(encode({"role": "tool", "tool_call_id": call.call_id, "content": made.output}))
        content = one.text if quoted and one.text else None
        parts.append(encode({"role": "assistant", "content": content, "tool_calls": wanted}))
        parts += results
    rest = text[len(spoken) :] if quoted else text
    parts.append(encode({"role": "assistant", "content": rest}))
    return b",".join(parts)
