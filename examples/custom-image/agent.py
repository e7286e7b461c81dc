"""An agent loop of your own: it writes a draft and shortens what is long, with Python's standard library alone.

Tenure asks of an image that it serve OpenAI Chat Completions on port 8000 and call its model with OPENAI_API_KEY at
OPENAI_BASE_URL. Each request carries the instructions and the whole conversation, so the loop keeps nothing itself.
Its model calls are recorded: if the pod dies during a turn, the turn is run again, and calls that have been answered
are answered from the record. For that, the same request must lead to the same calls in the same order: no clock, no
chance, no state of its own.
"""

import hmac
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = os.environ["OPENAI_BASE_URL"].rstrip("/") + "/chat/completions"
KEY = os.environ["OPENAI_API_KEY"]

LONG = 40
"""Words from which on a draft is shortened."""
SHORTEN = "Say that again in fewer words."


def call_model(request: dict[str, Any]) -> HTTPResponse:
    """One model call, its answer still unread. Raises `HTTPError` with what the model said if it refused."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    call = urllib.request.Request(MODEL, json.dumps(request).encode(), headers)  # noqa: S310 - the sidecar, by http
    answering: HTTPResponse = urllib.request.urlopen(call)  # noqa: S310
    return answering


def draft(request: dict[str, Any]) -> dict[str, Any]:
    """The first call, not streamed: a whole chat completion."""
    asked = {name: value for name, value in request.items() if name not in ("stream", "stream_options")}
    with call_model(asked) as answering:
        completion: dict[str, Any] = json.load(answering)
        return completion


def shorten(request: dict[str, Any], text: str) -> HTTPResponse:
    """The second call, if there is one; streamed if the request says so."""
    revision = [{"role": "assistant", "content": text}, {"role": "user", "content": SHORTEN}]
    return call_model({**request, "messages": [*request["messages"], *revision]})


def as_stream(completion: dict[str, Any]) -> bytes:
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

    def answer(self, request: dict[str, Any]) -> None:
        """The loop itself."""
        completion = draft(request)
        text = completion["choices"][0]["message"]["content"]
        if len(text.split()) >= LONG:
            with shorten(request, text) as answering:
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
