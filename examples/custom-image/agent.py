"""An agent loop of your own: it writes a draft, with tools if it has any, and shortens what is long.

It needs Python's standard library alone.

Tenure asks of an image that it serve OpenAI Chat Completions on port 8000 and call its model with OPENAI_API_KEY at
OPENAI_BASE_URL. Each request carries the instructions and the whole conversation, so the loop keeps nothing itself.
The functions that the model may call are in `tools`; the sidecar makes the calls. All calls of models and tools are
recorded: if the pod dies during a turn, the turn is run again, and calls that have been answered are answered from the
record. For that, the same request must lead to the same calls: no clock, no chance, no state of its own.
"""

import hmac
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIDECAR = os.environ["OPENAI_BASE_URL"].rstrip("/")
KEY = os.environ["OPENAI_API_KEY"]

LONG = 40
"""Words from which on a draft is shortened."""
SHORTEN = "Say that again in fewer words."


Json = dict[str, Any]


def post(path: str, body: Json) -> HTTPResponse:
    """One call of the sidecar, its answer still unread. Raises `HTTPError` with what it said if it refused."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    call = urllib.request.Request(SIDECAR + path, json.dumps(body).encode(), headers)  # noqa: S310 - by http
    answering: HTTPResponse = urllib.request.urlopen(call)  # noqa: S310
    return answering


def call_tool(call: Json) -> Json:
    """Makes a call that the model has asked for; returns the message with its result. That it failed is one, too."""
    asked = {"callId": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
    with post("/tools/call", asked) as answering:
        return {"role": "tool", "tool_call_id": call["id"], "content": json.load(answering)["output"]}


def draft(request: Json) -> tuple[list[Json], Json]:
    """Asks the model, not streamed, until it asks for no more tools; returns all messages, and the last completion."""
    asked = {name: value for name, value in request.items() if name not in ("stream", "stream_options")}
    messages = list(request["messages"])
    while True:
        with post("/chat/completions", {**asked, "messages": messages}) as answering:
            completion: Json = json.load(answering)
        message = completion["choices"][0]["message"]
        calls = message.get("tool_calls")
        if not calls:
            return messages, completion
        with ThreadPoolExecutor(len(calls)) as threads:
            results = threads.map(call_tool, calls)
        messages += [{"role": "assistant", "content": message.get("content"), "tool_calls": calls}, *results]


def shorten(request: Json, messages: list[Json], text: str) -> HTTPResponse:
    """One more model call; streamed if the request says so. It needs no tools."""
    revision = [{"role": "assistant", "content": text}, {"role": "user", "content": SHORTEN}]
    asked = {name: value for name, value in request.items() if name not in ("tools", "parallel_tool_calls")}
    return post("/chat/completions", {**asked, "messages": [*messages, *revision]})


def as_stream(completion: Json) -> bytes:
    """A whole chat completion as the events of a streamed one."""
    (choice,) = completion["choices"]
    chunk = {
        **{name: completion[name] for name in ("id", "created", "model")},
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": choice["message"], "finish_reason": choice["finish_reason"]}],
        "usage": completion.get("usage"),
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    """Serves `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One turn."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {KEY}"):
            self.reply(401, b'{"error": {"message": "wrong bearer token", "type": "invalid_request_error"}}')
        elif self.path != "/v1/chat/completions":
            self.reply(404, b'{"error": {"message": "no such path", "type": "invalid_request_error"}}')
        else:
            try:
                self.answer(json.loads(body))
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.read())
            except OSError:
                self.close_connection = True  # the sidecar has ended this run, and begins it again when it can go on

    def answer(self, request: Json) -> None:
        """The loop itself."""
        messages, completion = draft(request)
        text = completion["choices"][0]["message"]["content"] or ""
        if len(text.split()) >= LONG:
            with shorten(request, messages, text) as answering:
                self.pass_on(answering)
        elif request.get("stream"):
            self.reply(200, as_stream(completion), "text/event-stream")
        else:
            self.reply(200, json.dumps(completion).encode())

    def pass_on(self, answering: HTTPResponse) -> None:
        """Sends the model's answer on, token by token as it comes."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", answering.headers["Content-Type"])
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := answering.read1():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Sends an answer that is complete."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Logs no requests: there is one for each turn, and the conversation is nobody's business."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()  # noqa: S104
