"""Chat Completions: what clients send.

Clients of this API send the whole history with every request. A session has its own: so in a session that the client
chose (`metadata.conversation`, or the header `X-Tenure-Session`), only the messages after the last one of the assistant
are new, and what comes before them is not looked at. Without a session, a throwaway one gets all messages.
"""

from dataclasses import dataclass

from tenure_api.wire import InputFile, Message, Role, TurnRequest
from tenure_gateway.openai import body as read
from tenure_gateway.openai import input as said
from tenure_gateway.openai.errors import Json, invalid

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
        "parallel_tool_calls",
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
    files: list[InputFile]
    conversation: str | None
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    parallel_tool_calls: bool | None

    def turn(self, turn: str) -> TurnRequest:
        """The turn to run."""
        return TurnRequest(
            turn=turn,
            input=self.input,
            files=self.files,
            temperature=self.temperature,
            top_p=self.top_p,
            max_output_tokens=self.max_output_tokens,
            parallel_tool_calls=self.parallel_tool_calls,
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
    given = said.parse(body["messages"], "messages")
    if chosen is not None:
        # Files of earlier messages are in the workspace already, where the agent may have changed them.
        given = said.parse(body["messages"][first_new(given.messages) :], "messages")
    return ChatRequest(
        model=model,
        input=given.messages,
        files=given.files,
        conversation=chosen,
        stream=stream,
        include_usage=_include_usage(body, stream),
        temperature=read.number(body, "temperature", 2),
        top_p=read.number(body, "top_p", 1),
        max_output_tokens=_max_tokens(body),
        parallel_tool_calls=read.flag(body, "parallel_tool_calls", True) if "parallel_tool_calls" in body else None,
    )


def first_new(messages: list[Message]) -> int:
    """Where begins what a session has not heard yet: after the assistant's last message.

    Raises `ApiError` if there is nothing.
    """
    last = max((n for n, message in enumerate(messages) if message.role is Role.ASSISTANT), default=-1)
    if last == len(messages) - 1:
        raise invalid("The last message is the assistant's: there is nothing new to answer.", "messages")
    return last + 1


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
