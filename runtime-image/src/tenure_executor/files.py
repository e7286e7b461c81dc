"""The files of the container: the space that they may take, and the end of those that no call leaves behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
from pathlib import Path

FLOOR_BYTES, FLOOR_FILES = 64 << 20, 1024
"""Free space of the volume under which a call is killed; a tenth of a volume where that is less."""


def empty(directory: Path) -> None:
    """Removes what this uid has in a directory, however deep and closed it is. What cannot be removed stays."""
    numbers = itertools.count()
    progress = True
    while progress:
        progress = False
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(directory)):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                        _remove(entry, directory, numbers)
                        progress = True


def _remove(entry: os.DirEntry[str], directory: Path, numbers: itertools.count[int]) -> None:
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)
        return
    os.chmod(entry.path, stat.S_IRWXU)
    for inner in list(os.scandir(entry.path)):
        if inner.is_dir(follow_symlinks=False):  # moved up: no recursion, and no path that grows too long
            os.chmod(inner.path, stat.S_IRWXU)
            os.rename(inner.path, directory / f".gone-{secrets.token_hex(4)}-{next(numbers)}")
        else:
            os.unlink(inner.path)
    os.rmdir(entry.path)


class Space:
    """The free space of the volume during one call. Raises `OSError` if there is no volume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        now = os.statvfs(path)
        # A call that begins on a full volume may run, so that it can delete: half of what it found is left to it.
        self._blocks = min(FLOOR_BYTES // now.f_frsize, now.f_blocks // 10, now.f_bavail // 2)
        self._files = min(FLOOR_FILES, now.f_files // 10, now.f_favail // 2)

    def is_short(self) -> bool:
        """Whether too little is left."""
        now = os.statvfs(self._path)
        return now.f_bavail < self._blocks or now.f_favail < self._files
