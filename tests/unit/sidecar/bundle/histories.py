"""Sessions with a history, and ways to write and take their bundles without a process around them."""

import base64
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenure_api.bundle import sha256, sign
from tenure_api.report import Origin
from tenure_api.unpacking import Inspection
from tenure_api.wire import Message, Role, TurnRequest, TurnStatus
from tenure_sidecar.bundle.reader import Arrival
from tenure_sidecar.bundle.staging import Staging
from tenure_sidecar.bundle.writer import About, Writer
from tenure_sidecar.journal.records import (
    AskedCall,
    Entry,
    FunctionsSeen,
    ModelIntent,
    ModelResult,
    ToolIntent,
    TurnEnd,
    TurnStart,
)
from tenure_sidecar.journal.store import Journal, Record
from tenure_sidecar.workspace.files import Files
from unit.sidecar.support import HandClock, open_journal

KEY = bytes(range(100, 132))
HEADER = {"X-Tenure-Bundle-Key": base64.b64encode(KEY).decode()}
OTHER_IDENTITY = "0d6d2a0e-0000-4000-8000-000000000002"


class Place:
    """A volume with a journal and a workspace."""

    def __init__(self, directory: Path, identity: str = "one") -> None:
        self.state, self.workspace = directory / "state", directory / "workspace"
        for path in (self.state, self.workspace):
            path.mkdir(parents=True, exist_ok=True)
        self.clock = HandClock()
        self.identity = identity
        self.files = Files(self.workspace, 0)
        self.staging = Staging(self.state, self.workspace, 0)
        self.key = sha256(identity.encode())[:32].encode()

    def open(self) -> Journal:
        return open_journal(self.state, self.key, self.clock, self.identity)

    def records(self) -> list[Record]:
        """All records of its turns."""
        journal = self.open()
        try:
            return [record for record in journal.records() if record.turn]
        finally:
            journal.abandon()

    def tree(self) -> dict[str, tuple[bytes, bool]]:
        """All files of the workspace: what they hold, and whether they can be run."""
        return {
            str(path.relative_to(self.workspace)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
            for path in self.workspace.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def is_empty(self) -> bool:
        """Whether nothing is left of a bundle that was refused."""
        journal = self.open()
        try:
            return not (any(journal.records()) or self.staging.there or any(self.workspace.iterdir()))
        finally:
            journal.abandon()

    def fill(self, seed: int = 1) -> None:
        """Some files."""
        chance = random.Random(seed)
        for path in ("a.txt", "reports/é 1.csv", "reports/deep/er/x" + "y" * 150, "run.sh", "empty"):
            target = self.workspace / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"" if path == "empty" else chance.randbytes(chance.randrange(1, 9_000)))
        (self.workspace / "run.sh").chmod(0o750)


async def talk(journal: Journal, clock: HandClock, turns: int, start: int = 0, ended: bool = True) -> None:
    """Turns with a model call and a tool call each; the last one is left open if it has not `ended`."""
    for number in range(start, start + turns):
        turn = sha256(f"turn {number}".encode())[:32]
        said = [Message(role=Role.USER, text=f"question {number} … \u2028 \U0001f600")]
        call = AskedCall(
            call_id=f"c{number}", function="look", tool="look", arguments='{"n": 1.0}', digest="d", round=1
        )
        entries: list[tuple[int, Entry]] = [
            (0, TurnStart(request=TurnRequest(turn=turn, input=said), agent="bot", instructions="Be brief.")),
            (1, ModelIntent(digest="d")),
            (1, ModelResult(digest="d", body='{"x": "\\ud83d"}' + "z" * (number % 7) * 100)),
            (2, ToolIntent(call=call, replay="Safe")),
            (0, TurnEnd(status=TurnStatus.COMPLETED, text=f"answer {number}")),
        ]
        last = number == start + turns - 1
        for step, entry in entries[:-1] if last and not ended else entries:
            clock.advance(0.25)
            await journal.append(turn, step, entry.kind, entry.payload())
        if number == start:
            await journal.replace(FunctionsSeen.kind, FunctionsSeen(functions={"look": "{}"}).payload())


async def bundle_of(
    place: Place,
    journal: Journal,
    at: int | None = None,
    key: bytes | None = None,
    lineage: list[Origin] | None = None,
    signed_elsewhere: bool = False,
) -> bytes:
    writer = Writer(journal, place.files, About("shop/one", "bot", "alice", lineage or []), key)
    await writer.plan(at)
    return b"".join([part async for part in writer.parts(signed_elsewhere)])


async def a_bundle(directory: Path, turns: int = 3, key: bytes | None = None, signer: str | None = None) -> bytes:
    """The bundle of a session of its own; signed with this key if it is given."""
    place = Place(directory)
    place.fill()
    journal = place.open()
    await talk(journal, place.clock, turns)
    body = await bundle_of(place, journal, key=key, signed_elsewhere=signer is not None)
    await journal.close()
    return body if signer is None else signed(body, signer)


def signed(body: bytes, signer: str) -> bytes:
    """The bundle as the gateway completes it."""
    inspection = Inspection()
    for _ in inspection.feed(body):
        pass
    assert inspection.unpacker.unfinished
    return body + sign(signer, inspection.manifest_digest, sha256(body))


@contextmanager
def arriving(place: Place, key: bytes | None = None, digest: str | None = None) -> Iterator[Arrival]:
    journal = place.open()
    arrival = Arrival(journal.restoration(), place.staging, key, digest, 0)
    try:
        yield arrival
    finally:
        arrival.abort()
        place.staging.move_in()
        journal.abandon()


def take(place: Place, data: bytes, key: bytes | None = None, digest: str | None = None, step: int = 4_096) -> None:
    """Take a bundle up as a sidecar does."""
    with arriving(place, key, digest) as arrival:
        for at in range(0, len(data), step):
            arrival.feed(data[at : at + step])
        arrival.finish()
