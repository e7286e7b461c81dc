"""Checks a file of `export`: that it is whole and unchanged, and by whom it is signed."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tenure_api.bundle import InvalidBundleError, Manifest, canonical_key, check_signature, digest_name, keys_in
from tenure_api.unpacking import Inspection
from tenure_cli.errors import CliError, NotFoundError

_STEP = 262_144


class Checked(NamedTuple):
    """A bundle that is whole and unchanged."""

    manifest: Manifest
    digest: str
    """Of the file, as `spec.source.importFrom.digest` says it."""
    size: int
    signer: str | None
    """Fingerprint of the key that signed it; None if it is not signed."""

    def document(self) -> dict[str, Any]:
        """What is told of it in JSON."""
        about = self.manifest.model_dump(mode="json", by_alias=True, exclude={"subject"})
        return {**about, "digest": self.digest, "size": self.size, "signedBy": self.signer}


def check(path: Path, trusted: frozenset[str] | None = None, done: Callable[[int], None] = lambda _: None) -> Checked:
    """Reads all of a bundle. `trusted`: keys, one of which must have signed it; `done` is told how far it is.

    Raises `CliError`.
    """
    inspection = Inspection()
    try:
        with path.open("rb") as file:
            while data := file.read(_STEP):
                for _ in inspection.feed(data):
                    pass
                done(len(data))
        manifest = inspection.finish()
        signer = _signer(inspection, trusted)
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {path}.") from None
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.") from None
    except InvalidBundleError as error:
        raise CliError(f"{path} is not a bundle that can be used: {error}.") from None
    read = inspection.unpacker
    return Checked(manifest, digest_name(read.digest), read.size, signer)


def _signer(inspection: Inspection, trusted: frozenset[str] | None) -> str | None:
    signature = inspection.signature
    if signature is None:
        if trusted is not None:
            raise InvalidBundleError("it is not signed")
        return None
    key = canonical_key(signature.public_key)
    before = inspection.unpacker.digest_before_member
    check_signature(signature, inspection.manifest_digest, before, frozenset({key}))
    if trusted is not None and key not in trusted:
        raise InvalidBundleError(f"it is signed with another key, {fingerprint(key)}")
    return fingerprint(key)


def fingerprint(key: str) -> str:
    """How people compare keys."""
    return f"sha256:{hashlib.sha256(bytes.fromhex(key)).hexdigest()}"


def trusted_keys(path: str | None) -> frozenset[str] | None:
    """The public keys in a PEM file; None if none is given. Raises `CliError`."""
    if path is None:
        return None
    try:
        found = keys_in(Path(path).read_text())
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {path}.") from None
    except (OSError, ValueError, InvalidBundleError):
        found = frozenset()
    if not found:
        raise CliError(f"{path} holds no public key of Ed25519 in PEM.")
    return found
