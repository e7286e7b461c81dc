"""Chat Completions: requests, completions and chunks.

Clients of this API send the whole history with every request. A session has its own: so in a session that the client
chose (`metadata.conversation`, or the header `X-Tenure-Session`), only the messages after the last one of the assistant
are new, and what comes before them is not looked at. Without a session, a throwaway one gets all messages.
"""

from dataclasses import dataclass

from tenure_api.wire import Message, Role, Turn, TurnRequest, TurnStatus
from tenure_gateway.openai import body as read
from tenure_gateway.openai import input as said
from tenure_gateway.openai.errors import ApiError, Json, invalid, turn_failed
from tenure_gateway.openai.sse import data

SESSION_HEADER = "x-tenure-session"
SESSION_KEY = "conversation"
"""Key of the metadata that chooses a session."""

_KNOWN = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "metadata",
    }
)
_HINTS = frozenset({"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"})
_TOOLS = "An agent brings its own tools."
_MODEL = "Leave it out: the agent's model decides."
_WITHOUT_EFFECT = {
    "audio": read.Unsupported("Agents read and write text only."),
    "frequency_penalty": read.Unsupported(_MODEL, (0,)),
    "function_call": read.Unsupported(_TOOLS, ("auto", "none")),
    "functions": read.Unsupported(_TOOLS, ([],)),
    "logit_bias": read.Unsupported(_MODEL, ({},)),
    "logprobs": read.Unsupported("Leave it out.", (False,)),
    "modalities": read.Unsupported("Agents read and write text only.", (["text"],)),
    "moderation": read.Unsupported("Leave it out."),
    "n": read.Unsupported("A turn has one answer: send a request for each.", (1,)),
    "parallel_tool_calls": read.Unsupported("Leave it out.", (True, False)),
    "prediction": read.Unsupported("Leave it out."),
    "presence_penalty": read.Unsupported(_MODEL, (0,)),
    "reasoning_effort": read.Unsupported(_MODEL),
    "response_format": read.Unsupported(
        "Agents answer in plain text: leave it out, or ask for the format in a message.", ({"type": "text"},)
    ),
    "seed": read.Unsupported(_MODEL),
    "service_tier": read.Unsupported("Leave it out.", ("auto", "default")),
    "stop": read.Unsupported("Leave it out.", ([],)),
    "store": read.Unsupported(
        "Choose a conversation with metadata.conversation: what is said in it is kept.", (False,)
    ),
    "tool_choice": read.Unsupported(_TOOLS, ("auto", "none")),
    "tools": read.Unsupported(_TOOLS, ([],)),
    "top_logprobs": read.Unsupported("Leave it out.", (0,)),
    "verbosity": read.Unsupported(_MODEL, ("medium",)),
    "web_search_options": read.Unsupported(_TOOLS),
}


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for. `conversation` is an id as the client sent it."""

    model: str
    input: list[Message]
    conversation: str | None
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None

    def turn(self, turn: str) -> TurnRequest:
        """The turn to run."""
        return TurnRequest(
            turn=turn,
            input=self.input,
            temperature=self.temperature,
            top_p=self.top_p,
            max_output_tokens=self.max_output_tokens,
        )


def parse(body: Json, session_header: str | None) -> ChatRequest:
    """The body of `POST /v1/chat/completions` and its header `X-Tenure-Session`. Raises `ApiError`."""
    read.refuse_others(body, _KNOWN, _WITHOUT_EFFECT, _HINTS)
    model = read.text(body, "model")
    if model is None:
        raise invalid("'model' is missing: GET /v1/models lists yours.", "model", "missing_required_parameter")
    if body.get("messages") is None:
        raise invalid("'messages' is missing: send a list of messages.", "messages", "missing_required_parameter")
    stream = read.flag(body, "stream", False)
    conversation = read.metadata(body).get(SESSION_KEY)
    if conversation is not None and session_header is not None and conversation != session_header:
        raise invalid("The header X-Tenure-Session names another conversation.", f"metadata.{SESSION_KEY}")
    chosen = conversation or session_header
    messages = said.messages(body["messages"], "messages")
    return ChatRequest(
        model=model,
        input=messages if chosen is None else new_messages(messages),
        conversation=chosen,
        stream=stream,
        include_usage=_include_usage(body, stream),
        temperature=read.number(body, "temperature", 2),
        top_p=read.number(body, "top_p", 1),
        max_output_tokens=_max_tokens(body),
    )


def new_messages(messages: list[Message]) -> list[Message]:
    """What a session has not heard yet: the messages after the assistant's last.

    Raises `ApiError` if there are none.
    """
    last = max((n for n, message in enumerate(messages) if message.role is Role.ASSISTANT), default=-1)
    if last == len(messages) - 1:
        raise invalid("The last message is the assistant's: there is nothing new to answer.", "messages")
    return messages[last + 1 :]


def _max_tokens(body: Json) -> int | None:
    old, new = read.count(body, "max_tokens"), read.count(body, "max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise invalid("'max_tokens' is the old name of 'max_completion_tokens': send one of them.", "max_tokens")
    return old if new is None else new


def _include_usage(body: Json, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise read.wrong_type("stream_options", "an object")
    if not stream:
        raise invalid("'stream_options' is for streams: send 'stream': true with it.", "stream_options")
    harmless = {"include_obfuscation": read.Unsupported("Leave it out.", (False,))}
    read.refuse_others(options, frozenset({"include_usage"}), harmless, frozenset())
    return read.flag(options, "include_usage", False)


@dataclass(frozen=True)
class Frame:
    """What is known of a completion besides its turn. `created` is in seconds since the epoch."""

    turn: str
    model: str
    created: int

    def _shown(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self.turn}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": choices,
        }

    def completion(self, turn: Turn) -> Json:
        """The whole completion."""
        message: Json = {"role": "assistant", "content": _answer(turn), "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}
        return self._shown("chat.completion", [choice]) | {"usage": _usage(turn)}

    def chunk(self, delta: Json, finish: str | None) -> Json:
        """A piece of it."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._shown("chat.completion.chunk", [choice])

    def usage_chunk(self, turn: Turn) -> Json:
        """The piece that tells the usage."""
        return self._shown("chat.completion.chunk", []) | {"usage": _usage(turn)}


@dataclass(frozen=True)
class Chunks:
    """Writes the chunks of one streamed completion: the role, text, the reason of its end, `[DONE]`."""

    frame: Frame
    include_usage: bool

    def opening(self) -> bytes:
        """The turn is recorded."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, text: str) -> bytes:
        """More text."""
        return self._chunk({"content": text})

    def closing(self, turn: Turn) -> bytes:
        """The turn has ended and is on disk."""
        if turn.status is TurnStatus.FAILED:
            return self.error(turn_failed(turn))
        usage = data(self.frame.usage_chunk(turn)) if self.include_usage else b""
        return self._chunk({}, _finish(turn)) + usage + b"data: [DONE]\n\n"

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on."""
        return data(error.body())

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        chunk = self.frame.chunk(delta, finish)
        return data(chunk | {"usage": None} if self.include_usage else chunk)


def _answer(turn: Turn) -> str:
    return "".join(entry.text for entry in turn.output)


def _finish(turn: Turn) -> str:
    return "length" if turn.finish_reason == "length" else "stop"


def _usage(turn: Turn) -> Json:
    return {
        "prompt_tokens": turn.usage.input_tokens,
        "completion_tokens": turn.usage.output_tokens,
        "total_tokens": turn.usage.input_tokens + turn.usage.output_tokens,
    }
