"""The volume: its two directories, the key that seals what is on it, and how full it is."""

import os
from collections.abc import Callable
from pathlib import Path

from tenure_api.report import VolumeUse
from tenure_sidecar.errors import KeyMismatchError, UnreadableError
from tenure_sidecar.settings import AGENT_GROUP, Settings

_FRESH_SECONDS = 5.0


class Gauge:
    """How full the volume is, looked at every few seconds at most."""

    def __init__(self, path: Path, elapsed: Callable[[], float]) -> None:
        self._path = path
        self._elapsed = elapsed
        self._seen: VolumeUse | None = None
        self._seen_at = 0.0

    def use(self) -> VolumeUse | None:
        """What is used of it; blocks. None if that cannot be told. What only root could write to does not count."""
        now = self._elapsed()
        if self._seen is None or now - self._seen_at >= _FRESH_SECONDS:
            try:
                room = os.statvfs(self._path)
            except OSError:
                return None
            used = (room.f_blocks - room.f_bfree) * room.f_frsize
            free = room.f_bavail * room.f_frsize
            self._seen, self._seen_at = VolumeUse(capacity_bytes=used + free, used_bytes=used), now
        return self._seen


def prepare(settings: Settings) -> None:
    """Make the two directories of the volume if they are missing. Raises `UnreadableError`."""
    try:
        settings.state.mkdir(mode=0o700, exist_ok=True)
        settings.state.chmod(0o700)  # kubelet opens a new volume to the group (fsGroup)
        if not settings.workspace.exists():
            settings.workspace.mkdir()
            if os.getgid() != AGENT_GROUP and os.geteuid() == 0:
                os.chown(settings.workspace, -1, AGENT_GROUP)
            settings.workspace.chmod(0o2770)  # what the agent makes there belongs to the common group
    except OSError as error:
        raise UnreadableError(f"the volume cannot be used: {error}") from error


def data_key(directory: Path) -> bytes:
    """The key of the journal. Raises `KeyMismatchError`."""
    try:
        key = (directory / "data-key").read_bytes()
    except OSError:
        raise KeyMismatchError("the data key is not mounted; restore the session's key Secret") from None
    if len(key) != 32:
        raise KeyMismatchError(f"the data key has {len(key)} bytes instead of 32; restore the session's key Secret")
    return key
