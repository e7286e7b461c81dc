"""Whatever is done to a bundle, it is refused, and nothing of it is left behind."""

import gzip
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenure_api import bundle
from tenure_api.bundle import InvalidBundleError, check_signature, digest_name, keys_in, sha256
from tenure_api.tokens import new_private_key, public_key
from tenure_api.unpacking import Inspection
from tenure_sidecar.errors import RefusedError
from unit.sidecar.bundle.histories import HEADER, KEY, Place, a_bundle, signed, take

OURS, THEIRS = new_private_key(), new_private_key()
REFUSALS = (InvalidBundleError, RefusedError)


def members(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def packed(entries: list[tuple[str, bytes]], complete: bool = True) -> bytes:
    """A bundle of these members, as they are."""
    plain = b"".join(bundle.member(name, len(data)) + data + bundle.padding(len(data)) for name, data in entries)
    deflate = zlib.compressobj(wbits=31)
    return deflate.compress(plain + (bundle.end() if complete else b"")) + deflate.flush()


def described(entries: list[tuple[str, bytes]], **changes: Any) -> list[tuple[str, bytes]]:
    """The members with a manifest that fits them."""
    others = [(name, data) for name, data in entries if name not in (bundle.MANIFEST, bundle.SIGNATURE)]
    manifest = {**json.loads(dict(entries)[bundle.MANIFEST]), **changes}
    manifest["members"] = [{"name": name, "size": len(data), "sha256": sha256(data)} for name, data in others]
    return [*others, (bundle.MANIFEST, json.dumps(manifest).encode())]


def records_changed(data: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    """A bundle whose digests are right, with other records."""
    entries = members(data)
    lines = [json.loads(line) for line in dict(entries)[bundle.RECORDS].splitlines()]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in change(lines))
    return packed(described([(bundle.RECORDS, text), *entries[1:]]))


def refused(
    place: Place, data: bytes, match: str | None = None, key: bytes | None = None, digest: str | None = None
) -> None:
    with pytest.raises(REFUSALS, match=match):
        take(place, data, key, digest)
    assert place.is_empty()


def imported(place: Place, data: bytes, original: str) -> None:
    """As gateway and sidecar import a bundle: the one looks for the signature, the other for the digest."""
    inspection = Inspection()
    for _ in inspection.feed(data):
        pass
    inspection.finish()
    if inspection.signature is None:
        raise InvalidBundleError("not signed")
    before = inspection.unpacker.digest_before_member
    check_signature(inspection.signature, inspection.manifest_digest, before, keys_in(public_key(OURS)))
    take(place, data, digest=original)


async def test_two_hundred_corruptions_of_a_signed_bundle_are_all_refused(tmp_path: Path) -> None:
    data = await a_bundle(tmp_path / "a", signer=OURS)
    chance = random.Random(20261124)
    place = Place(tmp_path / "b", "two")
    corrupted: list[bytes] = []
    for _ in range(110):
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        corrupted.append(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
    corrupted += [data[: chance.randrange(len(data))] for _ in range(30)]
    corrupted += [data + chance.randbytes(chance.randrange(1, 600)) for _ in range(5)]
    corrupted += [data + data, data + bundle.end(), data + gzip.compress(b""), data[10:], b"", data[:10]]
    for _ in range(20):
        start = chance.randrange(len(data) - 50)
        length = chance.randrange(1, 50)
        corrupted.append(data[:start] + data[start + length :])
    for _ in range(20):
        entries = members(data)
        first, second = chance.sample(range(len(entries) - 1), 2)
        entries[first], entries[second] = entries[second], entries[first]
        corrupted.append(packed(entries))
    for _ in range(10):
        entries = members(data)
        del entries[chance.randrange(len(entries))]
        corrupted.append(packed(entries))
    unsigned = [entry for entry in members(data) if entry[0] != bundle.SIGNATURE]
    corrupted.append(signed(packed(unsigned, complete=False), THEIRS))
    corrupted.append(packed(unsigned))
    corrupted.append(packed(members(data)))
    assert len(corrupted) >= 200
    for number, changed in enumerate(corrupted):
        with pytest.raises(REFUSALS):
            imported(place, changed, digest_name(sha256(changed)))
        assert place.is_empty(), number
    imported(place, data, digest_name(sha256(data)))


async def test_a_bundle_that_is_not_signed_does_not_come_in_changed_either(tmp_path: Path) -> None:
    data = await a_bundle(tmp_path / "a")
    chance = random.Random(7)
    place = Place(tmp_path / "b", "two")
    for _ in range(60):
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        refused(place, changed, digest=digest_name(sha256(data)))
    for length in [0, 1, 9, len(data) // 2, len(data) - 9, len(data) - 1]:
        refused(place, data[:length])


CHANGES: list[tuple[str, Callable[[list[Any]], list[Any]], str]] = [
    ("swapped", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "not in order"),
    ("twice", lambda lines: [lines[0], *lines], "not in order"),
    ("lost", lambda lines: [*lines[:3], *lines[4:]], "does not hold the records"),
    ("unended", lambda lines: lines[:-1], "has not ended"),
    ("without a start", lambda lines: lines[1:], "not where it can be"),
    ("earlier", lambda lines: [*lines[:3], lines[3] | {"at": 1}, *lines[4:]], "not in order"),
    ("unknown", lambda lines: [lines[0], lines[1] | {"kind": "odd"}, *lines[2:]], "unknown kind"),
    ("configuration", lambda lines: [lines[0] | {"kind": "config", "turn": ""}, *lines[1:]], "none of a turn"),
    ("senseless", lambda lines: [lines[0] | {"payload": {"request": 1}}, *lines[1:]], "does not say what"),
    ("no object", lambda lines: [lines[0] | {"payload": 3}, *lines[1:]], "cannot be read"),
    ("no number", lambda lines: [lines[0] | {"sequence": "1"}, *lines[1:]], "none of a turn"),
    ("huge", lambda lines: [*lines[:-1], lines[-1] | {"sequence": 2**60}], "none of a turn"),
    ("again", lambda lines: [*lines, lines[-1] | {"sequence": 99}], "twice"),
]


@pytest.mark.parametrize(("what", "change", "message"), CHANGES, ids=[what for what, *_ in CHANGES])
async def test_records_that_make_no_history_are_refused_though_all_digests_are_right(
    tmp_path: Path, what: str, change: Callable[[list[Any]], list[Any]], message: str
) -> None:
    data = await a_bundle(tmp_path / "a")
    refused(Place(tmp_path / "b", "two"), records_changed(data, change), message)


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "a//b", "", ".", "a/./b", "x" * 256, "y/" * 40 + "y", "a\0b"]
)
async def test_a_file_never_leads_out_of_the_workspace(tmp_path: Path, path: str) -> None:
    data = await a_bundle(tmp_path / "a")
    first, *others = members(data)
    entries = described([first, (f"{bundle.WORKSPACE}{path}", b"x"), *others])
    refused(Place(tmp_path / "b", "two"), packed(entries))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
async def test_only_regular_files_are_taken(tmp_path: Path, kind: bytes) -> None:
    first, *others = members(await a_bundle(tmp_path / "a"))
    info = tarfile.TarInfo(f"{bundle.WORKSPACE}0")
    info.type, info.linkname = kind, "/etc/passwd"
    strange = info.tobuf(tarfile.PAX_FORMAT)
    plain = gzip.decompress(packed([first], complete=False)) + strange
    plain += gzip.decompress(packed(described([first, *others])[1:]))
    refused(Place(tmp_path / "b", "two"), gzip.compress(plain), "no regular file")


async def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    first, *others = members(await a_bundle(tmp_path / "a"))
    files = [(f"{bundle.WORKSPACE}0", b"x"), (f"{bundle.WORKSPACE}0/1", b"y")]
    refused(Place(tmp_path / "b", "two"), packed(described([first, *files, *others])), "needs a directory")


async def test_a_bundle_of_another_format_is_refused(tmp_path: Path) -> None:
    entries = members(await a_bundle(tmp_path / "a"))
    refused(Place(tmp_path / "b", "two"), packed(described(entries, format="tenure-bundle/2")), "another format")


async def test_what_is_too_much_is_refused_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = await a_bundle(tmp_path / "a")
    place = Place(tmp_path / "b", "two")
    for limit, value in [("LARGEST", 9_000), ("MOST_FILES", 2), ("LONGEST_LINE", 100), ("LARGEST_MANIFEST", 50)]:
        with monkeypatch.context() as small:
            small.setattr(bundle, limit, value)
            refused(place, data)
    bomb = packed([(bundle.RECORDS, bytes(80_000_000))])
    refused(place, bomb, "more than")
    take(place, data)


async def test_another_bundle_than_the_one_of_the_session_is_refused(tmp_path: Path) -> None:
    data, other = await a_bundle(tmp_path / "a"), await a_bundle(tmp_path / "c", turns=2)
    refused(Place(tmp_path / "b", "two"), other, "another bundle", digest=digest_name(sha256(data)))


async def test_only_the_right_key_opens_a_sealed_bundle(tmp_path: Path) -> None:
    sealed, plain = await a_bundle(tmp_path / "a", key=KEY), await a_bundle(tmp_path / "c")
    place = Place(tmp_path / "b", "two")
    refused(place, sealed, "send the key")
    refused(place, sealed, "does not open", key=bytes(32))
    refused(place, plain, "leave the key out", key=KEY)
    assert bundle.parse_key(HEADER[bundle.KEY_HEADER]) == KEY
    take(place, sealed, KEY)


async def test_what_is_sealed_opens_only_in_its_place(tmp_path: Path) -> None:
    data = await a_bundle(tmp_path / "a", key=KEY)

    def swap(lines: list[Any]) -> list[Any]:
        lines[1]["sealed"], lines[2]["sealed"] = lines[2]["sealed"], lines[1]["sealed"]
        return lines

    place = Place(tmp_path / "b", "two")
    refused(place, records_changed(data, swap), "does not open", key=KEY)
    first, *files, manifest = members(data)
    (one, held), (two, other), *rest = files
    entries = described([first, (one, other), (two, held), *rest, manifest])
    refused(place, packed(entries), "does not open", key=KEY)
