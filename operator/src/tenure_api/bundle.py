"""The bundle: a whole session as one file, as `docs/bundle.md` describes it.

A gzip'd tar that is written and read in one pass: `records.jsonl`, the files of the workspace, `manifest.json` with the
digests of all before it and, if it was exported, `signature.json` in a gzip member of its own. That last member has one
form only, so that every bit of a signed bundle is covered: those before it by the signature, its own by its form.
"""

import base64
import binascii
import hashlib
import struct
import tarfile
import zlib
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, ValidationError
from pydantic_core import to_json

from tenure_api.messages import Wire
from tenure_api.report import Origin
from tenure_api.tokens import ed25519_private, ed25519_public, public_key

FORMAT: Literal["tenure-bundle/1"] = "tenure-bundle/1"
RECORDS = "records.jsonl"
WORKSPACE = "workspace/"
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"

KEY_HEADER = "X-Tenure-Bundle-Key"
"""Request header: the key, 32 bytes in base64, that payloads and files are sealed with."""
KEY_BYTES = 32
MEDIA_TYPE = "application/gzip"

MOST_FILES = 50_000
LONGEST_LINE = 64 * 1024 * 1024
"""Most bytes of a record's line."""
LARGEST_MANIFEST = 32 * 1024 * 1024
LARGEST_SIGNATURE = 16 * 1024
LARGEST = 64 * 1024 * 1024 * 1024
"""Most bytes of a bundle when it is unpacked."""

_LONGEST_PATH = 1_024
_LONGEST_NAME = 255
_MOST_DEPTH = 33
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_STORED = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01"
"""Header of a gzip member, and of its only block, which is stored as it is."""


class InvalidBundleError(Exception):
    """This is no bundle, not a whole one, or one that was changed. The message is a sentence for people."""


class Payloads(StrEnum):
    """How the payloads of records and the files are in a bundle."""

    PLAIN = "Plain"
    SEALED = "Sealed"


class Manifest(Wire):
    """What a bundle holds; in its JSON, `members` follows: name, size and sha256 of each member before it, in order."""

    format: Literal["tenure-bundle/1"] = FORMAT
    session: str
    """`namespace/name` of the session that it was taken from."""
    agent: str
    """Name of its agent."""
    subject: str = ""
    """Whose session it was, if who asked for the bundle said so."""
    sequence: int = Field(ge=0)
    """Number of the last record in it; 0 if there is none."""
    records: int = Field(ge=0)
    turns: int = Field(ge=0)
    lineage: list[Origin] = Field(default_factory=list, max_length=1_000)
    """What the session itself began with, and so on; the oldest first."""
    created: datetime
    payloads: Payloads
    omitted: int = Field(0, ge=0)
    """Names in the workspace that are not in the bundle: links and whatever else is no file that can be read."""


class Signature(Wire):
    """`signature.json`."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    manifest: str
    """SHA-256 of `manifest.json`, hexadecimal."""
    body: str
    """SHA-256 of all bytes of the file before the gzip member that holds this, hexadecimal."""
    public_key: str
    signature: str
    """Of `message`, in base64."""

    def message(self) -> bytes:
        """What is signed."""
        return f"{FORMAT}\n{self.manifest}\n{self.body}\n".encode()


def member(name: str, size: int, mode: int = 0o644, mtime: int = 0) -> bytes:
    """The tar header of a regular file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, mtime
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """What follows a member of this size."""
    return bytes(-size % _BLOCK)


def end() -> bytes:
    """What the tar ends with."""
    return _END


def manifest_bytes(manifest: Manifest, members: list[dict[str, Any]]) -> bytes:
    """`manifest.json`."""
    about = manifest.model_dump(mode="json", by_alias=True)
    return to_json({**about, "members": members}) + b"\n"


def sign(private_pem: str, manifest: str, body: str) -> bytes:
    """The last gzip member of a bundle: the signature, and the end of the tar.

    `manifest` and `body` are the digests of `Signature`; `private_pem` is an Ed25519 key.
    """
    unsigned = Signature(manifest=manifest, body=body, public_key=public_key(private_pem), signature="")
    signature = base64.b64encode(ed25519_private(private_pem).sign(unsigned.message())).decode()
    return tail(unsigned.model_copy(update={"signature": signature}))


def tail(signature: Signature) -> bytes:
    """The only form in which a signature ends a bundle: a gzip member with one stored block."""
    text = to_json(signature.model_dump(mode="json", by_alias=True)) + b"\n"
    data = member(SIGNATURE, len(text)) + text + padding(len(text)) + _END
    lengths = struct.pack("<HH", len(data), len(data) ^ 0xFFFF)
    return _STORED + lengths + data + struct.pack("<II", zlib.crc32(data), len(data))


def parse_signature(text: bytes) -> Signature:
    """The signature in `signature.json`. Raises `InvalidBundleError`."""
    try:
        return Signature.model_validate_json(text)
    except ValidationError:
        raise InvalidBundleError("the bundle's signature cannot be read") from None


def check_signature(signature: Signature, manifest: str, body: str, trusted: frozenset[str]) -> None:
    """Hold a signature against the digests of what was read. Raises `InvalidBundleError`.

    `trusted` are public keys as `canonical_key` gives them.
    """
    if (signature.manifest, signature.body) != (manifest, body):
        raise InvalidBundleError("the bundle is not the one that was signed: it has been changed")
    if canonical_key(signature.public_key) not in trusted:
        raise InvalidBundleError(
            "the bundle was signed with a key that is not trusted here: add it to the gateway's trusted bundle keys"
        )
    try:
        proof = base64.b64decode(signature.signature, validate=True)
        ed25519_public(signature.public_key).verify(proof, signature.message())
    except (InvalidSignature, binascii.Error):
        raise InvalidBundleError("the bundle's signature is not valid: the bundle has been changed") from None


def canonical_key(pem: str) -> str:
    """A public key, Ed25519 in PEM, in the only form in which keys are compared. Raises `InvalidBundleError`."""
    try:
        key = ed25519_public(pem)
    except ValueError:
        raise InvalidBundleError("the key that the bundle was signed with cannot be read") from None
    return key.public_bytes_raw().hex()


def keys_in(pems: str) -> frozenset[str]:
    """The public keys in a text of PEM blocks, one after the other. Raises `ValueError`."""
    ends = "-----END PUBLIC KEY-----"
    blocks = [block.strip() + "\n" + ends + "\n" for block in pems.split(ends)[:-1]]
    for block in blocks:
        load_pem_public_key(block.encode())
    return frozenset(canonical_key(block) for block in blocks)


def check_path(path: str) -> list[str]:
    """The names of a file's path below the workspace. Raises `InvalidBundleError` if it may lead elsewhere."""
    names = path.split("/")
    bad = any(name in ("", ".", "..") or "\0" in name or len(name.encode()) > _LONGEST_NAME for name in names)
    if bad or len(path.encode()) > _LONGEST_PATH or len(names) > _MOST_DEPTH:
        raise InvalidBundleError(f"the bundle has a file whose path is not allowed: {path[:200]!r}")
    return names


def parse_key(header: str | None) -> bytes | None:
    """The key of the header `KEY_HEADER`; None without one. Raises `ValueError` with a sentence, not quoting it."""
    if not header:
        return None
    try:
        key = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"{KEY_HEADER} must be {KEY_BYTES} random bytes in base64")
    return key


def digest_name(hexadecimal: str) -> str:
    """A digest as `spec.source.importFrom.digest` says it."""
    return f"sha256:{hexadecimal}"


def sha256(data: bytes) -> str:
    """The digest of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
