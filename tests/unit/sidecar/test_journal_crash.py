"""A process that appends is killed at random moments: no acknowledged record is lost, none is doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from unit.sidecar.support import open_journal

KILLS = 200 if os.environ.get("TENURE_SOAK") == "1" else 20
ROOT = Path(__file__).parents[3]

CHILD = """
import asyncio, os, random, sys
from pathlib import Path
from unit.sidecar.support import open_journal
from tenure_sidecar.clock import SteadyClock

async def write(journal, life, writer):
    turn = f"{life:08x}{writer:024x}"
    for step in range(10_000):
        payload = b"%d.%d.%d " % (life, writer, step) + os.urandom(random.choice([10, 500, 5000]))
        record = await journal.append(turn, step, "kind", payload)
        if step % 3 == 0:  # asked again, as after a lost answer
            assert await journal.append(turn, step, "kind", b"again") == record
        os.write(1, b"%d %s %d %s\\n" % (record.sequence, turn.encode(), step, payload[:24].hex().encode()))
        if writer == 0 and step % 40 == 39:
            await journal.erase([f"{life:08x}{9:024x}"])

async def main():
    journal = open_journal(Path(sys.argv[1]), clock=SteadyClock())
    os.write(1, b"open\\n")
    await asyncio.gather(*(write(journal, int(sys.argv[2]), writer) for writer in range(8)))

asyncio.run(main())
"""


def live_and_die(directory: Path, life: int, seconds: float) -> list[bytes]:
    """What a child acknowledged before it was killed."""
    paths = [str(ROOT / part) for part in ("operator/src", "runtime-image/src", "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(life)], env=environment, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        os.set_blocking(child.stdout.fileno(), False)
        said, until = b"", time.monotonic() + seconds
        while time.monotonic() < until:
            said += child.stdout.read() or b""
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        os.set_blocking(child.stdout.fileno(), True)
        said += child.stdout.read()
    return [line for line in said.split(b"\n")[:-1] if line.count(b" ") == 3]


@pytest.mark.soak
async def test_no_acknowledged_record_is_lost_or_doubled_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random()
    acknowledged: dict[tuple[str, int], tuple[int, str]] = {}
    for life in range(KILLS):
        for line in live_and_die(tmp_path, life, chance.uniform(0.001, 0.08)):
            sequence, turn, step, payload = line.decode().split(" ")
            acknowledged[turn, int(step)] = int(sequence), payload
        if life % 20 == 19 or life == KILLS - 1:
            journal = open_journal(tmp_path)
            records = list(journal.records())
            found = {(r.turn, r.step): (r.sequence, r.payload[:24].hex()) for r in records}
            assert len(found) == len(records)
            assert acknowledged.items() <= found.items()
            assert [r.sequence for r in records] == sorted({r.sequence for r in records})
            assert all(later.at >= earlier.at for earlier, later in pairwise(records))
            await journal.close()
    assert len(acknowledged) > KILLS
