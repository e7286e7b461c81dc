"""Processes: how long the sidecar takes from its start until it is ready."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Aim, Figure, compared, in_turn
from tenure_api.configuration import ModelRoute, ModelTarget, SessionConfig

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / part) for part in ("operator/src", "runtime-image/src")]
RUNS = 15
LIBRARIES = "import starlette.applications, uvicorn, uvicorn.protocols.http.httptools_impl, uvloop"
SIDECAR = "from tenure_sidecar.main import main; main()"
READY = b"GET /readyz HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def volumes(directory: Path) -> Mapping[str, str]:
    """What the kubelet would mount, and the environment that says where it is."""
    model = ModelRoute(api="ChatCompletions", targets=[ModelTarget(name="scripted", base_url="http://127.0.0.1:1/v1")])
    config = SessionConfig(agent="shop/helper", agent_uid="u", agent_generation=1, model=model)
    places = {name: directory / name for name in ("data", "key", "config", "credentials")}
    for place in places.values():
        place.mkdir()
    (places["key"] / "data-key").write_bytes(secrets.token_bytes(32))
    (places["key"] / "pod-token").write_text(secrets.token_urlsafe(32))
    (places["config"] / "config.json").write_text(config.model_dump_json(by_alias=True))
    return {f"TENURE_{name.upper()}_DIR": str(place) for name, place in places.items()}


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(READY)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@contextmanager
def sidecar(directory: Path) -> Iterator[int]:
    """A sidecar as a process of its own, just started; its control port."""
    ports = {name: free_port() for name in ("control", "proxy", "metrics", "runtime")}
    environment = {
        **os.environ,
        **volumes(directory),
        **{f"TENURE_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        "PYTHONPATH": os.pathsep.join(PATHS),
        "TENURE_SESSION_UID": "bench",
        "TENURE_HOST": "127.0.0.1",
    }
    process = subprocess.Popen([sys.executable, "-c", SIDECAR], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield ports["control"]
    finally:
        process.kill()
        process.wait()


def importing() -> float:
    """Seconds in which Python starts, loads what any server of this kind loads, and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    return time.perf_counter() - began


def starting() -> float:
    """Seconds from the start of a sidecar on an empty volume until it takes turns."""
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        with sidecar(Path(directory)) as port:
            while not is_ready(port):
                if time.perf_counter() - began > 30:
                    raise TimeoutError("the sidecar was not ready within 30 s")
                time.sleep(0.002)
            return time.perf_counter() - began


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    importing(), starting()  # what is compiled to byte code once is not measured
    baselines, values = in_turn(RUNS, importing, starting)
    what = "Python starts and imports starlette, uvicorn, httptools, uvloop"
    yield compared("sidecar-start", "s", what, baselines, values, Aim("value", 0.5))
