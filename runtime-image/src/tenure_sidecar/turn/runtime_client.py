"""Asks the agent container for the answer to a turn.

It serves OpenAI Chat Completions. The answer may come as a stream or, from an image that ignores `stream`, as a whole.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from tenure_api.wire import RUN_HEADER, Message, Role, TurnRequest
from tenure_sidecar.asgi import JSON, SSE
from tenure_sidecar.codec import decode, encode
from tenure_sidecar.errors import BrokenError, ConnectError, GarbageError, SidecarError
from tenure_sidecar.http_client import Client, Response
from tenure_sidecar.sse import Parser
from tenure_sidecar.turn.outline import messages_json

ANSWER_LIMIT = 16 * 1024 * 1024
"""Most bytes of one answer."""
_ERROR_LIMIT = 64 * 1024
_MESSAGE_LIMIT = 2_000


class RuntimeFailedError(SidecarError):
    """The agent container answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Answered(NamedTuple):
    """The agent's answer."""

    text: str
    finish_reason: str


def request_body(
    agent: str,
    instructions: str,
    history: Iterable[bytes],
    request: TurnRequest,
    functions: Sequence[dict[str, Any]] = (),
) -> bytes:
    """The chat completion request for a turn. `history` holds the messages of earlier turns as JSON.

    `functions` are entries of `tools`.
    """
    messages: list[bytes] = []
    if instructions:
        messages.append(messages_json([Message(role=Role.SYSTEM, text=instructions)]))
    messages += history
    if request.instructions:
        messages.append(messages_json([Message(role=Role.SYSTEM, text=request.instructions)]))
    messages.append(messages_json(request.input))
    options: dict[str, Any] = {"model": agent, "stream": True, "stream_options": {"include_usage": True}}
    chosen = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_completion_tokens": request.max_output_tokens,
    }
    options |= {field: value for field, value in chosen.items() if value is not None}
    if functions:
        options["tools"] = functions
        if request.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = request.parallel_tool_calls
    return encode(options)[:-1] + b',"messages":[' + b",".join(messages) + b"]}"


def well_formed(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can carry and UTF-8 cannot; whole pairs are joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Runtime(Protocol):
    """The agent container as a session sees it; see `RuntimeClient`."""

    async def reach(self) -> None:
        """Raises `ConnectError` while the container does not listen."""

    async def run(self, body: bytes, on_text: Callable[[str], None]) -> Answered:
        """Ask, and pass the text on as it comes."""


class RuntimeClient:
    """The agent container of this pod."""

    def __init__(self, client: Client, port: int, pod_token: Callable[[], str | None]) -> None:
        self._client = client
        self._port = port
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._pod_token = pod_token

    async def reach(self) -> None:
        """Raises `ConnectError` while the container does not listen."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            raise ConnectError(f"nothing listens on port {self._port}") from error
        writer.close()

    async def run(self, body: bytes, on_text: Callable[[str], None], name: str = "") -> Answered:
        """Ask, and pass the text on as it comes. With a `name`, the agent is told it, see `RUN_HEADER`.

        Raises `ConnectError` if the container is not up, `BrokenError` if it dies, `RuntimeFailedError` if it answers
        with an error, and `GarbageError` if it answers with something else than it should.
        """
        token = (self._pod_token() or "").encode()
        headers = [(b"content-type", JSON), (b"authorization", b"Bearer " + token)]
        if name:
            headers.append((RUN_HEADER.encode(), name.encode()))
        response = await self._client.send("POST", self._url, headers, body)
        ended = False
        try:
            if response.status != 200:
                raise _failure(await response.read_all(_ERROR_LIMIT), f"the agent answered {response.status}")
            if response.content_type == SSE:
                answered = await _streamed(response, on_text)
                ended = True
                return answered
            answered = _whole(await response.read_all(ANSWER_LIMIT))
        finally:
            response.close(ended)
        on_text(answered.text)
        return answered


async def _streamed(response: Response, on_text: Callable[[str], None]) -> Answered:
    parser, texts, finish_reason, size = Parser(), [], "", 0
    while part := await response.read():
        size += len(part)
        if size > ANSWER_LIMIT:
            raise GarbageError(f"the agent's answer is longer than {ANSWER_LIMIT} bytes")
        fresh, done = [], False
        for event in parser.feed(part):
            if event.data == b"[DONE]":
                done = True
                break
            text, finished = _delta(event.data)
            fresh.append(text)
            finish_reason = finished or finish_reason
        if any(fresh):
            texts += fresh
            on_text(well_formed("".join(fresh)))
        if done:
            break
    if not finish_reason:
        raise BrokenError("the agent's answer ended in the middle")
    return Answered(well_formed("".join(texts)), finish_reason)


def _delta(data: bytes) -> tuple[str, str]:
    """Text and finish reason of one chunk, empty if it has none."""
    chunk = _object(data)
    if chunk.get("error"):
        raise _failure(data, "the agent failed in the middle of its answer")
    match chunk.get("choices"):
        case [{"delta": dict(delta)} as choice, *_]:
            return _text(delta.get("content")), _text(choice.get("finish_reason"))
        case [dict(choice), *_]:
            return "", _text(choice.get("finish_reason"))
    return "", ""


def _whole(body: bytes) -> Answered:
    match _object(body).get("choices"):
        case [{"message": {"content": str(text)}} as choice, *_]:
            return Answered(well_formed(text), _text(choice.get("finish_reason")) or "stop")
    raise GarbageError("the agent's answer is not a chat completion with text")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = decode(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise GarbageError("the agent's answer is not a JSON object")
    return value


def _failure(body: bytes, otherwise: str) -> RuntimeFailedError:
    """The error of the agent in its own words, if it has any."""
    try:
        error = _object(body).get("error")
    except GarbageError:
        error = None
    error = error if isinstance(error, dict) else {}
    message = _text(error.get("message")) or otherwise
    return RuntimeFailedError(_text(error.get("code")) or "runtime_error", well_formed(message[:_MESSAGE_LIMIT]))
