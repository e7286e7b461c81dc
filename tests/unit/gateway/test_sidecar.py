import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api.tokens import LIFETIME_SECONDS, Signer, Verifier, public_key
from tenure_gateway.sidecar import REUSE_SECONDS, BrokenError, Tokens, decode
from unit.gateway.doubles import SIGNING_KEY

EVENTS = st.lists(
    st.just({"type": "started"})
    | st.just({"type": "restarted"})
    | st.builds(lambda text: {"type": "delta", "text": text}, st.text(max_size=5))
    | st.just({"type": "invented later", "x": 1}),
    max_size=12,
)


@given(EVENTS)
def test_a_batch_holds_the_text_since_the_last_restart(events: list[dict[str, object]]) -> None:
    restarts = [n for n, event in enumerate(events) if event["type"] == "restarted"]
    batch = decode([json.dumps(event).encode() for event in events] + [b""])
    assert batch.restarted == bool(restarts)
    assert batch.texts == [e["text"] for e in events[restarts[-1] if restarts else 0 :] if e["type"] == "delta"]
    assert batch.turn is None


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"type":"delta"}', b'{"type":"ended","turn":{}}', b"\xff"])
def test_another_language_is_a_break(line: bytes) -> None:
    with pytest.raises(BrokenError):
        decode([line])


def test_a_token_is_used_again_for_half_of_its_life() -> None:
    now = 1_000_000.0
    tokens = Tokens(Signer("gateway", SIGNING_KEY), lambda: now)
    verifier = Verifier("u", {"gateway": public_key(SIGNING_KEY)})
    first = tokens.token("u", "alice")
    now += REUSE_SECONDS - 1
    assert tokens.token("u", "alice") == first
    assert verifier.caller(first, now).subject == "alice"
    now += 1
    assert tokens.token("u", "alice") != first
    assert REUSE_SECONDS < LIFETIME_SECONDS


def test_a_token_is_for_one_session_and_one_subject() -> None:
    tokens = Tokens(Signer("gateway", SIGNING_KEY), lambda: 1_000_000.0)
    assert len({tokens.token(*of) for of in [("u", "alice"), ("v", "alice"), ("u", "bob")]}) == 3


def test_a_clock_that_is_set_back_does_not_keep_an_old_token() -> None:
    now = 1_000_000.0
    tokens = Tokens(Signer("gateway", SIGNING_KEY), lambda: now)
    first = tokens.token("u", "alice")
    now -= 3600
    assert tokens.token("u", "alice") != first
