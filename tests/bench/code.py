"""The `code` tool: what a call costs beyond the script that it runs."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx

from bench.figure import DIRECTORY, Aim, Figure, compared
from bench.pod import Pod
from tenure_api.configuration import CodeConfig, ToolConfig
from unit.executor.container import can_isolate, container

CALLS = 100
WARM = 5
SCRIPT = "import json, pathlib\nprint(json.dumps({'sum': sum(range(1000)), 'cwd': str(pathlib.Path.cwd())}))\n"
TOOL = "run"


class Caller:
    """An agent that calls the tool again and again in one turn, each time after a bare run of the same script."""

    def __init__(self, pod: Pod, script: Path) -> None:
        self._script = script
        self._url = pod.url("/v1/tools/call", "proxy")
        self._headers = {"authorization": f"Bearer {pod.token}"}
        self.bare: list[float] = []
        self.called: list[float] = []

    def work(self) -> str:
        """The turn's answer."""
        with httpx.Client(headers=self._headers, timeout=60) as client:
            for n in range(CALLS + WARM):
                bare, called = self._bare(), self._called(client, n)
                if n >= WARM:
                    self.bare.append(bare)
                    self.called.append(called)
        return "done"

    def _bare(self) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, str(self._script)], check=True, capture_output=True)
        return (time.perf_counter() - began) * 1000

    def _called(self, client: httpx.Client, n: int) -> float:
        # The comment makes each call another one.
        arguments = json.dumps({"language": "python", "code": f"{SCRIPT}# {n}\n"})
        began = time.perf_counter()
        answer = client.post(self._url, json={"callId": f"call_{n}", "name": TOOL, "arguments": arguments})
        took = (time.perf_counter() - began) * 1000
        if answer.status_code != 200 or answer.json().get("isError"):
            raise RuntimeError(f"the call failed: {answer.text}")
        return took


@contextmanager
def agent(caller: Caller, port: int) -> Iterator[None]:
    """The caller in the place of the runtime."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            choice = {"index": 0, "message": {"role": "assistant", "content": caller.work()}, "finish_reason": "stop"}
            body = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_request(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def measure() -> Iterator[Figure]:
    """The figure of this module; none on a machine that gives no namespaces to run an executor in."""
    if not can_isolate():
        return
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    tool = ToolConfig(name=TOOL, timeout_seconds=60, code=CodeConfig())
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory, container() as box:
        script = Path(directory) / "script.py"
        script.write_text(SCRIPT)
        with Pod(Path(directory), tools=[tool]) as pod:
            caller = Caller(pod, script)
            pod.environment["TENURE_EXEC_SOCKET"] = str(box.socket)
            pod.start_model()
            with agent(caller, pod.ports["runtime"]):
                pod.start()
                pod.turn("run the script")
    what = "the same script in a new Python process"
    yield compared("code-call", "ms", what, caller.bare, caller.called, Aim("added", 50))
