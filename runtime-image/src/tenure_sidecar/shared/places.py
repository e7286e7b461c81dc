"""Where the sessions of a host are on its volume, and the key of each.

    state/sessions/<uid>/key         the session's data key, wrapped with the pod's: written last, destroyed first
    state/sessions/<uid>/about       its name, sealed with that key
    state/sessions/<uid>/summary     what must be known of it while it is closed, sealed
    state/sessions/<uid>/open        there while it is open, and for as long as a turn of it has not ended
    state/sessions/<uid>/journal.db
    workspace/<uid>/

So a directory without a key is a session that is not there any more, or never was. Everything blocks on the disk.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenure_sidecar.errors import KeyMismatchError, RefusedError, UnreadableError
from tenure_sidecar.journal.sealing import KEY_BYTES, NONCE_BYTES, Sealer
from tenure_sidecar.shared.sealed import SealedFile, sync, write_whole

_UID = re.compile(r"[0-9a-z][0-9a-z-]{0,62}")
_WRAPPED = b"tenure session key 1\0"
_KEY, _OPEN = "key", "open"


class Place:
    """Where one session is."""

    def __init__(self, uid: str, state: Path, workspace: Path, sealer: Sealer) -> None:
        self.uid = uid
        self.state = state
        self.workspace = workspace
        self.sealer = sealer
        self.about = SealedFile(state / "about", sealer)
        self.summary = SealedFile(state / "summary", sealer)

    @property
    def was_open(self) -> bool:
        """Whether it was open when the process before ended, or a turn of it has not ended."""
        return (self.state / _OPEN).exists()

    def mark_open(self) -> None:
        """Have the next process open it: its journal may say more than its summary. Raises `UnreadableError`."""
        write_whole(self.state / _OPEN, b"")

    def mark_closed(self) -> None:
        """Its summary says all. Should this be lost, it is opened once more than it need be."""
        with contextlib.suppress(FileNotFoundError):
            (self.state / _OPEN).unlink()


class Places:
    """All of them."""

    def __init__(self, state: Path, workspace: Path, key: bytes, identity: str) -> None:
        """`key` is the pod's data key, `identity` what it is for."""
        self._sessions = state / "sessions"
        self._workspace = workspace
        self._cipher = AESGCM(key)
        self._identity = identity.encode()

    def prepare(self) -> None:
        """Make what is missing, and remove what a killed removal has left. Raises `UnreadableError`."""
        try:
            self._sessions.mkdir(mode=0o700, exist_ok=True)
            kept = set(self._uids())
            for parent in (self._sessions, self._workspace):
                for entry in list(parent.iterdir()):
                    if entry.name not in kept:
                        _remove(entry)
        except OSError as error:
            raise UnreadableError(f"the volume cannot be used: {error}") from error

    def found(self) -> Iterator[Place]:
        """The sessions that are there. Raises `KeyMismatchError` or `UnreadableError`."""
        for uid in self._uids():
            yield self._place(uid, self._unwrapped(uid))

    def make(self, uid: str, about: bytes) -> Place:
        """Make a session; it is on disk then. Raises `RefusedError` or `UnreadableError`."""
        if not _UID.fullmatch(uid):
            raise RefusedError(400, "invalid_session", "a session's UID has small letters, digits and hyphens only")
        key = os.urandom(KEY_BYTES)
        place = self._place(uid, key)
        try:
            for directory in (place.state, place.workspace):
                directory.mkdir(mode=0o700, exist_ok=True)
                sync(directory.parent)
        except OSError as error:
            raise UnreadableError(f"the session cannot be made: {error}") from error
        place.about.write(about)
        nonce = os.urandom(NONCE_BYTES)
        write_whole(place.state / _KEY, nonce + self._cipher.encrypt(nonce, key, self._bound_to(uid)))
        return place

    def erase(self, uid: str) -> None:
        """Destroy the key, then remove all that it has opened. Raises `UnreadableError`."""
        if not _UID.fullmatch(uid):
            return
        state = self._sessions / uid
        try:
            _destroy(state / _KEY)
            for directory in (state, self._workspace / uid):
                _remove(directory)
        except OSError as error:
            raise UnreadableError(f"the session cannot be erased: {error}") from error

    def _uids(self) -> list[str]:
        return [entry.name for entry in self._sessions.iterdir() if (entry / _KEY).exists()]

    def _place(self, uid: str, key: bytes) -> Place:
        return Place(uid, self._sessions / uid, self._workspace / uid, Sealer(key, uid))

    def _unwrapped(self, uid: str) -> bytes:
        try:
            wrapped = (self._sessions / uid / _KEY).read_bytes()
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._bound_to(uid))
        except OSError as error:
            raise UnreadableError(f"the key of session {uid} cannot be read: {error}") from error
        except (InvalidTag, ValueError):
            said = f"the key of session {uid} was wrapped with another data key; restore the key Secret"
            raise KeyMismatchError(said) from None

    def _bound_to(self, uid: str) -> bytes:
        return _WRAPPED + self._identity + b"\0" + uid.encode()


def _destroy(path: Path) -> None:
    """Overwrite a file, then remove it; nothing if there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    sync(path.parent)


def _remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)
