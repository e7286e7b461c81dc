"""A reserve on the volume, given up when it is full, so that the journal can still be written.

The agent's files share the volume with the journal, and code can fill it. Without a reserve nothing could be recorded
then, not even that the code was stopped.
"""

import contextlib
import os
from pathlib import Path

NAME = "ballast"
SIZE = 4 * 1024 * 1024
"""Bytes: many turns' worth of records, and SQLite's own needs to commit and to delete."""


class Ballast:
    """The reserve. Everything blocks on the disk."""

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        self._path = directory / NAME
        self._size = size
        self.spent = False
        """Whether it is known that there is none: the volume is full, or nearly so."""

    def hold(self) -> bool:
        """Make the reserve if it is not there and there is room for twice of it; whether it is there."""
        self.spent = not self._hold()
        return not self.spent

    def _hold(self) -> bool:
        try:
            if self.held:
                return True
            self._path.unlink(missing_ok=True)
            room = os.statvfs(self._path.parent)
            if room.f_bavail * room.f_frsize < 2 * self._size:
                return False
            self._make()
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        return True

    def give_up(self) -> bool:
        """Free the reserve; whether there was one."""
        self.spent = True
        try:
            self._path.unlink()
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return True

    @property
    def held(self) -> bool:
        """Whether it is there whole. One that a crash left half made, or with holes, is none."""
        try:
            about = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return about.st_size == self._size and about.st_blocks * 512 >= self._size

    def _make(self) -> None:
        """Random bytes, for a file system may store zeros as nothing."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(os.urandom(self._size))
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
