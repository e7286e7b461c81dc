"""The lease: of all runs of a session that can reach its volume, only the latest may write.

Every run has a number, its generation, which is higher than those of all runs before. It stands in a file beside the
journal, and never goes down. A run first announces itself there and only then waits for the lock, so that one that
still has the journal open, perhaps in a pod that everybody has given up, learns of it: by looking before every commit,
and each second. Then it lets go.
"""

import contextlib
import errno
import os
from pathlib import Path

from tenure_sidecar.errors import SupersededError, UnreadableError
from tenure_sidecar.journal.lock import Lock

GENERATION = "generation"
"""File of the highest generation that has announced itself, as a decimal number."""
_LONGEST = 32


class Lease:
    """One run's right to write. Everything blocks on the disk."""

    def __init__(self, directory: Path, generation: int) -> None:
        """`directory` is the journal's."""
        self.generation = generation
        self._directory = directory
        self._path = directory / GENERATION

    def announce(self) -> None:
        """Tell all earlier runs to leave. Raises `SupersededError`, and `LockedError` while another one does so."""
        turnstile = Lock(self._directory / f"{GENERATION}.lock")  # else an earlier run could write over a later one's
        try:
            self.check()
            if self._highest() < self.generation:
                self._write(b"%d\n" % self.generation)
        except OSError as error:
            raise UnreadableError(f"the generation cannot be written: {error}") from error
        finally:
            turnstile.release()

    def check(self) -> None:
        """Raises `SupersededError` if a later run has announced itself."""
        highest = self._highest()
        if highest > self.generation:
            raise SupersededError(
                f"run {highest} of the session has the journal; this is run {self.generation}, which must not write",
                highest,
            )

    def _highest(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UnreadableError(f"the generation cannot be read: {error}") from error
        try:
            return int(os.read(descriptor, _LONGEST))
        except (OSError, ValueError) as error:
            raise UnreadableError(f"the generation cannot be read: {error}") from error
        finally:
            os.close(descriptor)

    def _write(self, number: bytes) -> None:
        """Put the number in the file, on disk. A full volume has no room for a new file, but must be opened too."""
        temporary = self._path.with_suffix(".new")
        try:
            _written(temporary, number, os.O_CREAT | os.O_TRUNC)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._path.exists():
                raise
            _written(self._path, number)  # in the block that it has; the number is never shorter than the one before
            return
        temporary.rename(self._path)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _written(path: Path, content: bytes, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
