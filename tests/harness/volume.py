"""The bytes of a session's volume, read through its sidecar, so that any cluster will do."""

import base64
import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from harness.kube import NotYetError
from harness.tenure import Place
from tenure_api.names import session_pod
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.errors import JournalError
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.schema import DATABASE
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import Journal, Record

_TAR = """
import base64, io, os, sys, tarfile
made = io.BytesIO()
with tarfile.open(fileobj=made, mode="w") as tar:
    for name in os.listdir("/data"):
        if name != "lost+found":  # of the file system, closed to all but root
            tar.add(os.path.join("/data", name), name)
sys.stdout.write(base64.b64encode(made.getvalue()).decode())
"""
_BLOCK = 16


@dataclass(frozen=True)
class Volume:
    """A copy of a session's volume with the data key in hand."""

    files: dict[str, bytes]
    records: list[Record]
    """Every record of the journal, opened."""
    sealed: dict[int, bytes]
    """The same as they are in the file, by sequence."""

    def turns_with(self, text: str) -> set[str]:
        """Turns of which a record says this."""
        return {record.turn for record in self.records if text.encode() in record.payload}

    def sealed_of(self, turns: set[str]) -> list[bytes]:
        """The records of these turns as they are in the file."""
        return [self.sealed[record.sequence] for record in self.records if record.turn in turns]

    def traces(self, sealed: Iterable[bytes]) -> int:
        """How many of the blocks of sealed records are in some file, at whatever place.

        A block has 16 bytes: of a residue of 31 bytes at least one whole block is found, and none by chance.
        """
        return sum(any(block in content for content in self.files.values()) for one in sealed for block in _blocks(one))


def _blocks(sealed: bytes) -> Iterator[bytes]:
    for start in range(0, len(sealed) - _BLOCK + 1, _BLOCK):
        yield sealed[start : start + _BLOCK]


def volume(place: Place, session: str) -> Volume:
    """Copies the volume of a running session.

    Raises `NotYetError` if the sidecar wrote meanwhile, so that the copy is not of one moment.
    """
    status = place.kube.get("agentsession", session)["status"]
    identity = status["identity"]
    key = base64.b64decode(place.kube.get("secret", place.key(session))["data"]["data-key"])
    packed = base64.b64decode(place.kube.execute(session_pod(status["setName"]), "sidecar", "python3", "-c", _TAR))
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(temporary, filter="data")
        root = Path(temporary)
        files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        try:
            records, sealed = _opened(root / "state", Sealer(key, identity), identity, status["lease"]["generation"])
        except (JournalError, apsw.Error) as error:
            raise NotYetError(f"the copy cannot be read: {error}") from error
    return Volume(files, records, sealed)


def _opened(state: Path, sealer: Sealer, identity: str, generation: int) -> tuple[list[Record], dict[int, bytes]]:
    journal = Journal(state, sealer, identity, SteadyClock(), Lease(state, generation))
    try:
        records = list(journal.records())
    finally:
        journal.abandon()
    db = apsw.Connection(str(state / DATABASE))
    try:
        return records, dict(db.execute("SELECT sequence, sealed FROM record"))
    finally:
        db.close()
