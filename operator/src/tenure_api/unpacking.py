"""Reads a bundle as it comes, however it is cut, and checks all that can be checked without a key.

The little of tar that a bundle has is read here rather than by `tarfile`, which wants a file to read from, forgives
much and knows links, devices and sparse files, none of which a bundle has.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from tenure_api import bundle
from tenure_api.bundle import InvalidBundleError, Manifest, Signature

_STEP = 262_144
"""Most bytes that are unpacked at a time."""
_BITE = 16_384
"""Packed bytes that are looked at in one go: what is left of them is copied after every step."""
_BLOCK = 512
_LONGEST_SIGNED_END = 2 * bundle.LARGEST_SIGNATURE
_LONGEST_PAX = 65_536
_PAX_KEYS = frozenset({"path", "size", "mtime"})


class Member(NamedTuple):
    """The header of a member."""

    name: str
    size: int
    mode: int
    mtime: int


class Line(NamedTuple):
    """A line of `records.jsonl`, without its end."""

    text: bytes


class File(NamedTuple):
    """A file of the workspace begins; its bytes follow."""

    path: str
    size: int
    mode: int
    mtime: int


class FileEnd(NamedTuple):
    """It ends."""


Part = Line | File | FileEnd | bytes


class _Tar:
    """Members out of the bytes of a tar: each `Member` is followed by its bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._padding = 0
        self._zeros = 0
        self._pax: bytearray | None = None
        """The pax header that the next header is to be read with."""
        self.ended = False

    @property
    def between(self) -> bool:
        """Whether no member is half read."""
        return not (self._buffer or self._left or self._padding or self._zeros) and self._pax is None

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                if self._pax is None:
                    yield part
                else:
                    self._pax += part
            elif self._padding:
                part = data[at : at + self._padding]
                at += len(part)
                self._padding -= len(part)
                if any(part):
                    raise InvalidBundleError("the bundle has something between its members")
            else:
                wanted = _BLOCK - len(self._buffer)
                self._buffer += data[at : at + wanted]
                at += wanted
                if len(self._buffer) == _BLOCK:
                    block, self._buffer = self._buffer, b""
                    yield from self._header(block)

    def _header(self, block: bytes) -> Iterator[Member]:
        if self.ended:
            raise InvalidBundleError("the bundle goes on after its end")
        if not any(block) and self._pax is None:
            self._zeros += 1
            self.ended = self._zeros == 2
            return
        if self._zeros:
            raise InvalidBundleError("the bundle goes on after its end")
        pax, self._pax = self._pax, None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise InvalidBundleError(f"the bundle is damaged: {error}") from None
        if info.type == tarfile.XHDTYPE and pax is None and 0 < info.size <= _LONGEST_PAX:
            self._pax = bytearray()
            self._left, self._padding = info.size, -info.size % _BLOCK
            return
        if info.type != tarfile.REGTYPE:
            raise InvalidBundleError(f"the bundle has a member that is no regular file: {info.name[:200]!r}")
        extended = {} if pax is None else _extensions(bytes(pax))
        try:
            size = int(extended.get("size", info.size))
        except ValueError:
            size = -1
        if not 0 <= size <= bundle.LARGEST:
            raise InvalidBundleError("the bundle has a member whose size is not allowed")
        self._left, self._padding = size, -size % _BLOCK
        yield Member(extended.get("path", info.name), size, info.mode, max(0, int(info.mtime)))


def _extensions(data: bytes) -> dict[str, str]:
    """The records of a pax header."""
    found: dict[str, str] = {}
    try:
        while data:
            digits, space, _ = data.partition(b" ")
            length = int(digits)
            key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
            if not (space and equals) or data[length - 1 : length] != b"\n" or key.decode() not in _PAX_KEYS:
                raise ValueError
            found[key.decode()] = value.decode()
            data = data[length:]
    except (ValueError, UnicodeDecodeError):
        raise InvalidBundleError("the bundle has a member whose header is not allowed") from None
    return found


class Unpacker:
    """Members out of the bytes of a bundle: each `Member` is followed by its bytes."""

    def __init__(self) -> None:
        self._tar = _Tar()
        self._inflate: Any = None
        self._raw = hashlib.sha256()
        self._unpacked = 0
        self.size = 0
        """Bytes that have been read."""
        self.member_at = 0
        """Where the last gzip member began."""
        self.digest_before_member = self._raw.hexdigest()
        """Digest of all bytes before it."""
        self.member = bytearray()
        """Its bytes, as far as a signature can be long."""

    @property
    def digest(self) -> str:
        """Of all bytes that have been read."""
        return self._raw.hexdigest()

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        """What these bytes bring. Raises `InvalidBundleError`."""
        for at in range(0, len(data), _BITE):
            yield from self._bite(data[at : at + _BITE])

    def _bite(self, data: bytes) -> Iterator[Member | bytes]:
        full = False
        while data or full:
            if self._inflate is None:
                if self._tar.ended:
                    raise InvalidBundleError("the bundle goes on after its end")
                self.member_at, self.digest_before_member = self.size, self._raw.hexdigest()
                self.member.clear()
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                plain: bytes = self._inflate.decompress(data, _STEP)
            except zlib.error:
                raise InvalidBundleError("the bundle is damaged: it cannot be unpacked") from None
            rest: bytes = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            used = data[: len(data) - len(rest)]
            self._raw.update(used)
            self.size += len(used)
            if len(self.member) <= _LONGEST_SIGNED_END:
                self.member += used
            data, full = rest, len(plain) == _STEP and not self._inflate.eof
            if self._inflate.eof:
                self._inflate = None
            self._unpacked += len(plain)
            if self._unpacked > bundle.LARGEST:
                raise InvalidBundleError(f"the bundle has more than {bundle.LARGEST} bytes when it is unpacked")
            yield from self._tar.feed(plain)

    def finish(self) -> None:
        """These were all bytes. Raises `InvalidBundleError` unless they were a whole bundle."""
        if not self._tar.ended or self._inflate is not None:
            raise InvalidBundleError("the bundle is cut off: it has no end")

    @property
    def unfinished(self) -> bool:
        """Whether all is there but the end of the tar: so a sidecar leaves it to who signs."""
        return self._tar.between and self._inflate is None


