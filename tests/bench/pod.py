"""The processes of a session pod on loopback, without a cluster: sidecar, runtime, and a stand-in for model and tool.

What the kubelet would mount is made in a directory.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from bench.standin import FUNCTION
from tenure_api.configuration import HttpConfig, Limits, ModelRoute, ModelTarget, SessionConfig, ToolConfig
from tenure_api.tokens import Signer, new_private_key, public_key
from tenure_api.wire import Message, Role, TurnRequest

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / part) for part in ("operator/src", "runtime-image/src", "tests")]
SIDECAR = "from tenure_sidecar.main import main; main()"
RUNTIME = "from tenure_runtime.main import main; main()"
SESSION = "bench"
PATIENCE = 30.0
"""Seconds for a process to become ready."""
READY = b"GET /readyz HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n"

Json = dict[str, Any]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def process(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process with the project's packages."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def listens(port: int) -> bool:
    """Whether somebody does."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def is_ready(port: int) -> bool:
    """Whether the sidecar of this control port takes turns."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(READY)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Pod:
    """One session. Its volume, the model and the runtime live as long as the object; its sidecar can be killed."""

    def __init__(self, directory: Path, sidecar: str = SIDECAR, tools: Sequence[ToolConfig] = ()) -> None:
        """`sidecar` is the program of its process. Besides `tools` the model may call the stand-in's."""
        self.ports = {name: free_port() for name in ("control", "proxy", "metrics", "runtime", "standin")}
        self._program = sidecar
        self._key = new_private_key()
        self._token = secrets.token_urlsafe(32)
        self._ends = ExitStack()
        self._sidecar: subprocess.Popen[bytes] | None = None
        self._mount(directory, tools)
        self.http = self._ends.enter_context(httpx.Client(timeout=600))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._ends.close()

    def _mount(self, directory: Path, tools: Sequence[ToolConfig]) -> None:
        base = f"http://127.0.0.1:{self.ports['standin']}"
        schema = {"type": "object", "properties": {"article": {"type": "string"}}, "required": ["article"]}
        look = HttpConfig(url=f"{base}/stock/{{article}}", parameters=schema)
        config = SessionConfig(
            agent="shop/helper",
            agent_uid="u",
            agent_generation=1,
            instructions="You are a helpful assistant.",
            model=ModelRoute(api="ChatCompletions", targets=[ModelTarget(name="standin", base_url=f"{base}/v1")]),
            tools=[ToolConfig(name=FUNCTION, description="How many pieces are in stock.", http=look), *tools],
            limits=Limits(max_steps=10_000),
        )
        places = {name: directory / name for name in ("data", "key", "config", "credentials")}
        for place in places.values():
            place.mkdir()
        (places["key"] / "data-key").write_bytes(secrets.token_bytes(32))
        (places["key"] / "pod-token").write_text(self._token)
        (places["config"] / "config.json").write_text(config.model_dump_json(by_alias=True))
        for issuer in ("operator", "gateway"):
            (places["config"] / f"{issuer}.pub").write_text(public_key(self._key))
        self.environment = {
            **{f"TENURE_{name.upper()}_DIR": str(place) for name, place in places.items()},
            **{f"TENURE_{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            "TENURE_IDENTITY": SESSION,
            "TENURE_HOST": "127.0.0.1",
        }

    def start_model(self) -> None:
        """Starts the stand-in."""
        self._lasting([sys.executable, "-m", "bench.standin", str(self.ports["standin"])], {}, "standin")

    def start_runtime(self, base_url: str | None = None) -> None:
        """Starts the built-in loop, at the sidecar or elsewhere."""
        base = base_url or f"http://127.0.0.1:{self.ports['proxy']}/v1"
        environment = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": self._token, "PORT": str(self.ports["runtime"])}
        self._lasting([sys.executable, "-c", RUNTIME], environment, "runtime")

    def _lasting(self, command: Sequence[str], environment: Mapping[str, str], name: str) -> None:
        started = process(command, environment)
        self._ends.callback(started.wait)
        self._ends.callback(started.kill)
        _until(lambda: listens(self.ports[name]), f"the {name}")

    def start(self) -> float:
        """Starts the sidecar; seconds until it takes turns."""
        began = time.perf_counter()
        self._sidecar = process([sys.executable, "-c", self._program], self.environment)
        _until(lambda: is_ready(self.ports["control"]), "the sidecar")
        return time.perf_counter() - began

    def kill(self) -> None:
        """Ends the sidecar as a lost node would."""
        if self._sidecar is not None:
            self._sidecar.kill()
            self._sidecar.wait()
            self._sidecar = None

    def headers(self) -> dict[str, str]:
        """As the gateway proves itself."""
        token = Signer("gateway", self._key).token(SESSION, time.time())
        return {"authorization": f"Bearer {token}"}

    @property
    def token(self) -> str:
        """The token between sidecar and agent container."""
        return self._token

    def url(self, path: str, port: str = "control") -> str:
        """Of one of the processes."""
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def turn(self, text: str) -> float:
        """Milliseconds of one turn. Raises `RuntimeError` if it does not complete."""
        request = TurnRequest(turn=secrets.token_hex(16), input=[Message(role=Role.USER, text=text)])
        body = request.model_dump_json(by_alias=True)
        began = time.perf_counter()
        answer = self.http.post(self.url("/v1/turns"), content=body, headers=self.headers())
        took = (time.perf_counter() - began) * 1000
        end = json.loads(answer.text.splitlines()[-1])
        if answer.status_code != 200 or end["type"] != "ended" or end["turn"]["status"] != "completed":
            raise RuntimeError(f"the turn did not complete: {answer.text[-2000:]}")
        return took


def _until(holds: Any, what: str) -> None:
    end = time.perf_counter() + PATIENCE
    while not holds():
        if time.perf_counter() > end:
            raise TimeoutError(f"{what} was not ready within {PATIENCE:g} s")
        time.sleep(0.002)
