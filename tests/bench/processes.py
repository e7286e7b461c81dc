"""Processes: how long the sidecar takes from its start until it is ready."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Aim, Figure, compared, in_turn
from bench.pod import Pod

RUNS = 15
LIBRARIES = "import starlette.applications, uvicorn, uvicorn.protocols.http.httptools_impl, uvloop"


def importing() -> float:
    """Seconds in which Python starts, loads what any server of this kind loads, and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    return time.perf_counter() - began


def starting() -> float:
    """Seconds from the start of a sidecar on an empty volume until it takes turns."""
    with tempfile.TemporaryDirectory() as directory, Pod(Path(directory)) as pod:
        return pod.start()


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    importing(), starting()  # what is compiled to byte code once is not measured
    baselines, values = in_turn(RUNS, importing, starting)
    what = "Python starts and imports starlette, uvicorn, httptools, uvloop"
    yield compared("sidecar-start", "s", what, baselines, values, Aim("value", 0.5))
