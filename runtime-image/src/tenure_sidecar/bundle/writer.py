"""Writes the session as a bundle while the session goes on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from tenure_api import bundle
from tenure_api.bundle import Manifest, Payloads
from tenure_api.report import Origin
from tenure_sidecar.bundle import lines
from tenure_sidecar.bundle.envelope import OVERHEAD, Envelope, Flow, Unchanged
from tenure_sidecar.bundle.packer import Packer
from tenure_sidecar.errors import BrokenOffError, RefusedError
from tenure_sidecar.journal import extract
from tenure_sidecar.journal.extract import Sealed, Sized
from tenure_sidecar.journal.records import TurnEnd
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.workspace.files import Files, InvalidPathError, NoFileError, Opened

_PART = 262_144


@dataclass(frozen=True)
class About:
    """What the manifest says of the session besides what is in the bundle."""

    session: str
    agent: str
    subject: str
    lineage: list[Origin]


@dataclass
class _Chosen:
    """The records that are in the bundle."""

    upto: int
    sequence: int = 0
    records: int = 0
    turns: int = 0
    size: int = 0

    def count(self, sized: list[Sized], sealed: bool) -> int:
        """Count some more of them in; the number of the last one."""
        for head, length in sized:
            self.size += lines.length(head, length, sealed)
            self.turns += head.kind == TurnEnd.kind
        self.records += len(sized)
        self.sequence = sized[-1].head.sequence
        return self.sequence


class Writer:
    """Writes one bundle. `plan` comes first: what it refuses is known before anything is sent."""

    def __init__(self, journal: Journal, files: Files, about: About, key: bytes | None) -> None:
        self._journal = journal
        self._files = files
        self._about = about
        self._envelope = None if key is None else Envelope(key)
        self._packer = Packer()
        self._chosen = _Chosen(0)
        self._paths: list[str] = []
        self._omitted = 0

    async def plan(self, at: int | None) -> None:
        """Choose what is in it: the turns that had ended by record `at`, or have by now. Raises `RefusedError`."""
        if at is not None and at > self._journal.sequence:
            message = f"the journal has no record {at} yet: its last one is {self._journal.sequence}"
            raise RefusedError(400, "no_such_record", message)
        upto = await self._journal.read(extract.last)
        self._chosen = chosen = _Chosen(upto if at is None else min(at, upto))
        after = 0
        while sized := await self._journal.read(partial(extract.sizes, after=after, upto=chosen.upto)):
            after = await asyncio.to_thread(chosen.count, sized, self._envelope is not None)
        walked = await asyncio.to_thread(self._files.walk, bundle.MOST_FILES)
        self._paths, self._omitted = walked.paths, walked.omitted
        if len(self._paths) > bundle.MOST_FILES:
            message = f"the workspace has more than {bundle.MOST_FILES} files, which is more than a bundle can hold"
            raise RefusedError(413, "bundle_too_large", message)
        if chosen.size + walked.size > bundle.LARGEST:
            message = f"the session has more than {bundle.LARGEST} bytes, which is more than a bundle can hold"
            raise RefusedError(413, "bundle_too_large", message)

    async def parts(self, signed_elsewhere: bool) -> AsyncIterator[bytes]:
        """The bundle. Raises `BrokenOffError`, `JournalError` or `WorkspaceError` if it cannot be completed."""
        packer, chosen = self._packer, self._chosen
        packer.begin(bundle.RECORDS, chosen.size)
        after = 0
        while rows := await self._journal.read(partial(extract.payloads, after=after, upto=chosen.upto)):
            await asyncio.to_thread(self._records, rows)
            after = rows[-1].head.sequence
            yield packer.take()
        packer.end()  # if retention has deleted something meanwhile, the bundle ends here: it would be back with it
        for path in self._paths:
            try:
                opened = await asyncio.to_thread(self._files.open, path)
            except (NoFileError, InvalidPathError):
                self._omitted += 1
                continue
            try:
                flow = await asyncio.to_thread(self._begin, path, opened)
                while await asyncio.to_thread(self._more, opened, flow):
                    yield packer.take()
            finally:
                opened.close()
        await asyncio.to_thread(packer.close, self._manifest(), signed_elsewhere)
        yield packer.take()

    def _records(self, rows: list[Sealed]) -> None:
        for head, sealed in rows:
            payload = self._journal.opened(head, sealed).payload
            self._packer.add(lines.line(head, payload, self._envelope))

    def _begin(self, path: str, opened: Opened) -> Flow:
        size = opened.size if self._envelope is None else opened.size + OVERHEAD
        mode = 0o755 if opened.executable else 0o644
        self._packer.begin(bundle.WORKSPACE + path, size, mode, int(opened.modified_at.timestamp()))
        return Unchanged() if self._envelope is None else self._envelope.sealing(path)

    def _more(self, opened: Opened, flow: Flow) -> bool:
        """Pack a part of a file; False if it was the last one."""
        part = opened.read(_PART)
        if part:
            self._packer.add(flow.feed(part))
            return True
        if opened.size:
            raise BrokenOffError("a file was cut while it was read")
        self._packer.add(flow.finish())
        self._packer.end()
        return False

    def _manifest(self) -> Manifest:
        return Manifest(
            session=self._about.session,
            agent=self._about.agent,
            subject=self._about.subject,
            sequence=self._chosen.sequence,
            records=self._chosen.records,
            turns=self._chosen.turns,
            lineage=self._about.lineage,
            created=datetime.now(UTC),
            payloads=Payloads.PLAIN if self._envelope is None else Payloads.SEALED,
            omitted=self._omitted,
        )
