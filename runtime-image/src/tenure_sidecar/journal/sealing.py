"""Seals the payloads of records, so that a copy of the volume alone says nothing.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits for every record; one data key seals far fewer than the
2^32 records up to which random nonces are safe. The associated data binds a payload to its place: to its journal's
identity, sequence, turn, step, kind and time. A record that is altered, moved or copied from elsewhere does not open.
"""

import hashlib
import hmac
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_FINGERPRINT_OF = b"tenure journal data key, version 1"
_VERSION = b"tenure record 1"


class Head(NamedTuple):
    """What a record says in the clear. `at` is in microseconds since the epoch."""

    sequence: int
    turn: str
    step: int
    kind: str
    at: int


class SealBrokenError(Exception):
    """A payload was altered, moved, or sealed with another key."""


class Sealer:
    """Seals and opens payloads of one journal with one key."""

    def __init__(self, key: bytes, identity: str) -> None:
        """Raises `ValueError` if the key has not `KEY_BYTES` bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"the data key must have {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._identity = identity.encode()
        self.fingerprint = hmac.new(key, _FINGERPRINT_OF, hashlib.sha256).digest()
        """Tells one key from another without saying anything of either."""

    def seal(self, head: Head, payload: bytes) -> bytes:
        """Nonce, ciphertext and tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, payload, self._bound_to(head))

    def open(self, head: Head, sealed: bytes) -> bytes:
        """The payload. Raises `SealBrokenError`."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bound_to(head))
        except (InvalidTag, ValueError):
            raise SealBrokenError(f"record {head.sequence} ({head.kind}) does not open with this key") from None

    def _bound_to(self, head: Head) -> bytes:
        """Unambiguous, because NUL is in none of the parts."""
        place = f"\0{head.sequence}\0{head.turn}\0{head.step}\0{head.kind}\0{head.at}"
        return _VERSION + b"\0" + self._identity + place.encode()
