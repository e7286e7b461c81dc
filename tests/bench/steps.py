"""Steps: what the journal adds to one, and how long a turn with many of them takes to be where it was."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx

from bench.figure import DIRECTORY, Aim, Figure, compared, in_turn
from bench.pod import SIDECAR, Pod

ROUNDS = 20
"""Of a turn; each is a call of the model and one of the tool, and one more of the model is the answer."""
STEPS = 2 * ROUNDS + 1
TURNS = 30
SETTLED_ROUNDS = 100
RECOVERIES = 7
UNJOURNALLED = f"""
import asyncio
from tenure_sidecar.journal.store import Journal, Record

def append(self, turn, step, kind, payload):
    done = asyncio.get_running_loop().create_future()
    self._sequence += 1
    done.set_result(Record(self._sequence, turn, step, kind, int(self._clock.now() * 1e6), payload))
    return done

Journal.append = append
{SIDECAR}
"""
"""The sidecar with a journal that acknowledges at once and keeps nothing."""


def journalling(directory: Path) -> Figure:
    """The same turns in two pods, one of which has a journal that keeps nothing."""
    for name in ("with", "without"):
        (directory / name).mkdir()
    with Pod(directory / "with") as kept, Pod(directory / "without", UNJOURNALLED) as unkept:
        for pod in (kept, unkept):
            pod.start_model()
            pod.start_runtime()
            pod.start()
            pod.turn(f"rounds:{ROUNDS}")

        def a_step(pod: Pod) -> float:
            return pod.turn(f"rounds:{ROUNDS}") / STEPS

        baselines, values = in_turn(TURNS, lambda: a_step(unkept), lambda: a_step(kept))
    what = f"the same loop, whose journal keeps nothing; turns of {STEPS} steps"
    return compared("step-journalling", "ms/step", what, baselines, values, Aim("added", 3))


def recovery(directory: Path) -> Figure:
    """A turn with many settled steps, whose sidecar dies while the model is asked for the next one.

    It is where it was when the model is asked for the same again. The baseline is what the steps took at first.
    """
    baselines, values = [], []
    with Pod(directory) as pod:
        pod.start_model()
        pod.start_runtime()
        pod.start()
        began = time.monotonic()
        Thread(target=_left_alone, args=(pod, f"rounds:{SETTLED_ROUNDS} hangs"), daemon=True).start()
        first = _asked(pod, began)
        for _ in range(RECOVERIES):
            pod.kill()
            pod.start()
            ready = time.monotonic()
            baselines.append(first - began)
            values.append(max(0.0, _asked(pod, ready) - ready))
    what = f"the {2 * SETTLED_ROUNDS} steps at first"
    return compared("turn-recovery", "s", what, baselines, values, Aim("value", 1))


def _left_alone(pod: Pod, text: str) -> None:
    with suppress(httpx.HTTPError, RuntimeError):  # the sidecar is killed meanwhile
        pod.turn(text)


def _asked(pod: Pod, since: float) -> float:
    """When the model was asked for what follows the last settled step, after a moment (as `time.monotonic`)."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        asked = json.loads(pod.http.get(pod.url("/asked", "standin")).text)
        for at, done in asked:
            if at > since and done == SETTLED_ROUNDS:
                return float(at)
        time.sleep(0.01)
    raise TimeoutError("the turn does not go on")


def measure() -> Iterator[Figure]:
    """All figures of this module. On the disk that holds the tree."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for measurement in (journalling, recovery):
        with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
            yield measurement(Path(directory))
