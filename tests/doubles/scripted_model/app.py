"""The stand-in's HTTP face, as a plain ASGI application: as the baseline of benches it must cost little."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from ..control.holds import DroppedError, Holds
from .calls import Calls
from .conversation import Call, InvalidRequestError, answer, of_chat, of_response
from .program import InvalidProgramError, Step, step
from .script import Lie, Script, directed, modelled, tags, without_tags
from .shapes import Answer, ChatShape, ResponseShape, Shape, Usage, error
from .transcript import InvalidTranscriptError, rounds_of

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_WORD = re.compile(r"\s*\S+(?:\s+$)?|\s+")
_HEADERS = (b"authorization", b"x-tenure-cut-turns")
_JSON = [(b"content-type", b"application/json")]
_EVENTS = [(b"content-type", b"text/event-stream")]
_ENDLESS_PIECE = b"x" * 65536
_ENDLESS_PIECES = 16384  # 1 GiB: more than any client should read of one line


class ClientGoneError(Exception):
    """The client has closed the connection."""


class ScriptedModel:
    """The stand-in. `require_api_key` is the bearer token that all of `/v1` wants, if any."""

    def __init__(self, require_api_key: str | None = None) -> None:
        self.calls = Calls()
        self.holds = Holds()
        self._key = require_api_key
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        match (scope["method"], scope["path"]):
            case ("POST", "/v1/chat/completions"):
                await self._ask("chat.completions", scope, receive, send)
            case ("POST", "/v1/responses"):
                await self._ask("responses", scope, receive, send)
            case ("GET", "/v1/models"):
                model = {"id": "scripted", "object": "model", "created": 0, "owned_by": "tenure-tests"}
                await _reply(send, 200, {"object": "list", "data": [model]})
            case (method, path) if path.startswith("/control/"):
                await _reply(send, *self._control(method, path, parse_qs(scope["query_string"].decode())))
            case _:
                await _reply(send, 404, error(404, "there is nothing at this path"))

    def _control(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The inspection endpoints: status and answer."""
        tag = query.get("tag", [None])[0]
        match (method, path):
            case ("GET", "/control/calls"):
                return 200, self.calls.report(tag)
            case ("GET", "/control/refused"):
                return 200, self.calls.refused(tag)
            case ("GET", "/control/hold"):
                return 200, self.holds.report(query["name"][0])
            case ("POST", "/control/hold"):
                self.holds.set(query["name"][0])
                return 200, {}
            case ("POST", "/control/release"):
                self.holds.release(query["name"][0], query.get("drop") == ["true"])
                return 200, {}
            case ("POST", "/control/reset"):
                self.calls.reset()
                self.holds.reset()
                return 200, {}
        return 404, error(404, "there is nothing at this path")

    async def _ask(self, api: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode() for name, value in scope["headers"] if name in _HEADERS}
        authorization = headers.get(b"authorization")
        try:
            body = json.loads(await _body(receive))
            call = of_chat(body) if api == "chat.completions" else of_response(body)
            text = without_tags(call.last_user_text)
            named = tags(call.last_user_text)
            rounds = rounds_of(call.entries)
            planned = step(text, rounds)
            if planned is not None:
                _check(planned, call)
        except InvalidTranscriptError as problem:
            self.calls.refuse(str(problem), named, body)
            await _reply(send, 400, error(400, f"Invalid conversation: {problem}."))
            return
        except (ValueError, AttributeError) as problem:
            ours = isinstance(problem, InvalidRequestError | InvalidProgramError)
            await _reply(send, 400, error(400, str(problem) if ours else "the body is not a JSON object"))
            return
        record = self.calls.add(api, call, named, body, authorization)
        record["cut_turns"] = headers.get(b"x-tenure-cut-turns")
        script = modelled(call.model, directed(text) if planned is None else _scripted(planned))
        script = replace(script, holds=tuple(f"{tag}/{len(rounds)}" for tag in named))
        try:
            wire = Wire(receive, send, self.holds)
            record["ended"] = await self._play(script, api, call, text, authorization, wire)
        except ClientGoneError:
            record["ended"] = "aborted"
        except DroppedError:
            record["ended"] = "failed"

    async def _play(
        self, script: Script, api: str, call: Call, text: str, authorization: str | None, wire: "Wire"
    ) -> str:
        refusal = self._refusal(script, call, authorization)
        if refusal is not None:
            await _reply(wire.send, refusal[0], error(*refusal))
            return "failed"
        if script.lie is not None:
            await _lie(script.lie, call.stream, wire)
            return "failed"
        self._number += 1
        now = int(time.time())
        shape: Shape
        if api == "chat.completions":
            shape = ChatShape(self._number, call.model, now, call.usage_in_stream)
        else:
            shape = ResponseShape(self._number, call.model, now)
        return await _tell(script, call, answer(call, text) if script.text is None else script.text, shape, wire)

    def _refusal(self, script: Script, call: Call, authorization: str | None) -> tuple[int, str, str | None] | None:
        """Status, message and code of the error that the call gets, if it gets one."""
        for key in (self._key, script.key):
            if key is not None and authorization != f"Bearer {key}":
                return 401, "Incorrect API key provided.", "invalid_api_key"
        if script.status != 200:
            fails = script.fail_key is None or self.calls.fails_again(script.fail_key, script.fail_times)
            if fails:
                code = "invalid_api_key" if script.status == 401 else None
                return script.status, f"The script says {script.status}.", code
        if script.window is not None and call.words > script.window:
            message = (
                f"This model's maximum context length is {script.window} tokens. "
                f"However, your messages resulted in {call.words} tokens."
            )
            return 400, message, "context_length_exceeded"
        return None


