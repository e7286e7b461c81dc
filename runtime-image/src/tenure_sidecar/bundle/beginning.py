"""How a session begins that does not begin empty: it waits for a bundle, takes it up once, and knows it again."""

import asyncio
from collections.abc import AsyncIterator

from tenure_api.bundle import InvalidBundleError, Manifest, digest_name
from tenure_api.unpacking import Inspection
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive
from tenure_sidecar.bundle.reader import Arrival
from tenure_sidecar.bundle.staging import Staging
from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import AwaitingBundleError, RefusedError
from tenure_sidecar.journal.records import Begun
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.settings import Source

_PART = 1_048_576
"""About so many bytes are looked at in one go in a thread."""


class Beginning:
    """The beginning of one session."""

    def __init__(self, source: Source | None, staging: Staging, clock: Clock) -> None:
        """`source` is None if the session begins empty."""
        self._source = source
        self._staging = staging
        self._clock = clock
        self._journal: Journal | None = None
        self._one = asyncio.Lock()
        self._filled = asyncio.Event()
        self._running = asyncio.Event()
        self.begun: Begun | None = None
        """What it began with, once that is known."""

    def settle(self, journal: Journal) -> None:
        """Bring what an earlier process left to its end; blocks. Raises `JournalError`, also if a bundle is awaited."""
        found = next(journal.records((Begun.kind,)), None)
        if found is not None:
            self.begun = Begun.model_validate_json(found.payload)
            self._staging.move_in()
            return
        self._staging.clear()
        if self._source is not None and journal.sequence == 0:
            raise AwaitingBundleError("the session waits for the state of the session that it begins with")

    async def wait(self, journal: Journal) -> None:
        """Take bundles, until one was taken up and `settle` can go on."""
        self._journal = journal
        try:
            await self._filled.wait()
        finally:
            self._journal = None

    def go(self) -> None:
        """The session is running: who sent the bundle can be told."""
        self._running.set()

    async def receive(self, receive: Receive, key: bytes | None) -> None:
        """Begin with the bundle in a request; returns when the session is running.

        The same bundle again changes nothing. Raises `RefusedError`, `JournalError` or `Gone`.
        """
        async with self._one:
            try:
                if self._journal is None:
                    await self._known(receive)
                else:
                    await self._taken(self._journal, receive, key)
            except InvalidBundleError as error:
                raise RefusedError(400, "invalid_bundle", str(error)) from None
            await self._running.wait()

    async def _taken(self, journal: Journal, receive: Receive, key: bytes | None) -> None:
        digest = self._source.digest if self._source is not None else None
        now = int(self._clock.now() * 1e6)
        arrival = Arrival(await asyncio.to_thread(journal.restoration), self._staging, key, digest, now)
        try:
            async for part in _parts(receive):
                await asyncio.to_thread(arrival.feed, part)
            await asyncio.to_thread(arrival.finish)
        finally:
            # Shielded: were this task cancelled twice, the next bundle would meet what is left of this one.
            await asyncio.shield(asyncio.to_thread(arrival.abort))
        journal.restored()
        self._journal = None
        self._filled.set()

    async def _known(self, receive: Receive) -> None:
        """Refuse any bundle but the one that the session began with."""
        begun = self.begun
        if self._source is not None and not self._running.is_set():
            raise RefusedError(503, "journal_unavailable", "the journal is being opened")
        if begun is None:
            raise RefusedError(409, "not_awaiting_bundle", "the session does not wait for a bundle")
        inspection = Inspection()
        async for part in _parts(receive):
            await asyncio.to_thread(_through, inspection, part)
        manifest = inspection.finish()
        digest = digest_name(inspection.unpacker.digest)
        if not _is(begun, manifest, digest):
            raise RefusedError(
                409, "already_begun", f"the session began with another bundle, of {begun.origin.session}"
            )


def _is(begun: Begun, manifest: Manifest, digest: str) -> bool:
    """Whether the session began with this. A fork's bundle is written anew each time: the same state counts."""
    if begun.origin.digest is not None:
        return begun.origin.digest == digest
    return (begun.origin.session, begun.origin.sequence) == (manifest.session, manifest.sequence)


def _through(inspection: Inspection, data: bytes) -> None:
    for _ in inspection.feed(data):
        pass


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asgi.Gone
        held.append(message.get("body", b""))
        size += len(held[-1])
        more = message.get("more_body", False)
        if size >= _PART or not more:
            yield b"".join(held)
            held, size = [], 0
