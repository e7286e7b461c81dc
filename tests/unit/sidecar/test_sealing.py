"""Sealed payloads open in their own place, with their own key, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.journal.sealing import Head, SealBrokenError, Sealer
from unit.sidecar.support import KEY, SESSION

HEAD = Head(7, "ab" * 16, 1, "model.result", 123)


@given(st.binary())
def test_a_payload_opens_as_it_was(payload: bytes) -> None:
    sealer = Sealer(KEY, SESSION)
    assert sealer.open(HEAD, sealer.seal(HEAD, payload)) == payload


@pytest.mark.parametrize(
    "moved",
    [
        HEAD._replace(sequence=8),
        HEAD._replace(turn="cd" * 16),
        HEAD._replace(step=2),
        HEAD._replace(kind="turn.end"),
        HEAD._replace(at=124),
    ],
)
def test_a_payload_does_not_open_in_another_place(moved: Head) -> None:
    sealer = Sealer(KEY, SESSION)
    sealed = sealer.seal(HEAD, b"text")
    with pytest.raises(SealBrokenError):
        sealer.open(moved, sealed)


def test_a_payload_does_not_open_in_another_session_or_with_another_key() -> None:
    sealed = Sealer(KEY, SESSION).seal(HEAD, b"text")
    for other in (Sealer(KEY, "another"), Sealer(bytes(32), SESSION)):
        with pytest.raises(SealBrokenError):
            other.open(HEAD, sealed)


@given(st.integers(min_value=0, max_value=31), st.integers(min_value=1, max_value=255))
def test_a_flipped_bit_is_noticed(place: int, change: int) -> None:
    sealer = Sealer(KEY, SESSION)
    sealed = bytearray(sealer.seal(HEAD, b"text"))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(SealBrokenError):
        sealer.open(HEAD, bytes(sealed))


def test_what_is_shorter_than_a_nonce_is_noticed() -> None:
    with pytest.raises(SealBrokenError):
        Sealer(KEY, SESSION).open(HEAD, b"abc")


def test_the_same_payload_never_looks_the_same() -> None:
    sealer = Sealer(KEY, SESSION)
    assert sealer.seal(HEAD, b"text") != sealer.seal(HEAD, b"text")


def test_the_fingerprint_tells_keys_apart_and_holds_nothing_of_them() -> None:
    one, other = Sealer(KEY, SESSION).fingerprint, Sealer(bytes(32), SESSION).fingerprint
    assert one != other
    assert KEY not in one


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        Sealer(bytes(16), SESSION)
