"""A session with a long history: how much longer it takes to open, and how fast its last turns are read."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figure import DIRECTORY, Aim, Figure, compared, in_turn
from bench.pod import Pod

RECORDS = 10_000
ROUNDS = 3
RECORDS_OF_A_TURN = 2 * (2 * ROUNDS + 1) + 2
"""An intent and a result of each step, the turn's start and its end."""
LAST_TURNS = 50
PAGE = 100
"""The most items that a page may have."""
RUNS = 15
READS = 100


def opening(long: Pod, empty: Pod) -> Figure:
    """From the start of the process until it takes turns, over the same with an empty journal."""

    def seconds(pod: Pod) -> float:
        try:
            return pod.start()
        finally:
            pod.kill()

    baselines, values = in_turn(RUNS, lambda: seconds(empty), lambda: seconds(long))
    return compared(
        "session-open", "s", "the start of a sidecar on an empty volume", baselines, values, Aim("added", 0.3)
    )


def reading(pod: Pod) -> Figure:
    """All items of the last turns, page by page, over as many requests for nothing."""
    pages = [len(page) for page in _pages(pod)]

    def timed(read: Callable[[], object]) -> float:
        began = time.perf_counter()
        read()
        return (time.perf_counter() - began) * 1000

    def nothing() -> None:
        for _ in pages:
            pod.http.get(pod.url("/healthz")).raise_for_status()

    baselines, values = in_turn(READS, lambda: timed(nothing), lambda: timed(lambda: list(_pages(pod))))
    what = f"GET /healthz as often; {sum(pages)} items of {LAST_TURNS} turns on {len(pages)} pages"
    return compared("history-read", "ms", what, baselines, values, Aim("value", 20))


def _pages(pod: Pod) -> Iterator[list[dict[str, object]]]:
    """The items of the last turns, newest first."""
    turns: set[object] = set()
    after = ""
    headers = pod.headers()
    while len(turns) <= LAST_TURNS:
        query = f"/v1/items?limit={PAGE}&order=desc{after}"
        answer = pod.http.get(pod.url(query), headers=headers).raise_for_status()
        page = answer.json()["data"]
        yield page
        turns |= {item["turn"] for item in page}
        after = f"&after={page[-1]['id']}"


def measure() -> Iterator[Figure]:
    """All figures of this module. The history is made by real turns, on the disk that holds the tree."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        for name in ("long", "empty"):
            (Path(directory) / name).mkdir()
        with Pod(Path(directory) / "long") as long, Pod(Path(directory) / "empty") as empty:
            long.start_model()
            long.start_runtime()
            long.start()
            for _ in range(-(-RECORDS // RECORDS_OF_A_TURN)):
                long.turn(f"rounds:{ROUNDS}")
            long.kill()
            yield opening(long, empty)
            long.start()
            yield reading(long)
