"""Keeps objects of one kind, those that are seldom looked at packed: a session that sleeps for months costs little.

An object as Python has it takes some 15 KiB, packed about one; to unpack it takes some tens of microseconds.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tenure_operator.kinds import Manifest

Name = tuple[str, str]


class _Packed(NamedTuple):
    version: int
    data: bytes


class Shelf:
    """Objects by namespace and name. Those given out are shared or copies: never change them."""

    def __init__(self, is_quiet: Callable[[Manifest], bool]) -> None:
        """`is_quiet` says which objects are packed."""
        self._is_quiet = is_quiet
        self._objects: dict[Name, Manifest | _Packed] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Manifest]:
        """All objects, as they are now."""
        for kept in list(self._objects.values()):
            yield _unpacked(kept)

    def version(self, name: Name) -> int | None:
        """The resource version of an object, without unpacking it; None if there is none."""
        kept = self._objects.get(name)
        if kept is None:
            return None
        return kept.version if isinstance(kept, _Packed) else int(kept["metadata"]["resourceVersion"])

    def get(self, name: Name) -> Manifest | None:
        """An object, or None."""
        kept = self._objects.get(name)
        return None if kept is None else _unpacked(kept)

    def put(self, name: Name, manifest: Manifest) -> None:
        """Keeps an object in place of the one of its name."""
        if self._is_quiet(manifest):
            data = zlib.compress(json.dumps(manifest, separators=(",", ":")).encode(), 1)
            self._objects[name] = _Packed(int(manifest["metadata"]["resourceVersion"]), data)
        else:
            self._objects[name] = manifest

    def remove(self, name: Name) -> None:
        """Forgets an object that is there."""
        del self._objects[name]


def _unpacked(kept: Manifest | _Packed) -> Manifest:
    if isinstance(kept, _Packed):
        manifest: Manifest = json.loads(zlib.decompress(kept.data))
        return manifest
    return kept
