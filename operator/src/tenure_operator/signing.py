"""The signing keys of operator and gateway, made once and kept in a Secret of the release namespace."""

import base64
import binascii

from tenure_api.names import MANAGED_BY, MANAGER
from tenure_api.tokens import Issuer, Signer, new_private_key, public_key
from tenure_operator.api_client import Api
from tenure_operator.errors import ExistsError, OperatorError
from tenure_operator.kinds import SECRETS, Manifest
from tenure_operator.rbac import SIGNING_KEYS

ISSUERS: tuple[Issuer, ...] = ("operator", "gateway")


class BadSigningKeysError(OperatorError):
    """The Secret does not hold the keys that it must hold."""


class SigningKeys:
    """The operator's signer, and the public keys that sidecars must know."""

    def __init__(self, private: dict[Issuer, str]) -> None:
        self.signer = Signer("operator", private["operator"])
        self.public: dict[str, str] = {issuer: public_key(private[issuer]) for issuer in ISSUERS}


async def signing_keys(api: Api, namespace: str) -> SigningKeys:
    """The keys of this installation; made if they are not there yet. Raises `BadSigningKeysError`."""
    made = {issuer: new_private_key() for issuer in ISSUERS}
    try:
        await api.create(SECRETS, _manifest(namespace, made))
    except ExistsError:
        made = _content(await api.get(SECRETS, namespace, SIGNING_KEYS))
    return SigningKeys(made)


def _manifest(namespace: str, private: dict[Issuer, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SIGNING_KEYS, "namespace": namespace, "labels": {MANAGED_BY: MANAGER}},
        "type": "Opaque",
        "data": {f"{issuer}.key": base64.b64encode(pem.encode()).decode() for issuer, pem in private.items()},
    }


def _content(secret: Manifest) -> dict[Issuer, str]:
    try:
        return {issuer: base64.b64decode(secret["data"][f"{issuer}.key"]).decode() for issuer in ISSUERS}
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        expected = " and ".join(f"{issuer}.key" for issuer in ISSUERS)
        raise BadSigningKeysError(
            f"Secret {SIGNING_KEYS} must hold {expected}; delete it, and both are made anew"
        ) from None
