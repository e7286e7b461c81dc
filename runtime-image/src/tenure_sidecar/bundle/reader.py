"""Takes up a bundle as it comes; nothing of it is there before all of it was checked, and then all of it is."""

import threading
from collections.abc import Iterable

import apsw

from tenure_api.bundle import InvalidBundleError, Manifest, Payloads, digest_name
from tenure_api.report import Origin
from tenure_api.unpacking import File, FileEnd, Inspection, Line, Part
from tenure_sidecar.bundle import lines
from tenure_sidecar.bundle.envelope import Envelope, Flow, Unchanged
from tenure_sidecar.bundle.staging import Staging, full
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import Begun, TurnEnd, TurnStart
from tenure_sidecar.journal.restoration import ClashError, Restoration
from tenure_sidecar.journal.sealing import Head


class History:
    """Checks that records, one after the other, are the history of a session: whole turns, numbered and timed."""

    def __init__(self) -> None:
        self.last = Head(0, "", 0, "", 0)
        self.records = 0
        self.turns = 0
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def add(self, head: Head) -> None:
        """The next one. Raises `InvalidBundleError`."""
        if head.sequence <= self.last.sequence or head.at < self.last.at:
            raise InvalidBundleError("the records of the bundle are not in order")
        if (head.kind == TurnStart.kind) == (head.turn in self._begun):
            raise InvalidBundleError(f"record {head.sequence} of the bundle is not where it can be in its turn")
        self.last = head
        self.records += 1
        self._begun.add(head.turn)
        if head.kind == TurnEnd.kind:
            self._ended.add(head.turn)

    def check(self, manifest: Manifest) -> None:
        """These were all. Raises `InvalidBundleError`."""
        if self._begun != self._ended:
            raise InvalidBundleError("the bundle has a turn that has not ended")
        if (manifest.sequence, manifest.records, manifest.turns) != (
            self.last.sequence,
            self.records,
            len(self._ended),
        ):
            raise InvalidBundleError("the bundle does not hold the records that its manifest speaks of")


class Arrival:
    """One bundle on its way in. Its calls block; `abort` may come from another thread."""

    def __init__(
        self, restoration: Restoration, staging: Staging, key: bytes | None, digest: str | None, now: int
    ) -> None:
        """`digest` is that of the only bundle that may come, if only one may; `now` is in microseconds."""
        self._now = now
        self._restoration = restoration
        self._staging = staging
        self._envelope = None if key is None else Envelope(key)
        self._digest = digest
        self._inspection = Inspection()
        self._history = History()
        self._flow: Flow = Unchanged()
        self._busy = threading.Lock()
        self._over = False

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises `InvalidBundleError`, `RefusedError` or `JournalError`."""
        with self._busy:
            if not self._over:
                self._take(self._inspection.feed(data))

    def finish(self) -> None:
        """These were all: the session begins with what they hold. Raises as `feed`."""
        with self._busy:
            if self._over:
                return
            manifest = self._inspection.finish()
            self._history.check(manifest)
            digest = digest_name(self._inspection.unpacker.digest)
            if self._digest is not None and digest != self._digest:
                message = f"this is another bundle than the one that the session begins with: its digest is {digest}"
                raise RefusedError(400, "bundle_digest_differs", message)
            if (manifest.payloads is Payloads.SEALED) != (self._envelope is not None):
                raise lines.wrong_seal(manifest.payloads is Payloads.SEALED)
            origin = Origin(
                session=manifest.session, sequence=manifest.sequence, digest=digest if self._digest else None
            )
            begun = Begun(origin=origin, lineage=manifest.lineage)
            head = Head(manifest.sequence + 1, "", 0, Begun.kind, max(self._history.last.at, self._now))
            self._add(head, begun.payload())
            self._staging.sync()
            try:
                self._restoration.commit()
            except apsw.FullError:
                raise full() from None
            self._over = True

    def abort(self) -> None:
        """Nothing is left of it, unless it was complete."""
        with self._busy:
            if not self._over:
                self._over = True
                self._restoration.abort()
                self._staging.clear()

    def _take(self, parts: Iterable[Part]) -> None:
        for part in parts:
            match part:
                case Line():
                    head, payload = lines.parse(part.text, self._envelope)
                    self._history.add(head)
                    self._add(head, payload)
                case File():
                    self._flow = Unchanged() if self._envelope is None else self._envelope.opening(part.path)
                    self._staging.begin(part)
                case FileEnd():
                    self._staging.write(self._flow.finish())
                    self._staging.end()
                case _:
                    self._staging.write(self._flow.feed(part))

    def _add(self, head: Head, payload: bytes) -> None:
        try:
            self._restoration.add(head, payload)
        except ClashError:
            raise InvalidBundleError("the bundle has a record twice") from None
        except apsw.FullError:
            raise full() from None
