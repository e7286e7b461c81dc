"""Keeps a bundle that comes in until it is known that it can be used: in a file that has no name, two at a time."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from tenure_api.bundle import InvalidBundleError, Manifest, check_signature, digest_name
from tenure_api.unpacking import Inspection
from tenure_gateway.openai.errors import ApiError, invalid, unavailable

_AT_ONCE = 2
_PART = 262_144


class Spooled:
    """A bundle that is whole, and signed by somebody who is trusted."""

    def __init__(self, file: IO[bytes], manifest: Manifest, digest: str) -> None:
        self._file = file
        self.manifest = manifest
        self.digest = digest
        """As `spec.source.importFrom.digest` says it."""

    async def parts(self) -> AsyncIterator[bytes]:
        """The bundle, from its beginning."""
        at = 0
        while part := await asyncio.to_thread(os.pread, self._file.fileno(), _PART, at):
            yield part
            at += len(part)


class Spool:
    """Where bundles lie while they are checked and handed on."""

    def __init__(self, directory: Path, limit: int, trusted: frozenset[str]) -> None:
        """`limit` is in bytes; `trusted` are the keys whose signatures are taken."""
        self._directory = directory
        self._limit = limit
        self._trusted = trusted
        self._room = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def keep(self, body: AsyncIterator[bytes]) -> AsyncIterator[Spooled]:
        """The bundle in the body of a request, once all of it was checked. Raises `ApiError`."""
        async with self._room:
            try:
                file = await asyncio.to_thread(_nameless, self._directory)
            except OSError:
                raise _no_room() from None
            try:
                yield await self._checked(file, body)
            finally:
                await asyncio.to_thread(file.close)

    async def _checked(self, file: IO[bytes], body: AsyncIterator[bytes]) -> Spooled:
        inspection = Inspection()
        held: list[bytes] = []
        size = waiting = 0
        try:
            async for data in body:
                held.append(data)
                waiting += len(data)
                size += len(data)
                if size > self._limit:
                    raise ApiError(413, "bundle_too_large", f"A bundle must have at most {self._limit} bytes.")
                if waiting >= _PART:
                    await asyncio.to_thread(_take, inspection, file, b"".join(held))
                    held, waiting = [], 0
            await asyncio.to_thread(_take, inspection, file, b"".join(held))
            await asyncio.to_thread(file.flush)
            return Spooled(file, self._proven(inspection), digest_name(inspection.unpacker.digest))
        except InvalidBundleError as error:
            raise invalid(f"The bundle cannot be used: {error}.", None, "invalid_bundle") from None
        except OSError:
            raise _no_room() from None

    def _proven(self, inspection: Inspection) -> Manifest:
        manifest = inspection.finish()
        if inspection.signature is None:
            raise InvalidBundleError("it is not signed")
        check_signature(
            inspection.signature,
            inspection.manifest_digest,
            inspection.unpacker.digest_before_member,
            self._trusted,
        )
        return manifest


def _nameless(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory)


def _no_room() -> ApiError:
    return unavailable("The gateway has no room for the bundle now. Try again later.", 30)


def _take(inspection: Inspection, file: IO[bytes], data: bytes) -> None:
    file.write(data)
    for _ in inspection.feed(data):
        pass
