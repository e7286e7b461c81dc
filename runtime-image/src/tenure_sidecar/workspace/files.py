"""Safe access to the files of the workspace.

Code that nobody trusts owns that directory and can change it between any two system calls. So every path is walked one
name at a time from an open directory, never through a symbolic link, and what was opened is looked at, not what was
there before. Nothing here can block on a pipe or on a file lease (`O_NONBLOCK`), and only regular files are touched.
Everything blocks on the disk: call it in a thread.
"""

import contextlib
import errno
import hashlib
import heapq
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tenure_api.wire import File, FileList
from tenure_sidecar.errors import SidecarError

RESULTS = "tool-results"
"""Directory of the results of tools that were too long to be shown."""
_MOST_DEPTH = 32
_MOST_ENTRIES = 200_000
"""Most names that a listing looks at."""
_LONGEST_PATH = 1_024
_LONGEST_NAME = 255
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ENTER = _LOOK | os.O_DIRECTORY
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARY = ".tenure-"
_TURN = re.compile(r"[0-9a-f]{32}")
_LATEST = 253_402_300_799
"""The last second that a datetime can hold; code can set the time of a file to any."""


class WorkspaceError(SidecarError):
    """A file cannot be accessed."""


class InvalidPathError(WorkspaceError):
    """What is given is no path of a file."""


class NoFileError(WorkspaceError):
    """There is no regular file that can be read by us."""


class TooLargeError(WorkspaceError):
    """The file is larger than what is allowed."""


class FullError(WorkspaceError):
    """The volume is full."""


@dataclass
class Opened:
    """A regular file that is open for reading. It must be closed."""

    descriptor: int
    size: int
    """When it was opened. No more than this is read."""
    modified_at: datetime
    executable: bool = False

    def read(self, most: int) -> bytes:
        """The next part, empty at the end; blocks. Raises `WorkspaceError`."""
        try:
            part = os.read(self.descriptor, min(most, self.size))
        except OSError as error:
            raise WorkspaceError(f"the file cannot be read: {error.strerror}") from error
        self.size -= len(part)
        return part

    def close(self) -> None:
        """Nothing more is read."""
        os.close(self.descriptor)


@dataclass(frozen=True)
class Walked:
    """All files of the workspace: their paths in order, and their size in bytes."""

    paths: list[str]
    size: int
    omitted: int
    """Names that stand for no file that can be read: links, pipes, and what is too deep or may not be looked into."""


