from tenure_api.tokens import LIFETIME_SECONDS, Signer, Verifier, public_key
from tenure_gateway.sidecar import REUSE_SECONDS, Tokens
from unit.gateway.sidecars import SIGNING_KEY


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
