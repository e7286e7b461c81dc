"""The Responses API: requests, responses and the events of a streamed response.

A response is a turn. `metadata` and sampling parameters are shown in the answer to the request that brought them; a
response that is retrieved later shows what is recorded: its output, usage and outcome.
"""

from dataclasses import dataclass, field
from typing import Any

import pydantic_core

from tenure_api.wire import Message, Role, Turn, TurnRequest, TurnStatus
from tenure_gateway.ids import Key, conversation_id, response_id
from tenure_gateway.openai import body as read
from tenure_gateway.openai import input as said
from tenure_gateway.openai.conversations import item, output_text
from tenure_gateway.openai.errors import ApiError, Json, invalid, turn_failed, unsupported
from tenure_gateway.openai.sse import event

_KNOWN = frozenset(
    {
        "model",
        "input",
        "conversation",
        "previous_response_id",
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
    "background": read.Unsupported("Leave it out: a turn goes on and is kept when its client disconnects.", (False,)),
    "background_options": read.Unsupported("Leave it out.", ({},)),
    "context_management": read.Unsupported(
        "Leave it out: the oldest turns are left out when they no longer fit.", ([],)
    ),
    "image": read.Unsupported("Agents read and write text only.", ({},)),
    "include": read.Unsupported("Leave it out.", ([],)),
    "max_tool_calls": read.Unsupported("Leave it out."),
    "moderation": read.Unsupported("Leave it out."),
    "parallel_tool_calls": read.Unsupported("Leave it out.", (True, False)),
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
    conversation: str | None
    previous: str | None
    stream: bool
    store: bool
    instructions: str | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    metadata: dict[str, str]

    def turn(self, turn: str, previous_turn: str | None) -> TurnRequest:
        """The turn to run."""
        return TurnRequest(
            turn=turn,
            input=self.input,
            instructions=self.instructions,
            previous_turn=previous_turn,
            temperature=self.temperature,
            top_p=self.top_p,
            max_output_tokens=self.max_output_tokens,
        )


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
    model = read.text(body, "model")
    if model is None and conversation is None and previous is None:
        raise invalid("'model' is missing: GET /v1/models lists yours.", "model", "missing_required_parameter")
    return ResponseRequest(
        model=model,
        input=_input(body.get("input")),
        conversation=conversation,
        previous=previous,
        stream=read.flag(body, "stream", False),
        store=store,
        instructions=read.text(body, "instructions"),
        temperature=read.number(body, "temperature", 2),
        top_p=read.number(body, "top_p", 1),
        max_output_tokens=read.count(body, "max_output_tokens"),
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


def _input(value: Any) -> list[Message]:
    if value is None:
        raise invalid("'input' is missing: send a text or a list of messages.", "input", "missing_required_parameter")
    if isinstance(value, str):
        return [Message(role=Role.USER, text=value)]
    return said.messages(value, "input")


@dataclass(frozen=True)
class Frame:
    """What is known of a response besides its turn. `created` is in seconds since the epoch."""

    session: Key
    turn: str
    model: str
    created: float
    kept: bool
    """Whether it can be retrieved and continued; a throwaway session's cannot."""
    request: ResponseRequest | None = None
    """The request that asks for it now; None when it is retrieved."""

    @property
    def id(self) -> str:
        """Its id."""
        return response_id(self.session, self.turn)


def response(frame: Frame, turn: Turn | None) -> Json:
    """A response; without a turn, one that has just begun."""
    request = frame.request
    shown = {
        "id": frame.id,
        "object": "response",
        "created_at": int(turn.created_at.timestamp() if turn is not None else frame.created),
        "status": "in_progress",
        "background": False,
        "conversation": {"id": conversation_id(frame.session)} if frame.kept else None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions if request else None,
        "max_output_tokens": request.max_output_tokens if request else None,
        "metadata": request.metadata if request else {},
        "model": frame.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": request.previous if request else None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": frame.kept,
        "temperature": request.temperature if request else None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": request.top_p if request else None,
        "truncation": "auto",
        "usage": None,
    }
    return shown if turn is None else shown | _outcome(turn)


def _outcome(turn: Turn) -> Json:
    """What an ended turn, or one that still runs, adds to a response."""
    if turn.status is TurnStatus.IN_PROGRESS:
        return {}
    outcome: Json = {"usage": _usage(turn), "output": [item(entry) for entry in turn.output]}
    if turn.status is TurnStatus.FAILED:
        # OpenAI's list of codes is closed: ours goes into the message.
        failure = turn_failed(turn)
        code = "rate_limit_exceeded" if failure.status == 429 else "server_error"
        error = {"code": code, "message": f"{failure.code}: {failure.message}"}
        return outcome | {"status": "failed", "error": error}
    if turn.finish_reason == "length":
        for entry in outcome["output"]:
            entry["status"] = "incomplete"
        return outcome | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return outcome | {"status": "completed"}


def _usage(turn: Turn) -> Json:
    return {
        "input_tokens": turn.usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": turn.usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": turn.usage.input_tokens + turn.usage.output_tokens,
    }


@dataclass
class Events:
    """Writes the events of one streamed response, numbered, in the order that OpenAI documents."""

    frame: Frame
    item_id: str
    """Id of the answer's message; `wire.Item` says how it is made."""
    _number: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)

    def opening(self) -> bytes:
        """The turn is recorded."""
        shown = response(self.frame, None)
        return self._event("response.created", response=shown) + self._event("response.in_progress", response=shown)

    def text(self, text: str) -> bytes:
        """More text. This one is on the hot path."""
        begin = self._begin()
        return b'%bevent: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"%b",' % (
            begin,
            self.item_id.encode(),
        ) + b'"output_index":0,"content_index":0,"delta":%b,"logprobs":[],"sequence_number":%d}\n\n' % (
            pydantic_core.to_json(text),
            self._next(),
        )

    def closing(self, turn: Turn) -> bytes:
        """The turn has ended and is on disk."""
        shown = response(self.frame, turn)
        done = self._begin() + self._done(turn.output[0].text, shown["output"][0]) if turn.output else b""
        return done + self._event(f"response.{shown['status']}", response=shown)

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _begin(self) -> bytes:
        """Announces the answer, once."""
        if self._begun:
            return b""
        self._begun = True
        message = {"id": self.item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return self._event("response.output_item.added", output_index=0, item=message) + self._event(
            "response.content_part.added", **self._place(), part=output_text("")
        )

    def _done(self, text: str, message: Json) -> bytes:
        return (
            self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=output_text(text))
            + self._event("response.output_item.done", output_index=0, item=message)
        )

    def _place(self) -> Json:
        return {"item_id": self.item_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields, "sequence_number": self._next()})

    def _next(self) -> int:
        number = self._number
        self._number += 1
        return number