class Inspection:
    """Checks a bundle: its members, their order and, once its manifest is there, their digests."""

    def __init__(self) -> None:
        self.unpacker = Unpacker()
        self.manifest: Manifest | None = None
        self.manifest_digest = ""
        self.signature: Signature | None = None
        self._member = Member("", 0, 0, 0)
        self._left = 0
        self._digest = hashlib.sha256()
        self._seen: list[tuple[str, int, str]] = []
        self._held = bytearray()
        """What was read of a line, of the manifest or of the signature."""

    def feed(self, data: bytes) -> Iterator[Part]:
        """What these bytes bring of records and files; nothing of it can be trusted before `finish`.

        Raises `InvalidBundleError`.
        """
        for piece in self.unpacker.feed(data):
            if isinstance(piece, Member):
                if self._left:
                    raise InvalidBundleError("the bundle is damaged")
                yield from self._begin(piece)
            else:
                self._digest.update(piece)
                self._left -= len(piece)
                yield from self._data(piece)
            if not self._left:
                yield from self._end()

    def finish(self) -> Manifest:
        """These were all bytes. Raises `InvalidBundleError` unless they are a bundle whose digests are right."""
        self.unpacker.finish()
        if self.signature is not None and bundle.tail(self.signature) != self.unpacker.member:
            raise InvalidBundleError("the end of the bundle has been changed")
        return self.described()

    def described(self) -> Manifest:
        """The manifest, whose digests are right. Raises `InvalidBundleError` if it has not come."""
        if self.manifest is None:
            raise InvalidBundleError("the bundle is cut off: it has no manifest")
        return self.manifest

    def _begin(self, found: Member) -> Iterator[Part]:
        before = self._member.name
        if self.signature is not None or (self.manifest is not None and found.name != bundle.SIGNATURE):
            raise InvalidBundleError(f"the bundle has a member after its end: {found.name[:200]!r}")
        self._member, self._left = found, found.size
        self._digest = hashlib.sha256()
        if found.name == bundle.RECORDS and not before:
            return
        if found.name.startswith(bundle.WORKSPACE) and before:
            path = found.name.removeprefix(bundle.WORKSPACE)
            bundle.check_path(path)
            if before.startswith(bundle.WORKSPACE) and before >= found.name:
                raise InvalidBundleError("the files of the bundle are not in the order of their paths")
            if len(self._seen) > bundle.MOST_FILES:
                raise InvalidBundleError(f"the bundle has more than {bundle.MOST_FILES} files")
            yield File(path, found.size, found.mode, found.mtime)
            return
        limits = {bundle.MANIFEST: bundle.LARGEST_MANIFEST, bundle.SIGNATURE: bundle.LARGEST_SIGNATURE}
        in_place = before and (found.name == bundle.MANIFEST or self.manifest is not None)
        if not in_place or found.name not in limits or not 0 < found.size <= limits[found.name]:
            raise InvalidBundleError(f"the bundle has a member that does not belong there: {found.name[:200]!r}")

    def _data(self, piece: bytes) -> Iterator[Part]:
        if self._member.name.startswith(bundle.WORKSPACE):
            yield piece
            return
        if self._member.name != bundle.RECORDS:
            self._held += piece
            return
        for part in piece.splitlines(keepends=True):
            self._held += part
            if len(self._held) > bundle.LONGEST_LINE:
                raise InvalidBundleError(f"the bundle has a record of more than {bundle.LONGEST_LINE} bytes")
            if part.endswith(b"\n"):
                yield Line(bytes(self._held[:-1]))
                self._held.clear()

    def _end(self) -> Iterator[Part]:
        """The member is complete."""
        name, size, *_ = self._member
        held = bytes(self._held)
        self._held.clear()
        if name == bundle.MANIFEST:
            self._described(held)
        elif name == bundle.SIGNATURE:
            self.signature = bundle.parse_signature(held)
        elif name == bundle.RECORDS and held:
            raise InvalidBundleError("the last record of the bundle is cut off")
        else:
            self._seen.append((name, size, self._digest.hexdigest()))
            if name != bundle.RECORDS:
                yield FileEnd()

    def _described(self, text: bytes) -> None:
        try:
            value = from_json(text)
            manifest = Manifest.model_validate(value)
            members = [(entry["name"], entry["size"], entry["sha256"]) for entry in value["members"]]
        except (ValueError, ValidationError, KeyError, TypeError):
            raise InvalidBundleError("the bundle's manifest cannot be read, or is of another format") from None
        if members != self._seen:
            raise InvalidBundleError("the bundle does not hold what its manifest says: it has been changed")
        self.manifest, self.manifest_digest = manifest, self._digest.hexdigest()
