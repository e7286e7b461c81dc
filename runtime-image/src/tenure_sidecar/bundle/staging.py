"""Files that have come with a bundle, beside the workspace until it is known that they are to be in it.

They lie in a directory that only the sidecar can enter, on the same volume, so that each moves in by one rename. A move
that a crash has interrupted is finished by the next start. Everything here blocks on the disk.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tenure_api import bundle
from tenure_api.bundle import InvalidBundleError
from tenure_api.unpacking import File
from tenure_sidecar.errors import RefusedError, UnreadableError

INCOMING = "incoming"
"""Directory of the staged files, beside the journal."""
_ASIDE = ".tenure-aside-"
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def full() -> RefusedError:
    """The volume has no room for the bundle."""
    return RefusedError(507, "volume_full", "the volume of the session has no room for what the bundle holds")


class Staging:
    """The staged files of one session."""

    def __init__(self, state: Path, workspace: Path, group: int) -> None:
        """`group` is given what is written, so that the agent and its code can change it."""
        self._path = state / INCOMING
        self._workspace = workspace
        self._group = group
        self._directories: set[Path] = set()
        self._descriptor = -1
        self._mtime = 0

    @property
    def there(self) -> bool:
        """Whether something is staged."""
        return self._path.exists()

    def clear(self) -> None:
        """Nothing is staged. Raises `UnreadableError`."""
        self.abandon()
        self._directories.clear()
        try:
            if self._path.exists():
                shutil.rmtree(self._path)
        except OSError as error:
            raise UnreadableError(f"what is left of a bundle cannot be deleted: {error}") from error

    def begin(self, file: File) -> None:
        """A file follows. Raises `InvalidBundleError` if it cannot be beside those before it, `RefusedError`."""
        *directories, name = bundle.check_path(file.path)
        with _refusals():
            current = self._path
            self._directory(current, 0o700)
            for inner in directories:
                current = current / inner
                self._directory(current, 0o2770)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(current / name, flags, 0o600)
            with contextlib.suppress(PermissionError):
                os.fchown(self._descriptor, -1, self._group)
            os.fchmod(self._descriptor, 0o770 if file.mode & 0o100 else 0o660)
            self._mtime = file.mtime

    def write(self, data: bytes) -> None:
        """Bytes of the file. Raises `RefusedError`."""
        with _refusals():
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def end(self) -> None:
        """It is complete."""
        with contextlib.suppress(OSError, OverflowError):  # a time that the file system does not know
            os.utime(self._descriptor, (self._mtime, self._mtime))
        self.abandon()

    def abandon(self) -> None:
        """Nothing more comes of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def sync(self) -> None:
        """Have all that is staged on disk, with one call for the whole volume: there may be many small files."""
        if not self.there:
            return
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
                raise UnreadableError(f"the volume fails: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(descriptor)

    def move_in(self) -> None:
        """Put the files into the workspace, in place of what is in their way. Raises `UnreadableError`."""
        if not self.there:
            return
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            root = os.open(self._workspace, flags)
            try:
                for name in os.listdir(self._path):
                    self._move(name, root)
                os.fsync(root)
                _clean(root)
            finally:
                os.close(root)
        except OSError as error:
            raise UnreadableError(f"the files of the bundle cannot be put into the workspace: {error}") from error
        self.clear()

    def _move(self, name: str, root: int) -> None:
        try:
            os.rename(self._path / name, name, dst_dir_fd=root)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            os.rename(name, f"{_ASIDE}{secrets.token_hex(8)}", src_dir_fd=root, dst_dir_fd=root)
            os.rename(self._path / name, name, dst_dir_fd=root)

    def _directory(self, path: Path, mode: int) -> None:
        if path in self._directories:
            return
        path.mkdir(0o700)
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, self._group)
        path.chmod(mode)
        self._directories.add(path)


def _clean(root: int) -> None:
    """Delete what was in the way. What its maker lets nobody delete stays, under that name."""
    for name in os.listdir(root):
        if name.startswith(_ASIDE):
            shutil.rmtree(name, ignore_errors=True, dir_fd=root)
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=root)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full() from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise InvalidBundleError("the bundle has a file where another one needs a directory") from None
        raise UnreadableError(f"the files of the bundle cannot be written: {error}") from error
