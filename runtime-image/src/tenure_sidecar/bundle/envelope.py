"""Seals what a bundle holds under a key of the bundle's own, which its exporter keeps apart from it.

AES-256-GCM with a random nonce of 96 bits for every record and every file. The associated data binds each to its place,
so that nothing can be swapped within a bundle, or between two of the same key.
"""

import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from tenure_api.bundle import FORMAT
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.sealing import Head

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD = NONCE_BYTES + TAG_BYTES
"""By how much what is sealed is longer."""


class Flow(Protocol):
    """Bytes that are sealed or opened as they come."""

    def feed(self, data: bytes) -> bytes:
        """What these bytes become."""

    def finish(self) -> bytes:
        """What is left at the end."""


class Unchanged:
    """What is not sealed at all."""

    def feed(self, data: bytes) -> bytes:
        """See `Flow`."""
        return data

    def finish(self) -> bytes:
        """See `Flow`."""
        return b""


class _Sealing:
    """Nonce, ciphertext and tag."""

    def __init__(self, key: bytes, bound_to: bytes) -> None:
        nonce = os.urandom(NONCE_BYTES)
        self._cipher = Cipher(AES(key), GCM(nonce)).encryptor()
        self._cipher.authenticate_additional_data(bound_to)
        self._first = nonce

    def feed(self, data: bytes) -> bytes:
        first, self._first = self._first, b""
        return first + self._cipher.update(data)

    def finish(self) -> bytes:
        return self._first + self._cipher.finalize() + self._cipher.tag


class _Opening:
    """The bytes out of nonce, ciphertext and tag. Nothing of them can be trusted before `finish`."""

    def __init__(self, key: bytes, bound_to: bytes) -> None:
        self._key = key
        self._bound_to = bound_to
        self._nonce: bytes | None = None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        self._held += data
        if self._nonce is None:
            if len(self._held) < NONCE_BYTES:
                return b""
            self._nonce, self._held = self._held[:NONCE_BYTES], self._held[NONCE_BYTES:]
            self._cipher = Cipher(AES(self._key), GCM(self._nonce)).decryptor()
            self._cipher.authenticate_additional_data(self._bound_to)
        ready, self._held = self._held[:-TAG_BYTES], self._held[-TAG_BYTES:]
        return self._cipher.update(ready)

    def finish(self) -> bytes:
        if self._nonce is None or len(self._held) != TAG_BYTES:
            raise _wrong_key()
        try:
            return self._cipher.finalize_with_tag(self._held)
        except InvalidTag:
            raise _wrong_key() from None


class Envelope:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal_payload(self, head: Head, payload: bytes) -> bytes:
        """The payload of a record, sealed."""
        flow = _Sealing(self._key, _record(head))
        return flow.feed(payload) + flow.finish()

    def open_payload(self, head: Head, sealed: bytes) -> bytes:
        """The payload of a record. Raises `RefusedError`."""
        flow = _Opening(self._key, _record(head))
        return flow.feed(sealed) + flow.finish()

    def sealing(self, path: str) -> Flow:
        """Seals a file of the workspace."""
        return _Sealing(self._key, _file(path))

    def opening(self, path: str) -> Flow:
        """Opens one; raises `RefusedError` at its end."""
        return _Opening(self._key, _file(path))


def _record(head: Head) -> bytes:
    return f"{FORMAT}\0record\0{head.sequence}\0{head.turn}\0{head.step}\0{head.kind}\0{head.at}".encode()


def _file(path: str) -> bytes:
    return f"{FORMAT}\0file\0{path}".encode()


def _wrong_key() -> RefusedError:
    return RefusedError(400, "bundle_key_refused", "what the bundle holds does not open with this key")