class Files:
    """The files below one directory."""

    def __init__(self, root: Path, group: int) -> None:
        """`group` is given what is written, so that the agent and its code can change it."""
        self._root = root
        self._group = group
        self._writing = threading.Lock()

    def listing(self, limit: int) -> FileList:
        """The first files by path, and whether there are more. Raises `WorkspaceError`.

        Left out is what is no regular file, what we may not look into, names that are not UTF-8, and what is more than
        32 directories deep.
        """
        found: list[File] = []
        walk = _Walk(limit + 1)
        with self._directory([]) as root:
            for file in walk.files(root, "", 0):
                found.append(file)
                if len(found) > limit:
                    break
        return FileList(data=found[:limit], has_more=len(found) > limit or walk.left < 0)

    def walk(self, most: int) -> Walked:
        """All files, or one more than `most`. Raises `WorkspaceError`, also if there are too many names to look at."""
        walk = _Walk(most + 1)
        paths: list[str] = []
        size = 0
        with self._directory([]) as root:
            for file in walk.files(root, "", 0):
                paths.append(file.path)
                size += file.size
                if len(paths) > most:
                    break
        if walk.left < 0:
            raise TooLargeError(f"the workspace has more than {_MOST_ENTRIES} names")
        return Walked(paths, size, walk.omitted)

    def stat(self, path: str) -> File:
        """What is known of a file. Raises `WorkspaceError`."""
        opened = self.open(path)
        opened.close()
        return File(path="/".join(parts_of(path)), size=opened.size, modified_at=opened.modified_at)

    def open(self, path: str, limit: int | None = None) -> Opened:
        """Open a file for reading. Raises `WorkspaceError`, also if it has more than `limit` bytes."""
        *directories, name = parts_of(path)
        with self._directory(directories) as directory:
            try:
                descriptor = os.open(name, _LOOK, dir_fd=directory)
            except OSError as error:
                raise _missing(path) from error
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            os.close(descriptor)
            raise _missing(path)
        if limit is not None and about.st_size > limit:
            os.close(descriptor)
            raise TooLargeError(f"{path!r} has {about.st_size} bytes; at most {limit} are allowed")
        return Opened(descriptor, about.st_size, _time(about), bool(about.st_mode & stat.S_IXUSR))

    def write(self, path: str, data: bytes) -> File:
        """Write a file whole, in place of the one before; it is on disk then. Raises `WorkspaceError`.

        A crash leaves the file before or the new one, and at most one temporary file, which the next write of this path
        replaces.
        """
        *directories, name = parts_of(path)
        with self._writing, self._directory(directories, make=True) as directory:
            temporary = _TEMPORARY + hashlib.sha256(name.encode()).hexdigest()[:16]
            try:
                about = self._written(directory, temporary, data)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise _unwritten(path, error) from error
        return File(path="/".join(parts_of(path)), size=len(data), modified_at=_time(about))

    def delete(self, path: str) -> None:
        """Delete a file. Raises `WorkspaceError`."""
        *directories, name = parts_of(path)
        with self._directory(directories) as directory:
            try:
                if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    raise _missing(path)
                os.unlink(name, dir_fd=directory)
                os.fsync(directory)
            except OSError as error:
                raise _missing(path) from error

    def erase_turn(self, turn: str) -> int:
        """Delete the kept results of a turn; how many there were. What code made of them is not known to us."""
        if not _TURN.fullmatch(turn):
            return 0
        erased = 0
        with contextlib.suppress(WorkspaceError, OSError), self._directory([RESULTS]) as directory:
            for name in os.listdir(directory):
                if name.startswith(f"{turn}-"):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=directory)
                        erased += 1
            os.fsync(directory)
        return erased

    def _written(self, directory: int, name: str, data: bytes) -> os.stat_result:
        """A new file with this content, on disk. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        descriptor = os.open(name, _MAKE, 0o600, dir_fd=directory)
        try:
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, -1, self._group)
            os.fchmod(descriptor, 0o660)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _directory(self, names: list[str], make: bool = False) -> Iterator[int]:
        """An open directory of the workspace. Raises `WorkspaceError`."""
        try:
            current = os.open(self._root, _ENTER)
        except OSError as error:
            raise WorkspaceError(f"the workspace cannot be opened: {error.strerror}") from error
        try:
            for name in names:
                inner = self._entered(current, name, make)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _entered(self, directory: int, name: str, make: bool) -> int:
        made = False
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o770, dir_fd=directory)
                    made = True
            inner = os.open(name, _ENTER, dir_fd=directory)
        except OSError as error:
            raise _unwritten(name, error) if make else NoFileError(f"there is no directory {name!r}") from error
        if made:
            with contextlib.suppress(OSError):  # then it is not what we made
                os.fchown(inner, -1, self._group)
                os.fchmod(inner, 0o2770)
        return inner


class _Walk:
    """One walk through the workspace, which ends after a number of names."""

    def __init__(self, most_of_one: int) -> None:
        self.left = _MOST_ENTRIES
        """How many names may still be looked at; negative if that were too few."""
        self.omitted = 0
        """Names that stand for nothing that is listed."""
        self._most_of_one = most_of_one

    def files(self, directory: int, prefix: str, depth: int) -> Iterator[File]:
        """The regular files in the order of their paths."""
        for key, about in heapq.nsmallest(self._most_of_one, self._entries(directory), key=lambda entry: entry[0]):
            if about is not None:
                yield File(path=prefix + key, size=about.st_size, modified_at=_time(about))
            elif depth < _MOST_DEPTH:
                try:
                    inner = os.open(key[:-1], _ENTER, dir_fd=directory)
                except OSError:
                    self.omitted += 1
                    continue
                try:
                    yield from self.files(inner, prefix + key, depth + 1)
                finally:
                    os.close(inner)
            else:
                self.omitted += 1

    def _entries(self, directory: int) -> Iterator[tuple[str, os.stat_result | None]]:
        """Names with what is known of the file; a directory's name ends with a slash, which is how its paths sort."""
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self.left -= 1
                    if self.left < 0:
                        return
                    try:
                        entry.name.encode()
                        if entry.is_dir(follow_symlinks=False):
                            yield f"{entry.name}/", None
                        elif not entry.is_file(follow_symlinks=False):
                            self.omitted += 1
                        elif not entry.name.startswith(_TEMPORARY):
                            yield entry.name, entry.stat(follow_symlinks=False)
                    except (OSError, UnicodeEncodeError):
                        self.omitted += 1
        except OSError:
            return


def parts_of(path: str) -> list[str]:
    """The names of a path relative to the workspace. Raises `InvalidPathError`."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidPathError("a path must be valid Unicode") from None
    names = path.removeprefix("/workspace/").split("/")
    bad = any(name in ("", ".", "..") or "\0" in name or len(name.encode()) > _LONGEST_NAME for name in names)
    if bad or size > _LONGEST_PATH or len(names) > _MOST_DEPTH + 1:
        raise InvalidPathError("a path must be relative to the workspace, such as reports/june.csv, without '..'")
    return names


def _time(about: os.stat_result) -> datetime:
    return datetime.fromtimestamp(min(max(about.st_mtime, 0), _LATEST), UTC)


def _missing(path: str) -> NoFileError:
    return NoFileError(f"there is no regular file {path!r} that can be read")


def _unwritten(path: str, error: OSError) -> WorkspaceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullError("the volume of the session is full; delete files of the workspace")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return InvalidPathError(f"{path!r} cannot be written: something that is no regular file is in its way")
    return WorkspaceError(f"{path!r} cannot be written: {error.strerror}")
