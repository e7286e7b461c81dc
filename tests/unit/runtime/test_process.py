"""The process itself: how it starts, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(sys.path),
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "OPENAI_API_KEY": "pod-token",
}


@contextmanager
def started(**environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tenure_runtime.main"]
    process = subprocess.Popen(command, env={**ENVIRONMENT, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_serves_and_ends_in_good_order_when_told_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started(PORT=str(port)) as process:
        transport = httpx.HTTPTransport(retries=10)
        with httpx.Client(transport=transport, timeout=30) as http:
            assert http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


def test_a_missing_setting_is_said_in_one_line() -> None:
    with started(OPENAI_API_KEY="") as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said == "tenure-runtime: OPENAI_API_KEY must be set\n"