class Wire:
    """The connection to the client."""

    def __init__(self, receive: Receive, send: Send, holds: Holds) -> None:
        self._receive = receive
        self._holds = holds
        self.send = send

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends the status, 200."""
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def piece(self, body: bytes) -> None:
        """Sends a part of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Sends the last part of the body."""
        await self.send({"type": "http.response.body", "body": body})

    async def pause(self, seconds: float) -> None:
        """Lets time pass. Raises `ClientGoneError` as soon as the client is gone."""
        try:
            message = await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError:
            return
        if message["type"] == "http.disconnect":
            raise ClientGoneError

    async def hold(self, names: tuple[str, ...], where: str) -> None:
        """Waits at holds. Raises `ClientGoneError` as soon as the client is gone, or `DroppedError`."""
        for name in names:
            await self._hold(f"{name}/{where}")

    async def _hold(self, name: str) -> None:
        waiting, leaving = asyncio.ensure_future(self._holds.wait(name)), asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ClientGoneError
            waiting.result()
        finally:
            waiting.cancel()
            leaving.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _check(planned: Step, call: Call) -> None:
    """Raises `InvalidProgramError` if the program calls what the request does not offer."""
    for wanted in planned.calls:
        if wanted.name not in call.functions:
            offered = ", ".join(call.functions) or "none"
            raise InvalidProgramError(f"the program calls {wanted.name}; the request offers: {offered}")


def _scripted(planned: Step) -> Script:
    return Script(text=planned.say, before_seconds=planned.delay, calls=planned.calls)


async def _tell(script: Script, call: Call, text: str, shape: Shape, wire: Wire) -> str:
    """Sends an answer as the script says; returns how it ended."""
    words: list[str] = _WORD.findall(text)
    cut_short = call.limit is not None and len(words) > call.limit
    if cut_short:
        words = words[: call.limit]
        text = "".join(words)
    said = Answer(text, Usage(call.words, len(words) + len(script.calls)), cut_short, script.calls)
    if script.before_seconds:
        await wire.pause(script.before_seconds)
    await wire.hold(script.holds, "before")
    if not call.stream:
        for n in range(len(words)):
            await _wait(script, n, wire)
        await wire.hold(script.holds, "after")
        whole = json.dumps(shape.whole(said)).encode()
        await wire.start(_JSON)
        if script.cut_after is not None:
            await wire.piece(whole[: len(whole) // 2])
            return "failed"
        await wire.end(whole)
        return "complete"
    await wire.start(_EVENTS)
    ready = [shape.begin(bool(words) or not script.calls)]
    for n, word in enumerate(words):
        if n == script.cut_after:
            break
        if script.waits:
            await wire.piece(b"".join(ready))
            ready.clear()
            await _wait(script, n, wire)
        ready.append(shape.word(word))
    if script.cut_after is not None:
        await wire.piece(b"".join(ready) if script.cut_after else b"")
        return "failed"  # to return without the end of the body makes the server close the connection
    calls, last = shape.end(said)
    ready.append(calls)
    if script.holds:
        await wire.piece(b"".join(ready))
        ready.clear()
        await wire.hold(script.holds, "after")
    await wire.end(b"".join([*ready, last]))
    return "complete"


async def _wait(script: Script, n: int, wire: Wire) -> None:
    """The time before word `n`, counted from 0."""
    seconds = script.word_seconds + (script.pause_seconds if n == script.pause_after else 0)
    if seconds:
        await wire.pause(seconds)


async def _lie(lie: Lie, stream: bool, wire: Wire) -> None:
    match lie:
        case Lie.GARBAGE:
            await wire.start(_EVENTS if stream else _JSON)
            await wire.end(b'data: {"choices": [{"del\xff\x00\n\n' if stream else b'{"choices": [\xff\x00')
        case Lie.WRONG_TYPE:
            await wire.start([(b"content-type", b"text/html")])
            await wire.end(b"<html><body><h1>Welcome</h1></body></html>")
        case Lie.ENDLESS_LINE:
            await wire.start(_EVENTS if stream else _JSON)
            await wire.piece(b"data: ")
            for _ in range(_ENDLESS_PIECES):
                await wire.piece(_ENDLESS_PIECE)
                await wire.pause(0.001)


async def _reply(send: Send, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    headers = [*_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
