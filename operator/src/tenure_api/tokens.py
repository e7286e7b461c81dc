"""Short-lived tokens by which operator and gateway prove themselves to a sidecar.

JSON Web Tokens signed with Ed25519 (RFC 8037). The issuer is `operator` or `gateway`, each with its own key; the
audience is the identity of the session, the UID of its volume's claim, so that a token is worth nothing at another
session's sidecar. A sidecar holds only the public keys: whoever reads one cannot call another.
"""

from dataclasses import dataclass
from typing import Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

Issuer = Literal["operator", "gateway"]

LIFETIME_SECONDS = 60
"""How long a token is valid. Long enough for clock skew between nodes, short enough to be worthless when leaked."""
LEEWAY_SECONDS = 15
"""Clock skew between nodes that is tolerated."""


class RefusedError(Exception):
    """The token does not prove what it should; the message says why and holds nothing of the token."""


@dataclass(frozen=True)
class Caller:
    """Who is calling a sidecar. `subject` is the person or system that the gateway acts for, if any."""

    issuer: Issuer
    subject: str | None
    identity: str = ""
    """What the token was made out to."""


def new_private_key() -> str:
    """A new Ed25519 private key as PEM (PKCS #8)."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_key(private_pem: str) -> str:
    """The public key (PEM) of a private key (PEM)."""
    key = ed25519_private(private_pem).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def ed25519_private(pem: str) -> Ed25519PrivateKey:
    """The private key in a PEM. Raises `ValueError` if it is of another kind."""
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the signing key must be an Ed25519 key")
    return key


def ed25519_public(pem: str) -> Ed25519PublicKey:
    """The public key in a PEM. Raises `ValueError` if it is of another kind."""
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the verification key must be an Ed25519 key")
    return key


class Signer:
    """Signs tokens for one issuer."""

    def __init__(self, issuer: Issuer, private_pem: str) -> None:
        self._issuer = issuer
        self._key = ed25519_private(private_pem)

    def token(self, identity: str, now: float, subject: str | None = None) -> str:
        """A token for the sidecar of this identity. `now` is in seconds since the epoch."""
        claims = {"iss": self._issuer, "aud": identity, "iat": int(now), "exp": int(now) + LIFETIME_SECONDS}
        if subject is not None:
            claims["sub"] = subject
        return jwt.encode(claims, self._key, algorithm="EdDSA")


class Verifier:
    """Verifies tokens at a sidecar."""

    def __init__(self, identity: str | None, public_pems: dict[Issuer, str]) -> None:
        """Without an identity, for a sidecar of many sessions, who verifies looks at `Caller.identity`."""
        self._identity = identity
        self._keys = {issuer: ed25519_public(pem) for issuer, pem in public_pems.items()}

    def caller(self, token: str, now: float) -> Caller:
        """Who presents this token. `now` is in seconds since the epoch.

        Raises `RefusedError` if it is malformed, badly signed, of an unknown issuer, for another session, or expired.
        """
        try:
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
            issuer, key = next((issuer, key) for issuer, key in self._keys.items() if issuer == claimed)
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=self._identity,
                options={
                    "require": ["exp", "iat", "aud", "iss"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_aud": self._identity is not None,
                },
            )
        except (jwt.PyJWTError, StopIteration):
            raise RefusedError("the token is not one of this session's operator or gateway") from None
        if not claims["iat"] - LEEWAY_SECONDS <= now <= claims["exp"] + LEEWAY_SECONDS:
            raise RefusedError("the token is out of date; check that the nodes' clocks agree")
        return Caller(issuer, claims.get("sub"), str(claims["aud"]))
