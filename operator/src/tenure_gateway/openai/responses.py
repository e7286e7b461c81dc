"""The Responses API: what clients send. A response is a turn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenure_api.wire import Decision, InputFile, Message, Role, TurnOptions, TurnRequest
from tenure_gateway.openai import body as read
from tenure_gateway.openai import input as said
from tenure_gateway.openai.errors import Json, invalid, unsupported

_KNOWN = frozenset(
    {
        "model",
        "input",
        "conversation",
        "previous_response_id",
        "background",
        "parallel_tool_calls",
        "stream",
        "instructions",
        "temperature",
        "top_p",
        "max_output_tokens",
        "metadata",
        "store",
    }
)
_HINTS = frozenset({"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"})
_TOOLS = read.Unsupported("An agent brings its own tools.", ([],))
_WITHOUT_EFFECT = {
    "access_programs": read.Unsupported("Leave it out.", ({},)),
    "background_options": read.Unsupported("Leave it out.", ({},)),
    "context_management": read.Unsupported(
        "Leave it out: the oldest turns are left out when they no longer fit.", ([],)
    ),
    "image": read.Unsupported("Agents read and write text only.", ({},)),
    "include": read.Unsupported("Leave it out.", ([],)),
    "max_tool_calls": read.Unsupported("Leave it out."),
    "moderation": read.Unsupported("Leave it out."),
    "prompt": read.Unsupported("Write what the prompt says into 'instructions'."),
    "reasoning": read.Unsupported("Leave it out: the agent's model decides.", ({},)),
    "service_tier": read.Unsupported("Leave it out.", ("auto", "default")),
    "stream_options": read.Unsupported("Leave it out.", ({}, {"include_obfuscation": False})),
    "text": read.Unsupported(
        "Agents answer in plain text: leave it out, or ask for the format in 'instructions'.",
        (
            {},
            {"format": {"type": "text"}},
            {"format": {"type": "text"}, "verbosity": "medium"},
            {"verbosity": "medium"},
        ),
    ),
    "tool_choice": read.Unsupported("An agent brings its own tools.", ("auto", "none")),
    "tools": _TOOLS,
    "top_logprobs": read.Unsupported("Leave it out.", (0,)),
    "truncation": read.Unsupported("The oldest turns are left out when they no longer fit: send 'auto'.", ("auto",)),
}


@dataclass(frozen=True)
class ResponseRequest:
    """What a client asks for. `conversation` and `previous` are ids as the client sent them; at most one is given."""

    model: str | None
    input: list[Message]
    files: list[InputFile]
    decisions: list[Decision]
    conversation: str | None
    previous: str | None
    background: bool
    stream: bool
    store: bool
    instructions: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    parallel_tool_calls: bool | None
    metadata: dict[str, str]

    def turn(self, turn: str, previous_turn: str | None) -> TurnRequest:
        """The turn to run."""
        return TurnRequest(
            turn=turn,
            input=self.input,
            files=self.files,
            instructions=self.instructions,
            previous_turn=previous_turn,
            temperature=self.temperature,
            top_p=self.top_p,
            max_output_tokens=self.max_output_tokens,
            parallel_tool_calls=self.parallel_tool_calls,
            background=self.background,
            metadata=self.metadata,
        )

    def refuse_other_options(self, options: TurnOptions) -> None:
        """Refuses what a decision on a call cannot change: how its response is answered was settled when it began.

        Clients that send the same parameters with every request are not refused. Raises `ApiError`.
        """
        for name in ("instructions", "temperature", "top_p", "max_output_tokens", "parallel_tool_calls"):
            value = getattr(self, name)
            if value is not None and value != getattr(options, name):
                raise unsupported(name, "It was settled when the response began: leave it out of an approval.")
        if self.metadata and self.metadata != options.metadata:
            raise unsupported("metadata", "It was settled when the response began: leave it out of an approval.")


def parse(body: Json) -> ResponseRequest:
    """The body of `POST /v1/responses`. Raises `ApiError`."""
    read.refuse_others(body, _KNOWN, _WITHOUT_EFFECT, _HINTS)
    conversation, previous = _conversation(body.get("conversation")), read.text(body, "previous_response_id")
    if conversation is not None and previous is not None:
        raise invalid("Send 'conversation' or 'previous_response_id', not both.", "previous_response_id")
    store = read.flag(body, "store", True)
    if not store and (conversation is not None or previous is not None):
        raise unsupported(
            "store", "What is said in a conversation is kept in it: leave out 'store', or the conversation."
        )
    background = read.flag(body, "background", False)
    if background and not store:
        raise unsupported("background", "What is not stored cannot be asked for later: leave out 'store'.")
    model = read.text(body, "model")
    given = _input(body.get("input"))
    if given.decisions and conversation is None and previous is None:
        message = "Name the response that waits with 'previous_response_id', or its 'conversation'."
        raise invalid(message, "previous_response_id", "missing_required_parameter")
    if model is None and conversation is None and previous is None:
        raise invalid("'model' is missing: GET /v1/models lists yours.", "model", "missing_required_parameter")
    return ResponseRequest(
        model=model,
        input=given.messages,
        files=given.files,
        decisions=given.decisions,
        conversation=conversation,
        previous=previous,
        background=background,
        stream=read.flag(body, "stream", False),
        store=store,
        instructions=read.text(body, "instructions"),
        temperature=read.number(body, "temperature", 2),
        top_p=read.number(body, "top_p", 1),
        max_output_tokens=read.count(body, "max_output_tokens"),
        parallel_tool_calls=read.flag(body, "parallel_tool_calls", True) if "parallel_tool_calls" in body else None,
        metadata=read.metadata(body),
    )


def _conversation(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("id")
        if value is None:
            raise read.wrong_type("conversation.id", "a string")
    if value is not None and not isinstance(value, str):
        raise read.wrong_type("conversation", "the id of a conversation, or an object with 'id'")
    return value


def _input(value: Any) -> said.Input:
    if value is None:
        raise invalid("'input' is missing: send a text or a list of messages.", "input", "missing_required_parameter")
    if isinstance(value, str):
        return said.Input([Message(role=Role.USER, text=value)])
    return said.decisions(value, "input") if said.is_decision(value) else said.parse(value, "input")


@dataclass(frozen=True)
class Retrieval:
    """How a response is asked for: as it is, or its events after a number."""

    stream: bool
    after: int


def retrieval(query: Mapping[str, str]) -> Retrieval:
    """The query of `GET /v1/responses/{id}`. Raises `ApiError`."""
    for name, value in query.items():
        if name not in ("stream", "starting_after") and value != "false":
            raise unsupported(name, "Leave it out.")
    stream, after = query.get("stream", "false"), query.get("starting_after")
    if stream not in ("true", "false"):
        raise read.wrong_type("stream", "true or false")
    if after is None:
        return Retrieval(stream == "true", -1)
    if stream != "true":
        raise invalid("'starting_after' is for streams: send stream=true with it.", "starting_after")
    if not (after.isascii() and after.isdigit() and len(after) <= 15):
        raise invalid("'starting_after' must be the 'sequence_number' of an event.", "starting_after")
    return Retrieval(stream=True, after=int(after))
