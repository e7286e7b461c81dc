"""Small files that are replaced whole, sealed like the records of a journal."""

import contextlib
import os
from pathlib import Path

from tenure_sidecar.errors import UnreadableError
from tenure_sidecar.journal.sealing import Head, SealBrokenError, Sealer

_NEW = ".new"


class SealedFile:
    """One file. Everything blocks on the disk."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        """The name of the file is part of what its content is bound to."""
        self._path = path
        self._sealer = sealer
        self._head = Head(0, "", 0, f"file.{path.name}", 0)

    def read(self) -> bytes | None:
        """The content; None if there is no file. Raises `UnreadableError`."""
        try:
            return self._sealer.open(self._head, self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, SealBrokenError) as error:
            raise UnreadableError(f"{self._path.name} cannot be read: {error}") from error

    def write(self, content: bytes) -> None:
        """Replace the content; it is on disk then. Raises `UnreadableError`."""
        write_whole(self._path, self._sealer.seal(self._head, content))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in place of the one before; a crash leaves one or the other. Raises `UnreadableError`."""
    new = path.with_name(path.name + _NEW)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.rename(path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise UnreadableError(f"{path.name} cannot be written: {error}") from error


def sync(directory: Path) -> None:
    """Make the names in a directory durable. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
