"""Makes the bytes of a bundle, member by member. Everything here takes its time: call it in a thread."""

import hashlib
import zlib
from typing import Any

from tenure_api import bundle
from tenure_api.bundle import Manifest
from tenure_sidecar.errors import BrokenOffError

_LEVEL = 4
"""Of compression: text gets about as small as with 6, in half of the time."""


class Packer:
    """A bundle in the making. Each member begins with its size, which must hold."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, wbits=31)
        self._ready: list[bytes] = []
        self._members: list[dict[str, Any]] = []
        self._name, self._size, self._left = "", 0, 0
        self._digest = hashlib.sha256()

    def begin(self, name: str, size: int, mode: int = 0o644, mtime: int = 0) -> None:
        """A member of this size follows."""
        self._name, self._size, self._left = name, size, size
        self._digest = hashlib.sha256()
        self._pack(bundle.member(name, size, mode, mtime))

    def add(self, data: bytes) -> None:
        """Bytes of the member. Raises `BrokenOffError` if they are more than it was to have."""
        self._left -= len(data)
        if self._left < 0:
            raise BrokenOffError(f"{self._name} has grown")
        self._digest.update(data)
        self._pack(data)

    def end(self) -> None:
        """The member is complete. Raises `BrokenOffError` if it is not."""
        if self._left:
            raise BrokenOffError(f"{self._name} has become shorter")
        self._pack(bundle.padding(self._size))
        self._members.append({"name": self._name, "size": self._size, "sha256": self._digest.hexdigest()})

    def close(self, manifest: Manifest, signed_elsewhere: bool) -> None:
        """Ends with the manifest, and with the end of the tar unless a signature follows that somebody else makes."""
        text = bundle.manifest_bytes(manifest, self._members)
        self._pack(bundle.member(bundle.MANIFEST, len(text)) + text + bundle.padding(len(text)))
        if not signed_elsewhere:
            self._pack(bundle.end())
        self._ready.append(self._deflate.flush())

    def take(self) -> bytes:
        """What is ready to be sent."""
        ready, self._ready = b"".join(self._ready), []
        return ready

    def _pack(self, data: bytes) -> None:
        self._ready.append(self._deflate.compress(data))
