"""The journal alone: what a durable append costs over the disk's own price, and how many go through at once."""

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvloop

from bench.figure import DIRECTORY, Aim, Baseline, Figure, compared
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.sealing import KEY_BYTES, Sealer
from tenure_sidecar.journal.store import Journal, Record

PAYLOAD = secrets.token_hex(1024).encode()
"""2 KiB."""
ROUNDS = 2_000
WRITERS = 64
SECONDS = 2.0
RATE_RUNS = 5
STEPS = 16
"""Of one turn."""
SESSION = "bench"


class BareFile:
    """The least that makes 2 KiB durable: written over blocks that the file has, so that no metadata follows."""

    SLOTS = 4_096

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
        os.pwrite(self._file, bytes(self.SLOTS * len(PAYLOAD)), 0)
        os.fsync(self._file)
        self._written = 0

    def write(self) -> None:
        os.pwrite(self._file, PAYLOAD, self._written % self.SLOTS * len(PAYLOAD))
        os.fdatasync(self._file)
        self._written += 1

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def bare_file(directory: Path) -> Iterator[BareFile]:
    file = BareFile(directory)
    try:
        yield file
    finally:
        file.close()


@asynccontextmanager
async def journal(directory: Path) -> AsyncIterator[Journal]:
    opened = Journal(
        directory, Sealer(secrets.token_bytes(KEY_BYTES), SESSION), SESSION, SteadyClock(), Lease(directory, 1)
    )
    try:
        yield opened
    finally:
        await opened.close()


def appends(to: Journal) -> Iterator[Callable[[], Awaitable[Record]]]:
    """One append after the other: the steps of one turn, then those of the next, since a session runs one at a time."""
    while True:
        turn = secrets.token_hex(16)
        for step in range(STEPS):
            yield lambda turn=turn, step=step: to.append(turn, step, "model.result", PAYLOAD)  # type: ignore[misc]


async def latency(directory: Path) -> Figure:
    """One append at a time, each after one bare write of as many bytes."""
    bare, sealed = [], []
    with bare_file(directory) as file:
        async with journal(directory) as opened:
            appending = appends(opened)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                file.write()
                bare.append((time.perf_counter() - began) * 1000)
                append = next(appending)
                began = time.perf_counter()
                await append()
                sealed.append((time.perf_counter() - began) * 1000)
    return compared("journal-append", "ms", "bare fdatasync of 2 KiB", bare, sealed, Aim("ratio", 3))


async def rate(directory: Path) -> Figure:
    """Many writers at once; before each run the disk is asked how many bare writes it takes."""
    bare, sealed = [], []
    with bare_file(directory) as file:
        async with journal(directory) as opened:
            for _ in range(RATE_RUNS):
                bare.append(per_second(file))
                sealed.append(await appended_per_second(opened))
    what = f"bare fdatasync of 2 KiB, one after the other; {WRITERS} writers append"
    base, aim = Baseline(what, statistics.median(bare)), Aim("value", 15_000, at_least=True)
    return Figure("journal-rate", "appends/s", statistics.median(sealed), None, base, (aim,), RATE_RUNS)


def per_second(file: BareFile) -> float:
    end, count = time.perf_counter() + SECONDS / 4, 0
    while time.perf_counter() < end:
        file.write()
        count += 1
    return count / (SECONDS / 4)


async def appended_per_second(to: Journal) -> float:
    began = time.perf_counter()
    end = began + SECONDS

    appending = appends(to)

    async def writer() -> int:
        count = 0
        for append in appending:
            if time.perf_counter() > end:
                break
            await append()
            count += 1
        return count

    total = sum(await asyncio.gather(*(writer() for _ in range(WRITERS))))
    return total / (time.perf_counter() - began)


def measure() -> Iterator[Figure]:
    """All figures of this module. On the disk that holds the tree, on the event loop and with the switch interval
    that the sidecar has."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        for measurement in (latency, rate):
            with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
                yield uvloop.run(measurement(Path(directory)))
    finally:
        sys.setswitchinterval(before)
