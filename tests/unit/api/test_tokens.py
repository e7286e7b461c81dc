"""Tokens between our processes prove the issuer and the session, and nothing else passes."""

import base64
import json

import jwt
import pytest

from tenure_api.tokens import (
    LEEWAY_SECONDS,
    LIFETIME_SECONDS,
    Caller,
    RefusedError,
    Signer,
    Verifier,
    new_private_key,
    public_key,
)

NOW = 1_800_000_000.0
OPERATOR, GATEWAY, STRANGER = new_private_key(), new_private_key(), new_private_key()


@pytest.fixture
def verifier() -> Verifier:
    return Verifier("uid-1", {"operator": public_key(OPERATOR), "gateway": public_key(GATEWAY)})


def test_a_token_names_its_issuer_and_the_subject(verifier: Verifier) -> None:
    token = Signer("gateway", GATEWAY).token("uid-1", NOW, subject="alice")
    assert verifier.caller(token, NOW) == Caller("gateway", "alice", "uid-1")


@pytest.mark.parametrize(
    ("signer", "session"),
    [
        (Signer("gateway", GATEWAY), "uid-2"),
        (Signer("gateway", STRANGER), "uid-1"),
        (Signer("operator", GATEWAY), "uid-1"),
    ],
    ids=["another session", "a stranger's key", "the gateway as operator"],
)
def test_a_token_for_something_else_is_refused(verifier: Verifier, signer: Signer, session: str) -> None:
    with pytest.raises(RefusedError):
        verifier.caller(signer.token(session, NOW), NOW)


def test_a_token_is_refused_after_its_time_and_before(verifier: Verifier) -> None:
    token = Signer("operator", OPERATOR).token("uid-1", NOW)
    verifier.caller(token, NOW + LIFETIME_SECONDS + LEEWAY_SECONDS)
    for moment in (NOW + LIFETIME_SECONDS + LEEWAY_SECONDS + 1, NOW - LEEWAY_SECONDS - 1):
        with pytest.raises(RefusedError):
            verifier.caller(token, moment)


def test_an_unsigned_or_malformed_token_is_refused(verifier: Verifier) -> None:
    claims = {"iss": "operator", "aud": "uid-1", "iat": int(NOW), "exp": int(NOW) + 60}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    symmetric = jwt.encode(claims, public_key(OPERATOR).encode().hex(), algorithm="HS256")
    for token in ("", "x", "a.b.c", f"{none}.{body}.", symmetric):
        with pytest.raises(RefusedError):
            verifier.caller(token, NOW)


def test_a_sidecar_of_many_sessions_is_told_whose_token_it_is() -> None:
    host = Verifier(None, {"operator": public_key(OPERATOR), "gateway": public_key(GATEWAY)})
    for uid in ("uid-1", "uid-2"):
        assert host.caller(Signer("gateway", GATEWAY).token(uid, NOW), NOW) == Caller("gateway", None, uid)
    with pytest.raises(RefusedError):
        host.caller(Signer("gateway", STRANGER).token("uid-1", NOW), NOW)
    with pytest.raises(RefusedError):
        host.caller(Signer("gateway", GATEWAY).token("uid-1", NOW), NOW + LIFETIME_SECONDS + LEEWAY_SECONDS + 1)
