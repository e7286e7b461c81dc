"""One process at a time has a journal open."""

import fcntl
import os
from pathlib import Path

from tenure_sidecar.errors import LockedError


class Lock:
    """An flock on a file of its own; the kernel drops it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises `LockedError` if another process, or another open journal, holds it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise LockedError("another process has the journal open; it is opened as soon as that one ends") from None

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._file)
