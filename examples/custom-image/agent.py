"""An agent loop of your own: it thinks first and answers then, with nothing but Python's standard library.

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

THINK = "Before you answer: write down in one sentence what the user wants. Do not answer yet."
ANSWER = "What the user wants, as you have written it down: {thought}\nNow answer the user."


def call_model(request: dict[str, Any]) -> HTTPResponse:
    """One model call, its answer still unread. Raises `HTTPError` with what the model said if it refused."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    call = urllib.request.Request(MODEL, json.dumps(request).encode(), headers)  # noqa: S310 - the sidecar, by http
    answering: HTTPResponse = urllib.request.urlopen(call)  # noqa: S310
    return answering


def think(request: dict[str, Any]) -> str:
    """The first call: what does the user want?"""
    asked = {"model": request["model"], "messages": [*request["messages"], {"role": "system", "content": THINK}]}
    with call_model(asked) as answer:
        content: str = json.load(answer)["choices"][0]["message"]["content"]
        return content


def answer(request: dict[str, Any], thought: str) -> HTTPResponse:
    """The second call: the answer, streamed if the request says so."""
    known = {"role": "system", "content": ANSWER.format(thought=thought)}
    return call_model({**request, "messages": [*request["messages"], known]})


class Handler(BaseHTTPRequestHandler):
    """Serves `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One turn."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {KEY}"):
            self.refuse(401, b'{"error": {"message": "wrong bearer token", "type": "invalid_request_error"}}')
        elif self.path != "/v1/chat/completions":
            self.refuse(404, b'{"error": {"message": "no such path", "type": "invalid_request_error"}}')
        else:
            try:
                request = json.loads(body)
                with answer(request, think(request)) as answering:
                    self.pass_on(answering)
            except urllib.error.HTTPError as error:
                self.refuse(error.code, error.read())

    def pass_on(self, answering: HTTPResponse) -> None:
        """Sends the model's answer on, token by token as it comes."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", answering.headers["Content-Type"])
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := answering.read1():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, body: bytes) -> None:
        """Sends an error."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Logs no requests: there is one for each turn, and the conversation is nobody's business."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()  # noqa: S104
