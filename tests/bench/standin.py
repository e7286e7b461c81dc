"""A model and a tool that cost next to nothing, in one process: `python -m bench.standin PORT`.

The model calls the tool as often as the input's `rounds:N` says, one call after the other, and then answers; if the
input says `hangs`, it never gives that answer.
"""

import asyncio
import json
import re
import sys
import time
from typing import Any

import uvicorn

Json = dict[str, Any]
ANSWER = "The order was shipped on Monday and should arrive within three working days. " * 8
STOCK = "There are 42 teapots in stock, 17 of them in the shop. " * 4
FUNCTION = "look"


class StandIn:
    """The application. Remembers when it was asked with how many results of calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        path = scope["path"]
        if path == "/v1/chat/completions":
            await self._model(json.loads(body), send)
        elif path == "/asked":
            await _respond(send, json.dumps(self.asked), b"application/json")
        elif path == "/v1/models":
            await _respond(send, '{"object": "list", "data": []}', b"application/json")
        else:
            await _respond(send, STOCK, b"text/plain")

    async def _model(self, request: Json, send: Any) -> None:
        messages = request["messages"]
        last = max(n for n, message in enumerate(messages) if message["role"] == "user")
        done = sum(message["role"] == "tool" for message in messages[last:])
        self.asked.append((time.monotonic(), done))
        said = str(messages[last]["content"])
        rounds = re.search(r"rounds:(\d+)", said)
        if rounds and done < int(rounds[1]):
            await _say(send, request, _call(done), "tool_calls")
        elif "hangs" in said:
            await asyncio.sleep(3600)
        else:
            await _say(send, request, {"content": ANSWER}, "stop")


def _call(n: int) -> Json:
    function = {"name": FUNCTION, "arguments": json.dumps({"article": f"teapot-{n}"})}
    return {"content": None, "tool_calls": [{"index": 0, "id": f"call_{n}", "type": "function", "function": function}]}


async def _say(send: Any, request: Json, message: Json, finish: str) -> None:
    usage = {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400}
    head = {"id": "c", "created": 1, "model": "standin"}
    said: Json = {"role": "assistant", **message}
    if not request.get("stream"):
        choice = {"index": 0, "message": said, "finish_reason": finish}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        await _respond(send, json.dumps(whole), b"application/json")
        return
    parts: list[Json] = [
        {"choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": usage},
    ]
    events = [json.dumps({**head, "object": "chat.completion.chunk", **part}) for part in parts]
    await _respond(send, "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]), b"text/event-stream")


async def _respond(send: Any, text: str, kind: bytes) -> None:
    body = text.encode()
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(StandIn(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="off")
