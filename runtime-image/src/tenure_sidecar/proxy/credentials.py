"""The credentials of models and tools: read for every call, so that a rotated one is used at once."""

from pathlib import Path

from tenure_api.configuration import ModelTarget
from tenure_sidecar.errors import SidecarError
from tenure_sidecar.proxy.failure import credential_missing


class CredentialError(SidecarError):
    """A credential is not there, or no credential. The message names Secret and key."""


class Credentials:
    """The files of the credentials mount."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, target: ModelTarget) -> str | None:
        """The credential of a target; None if it needs none. Raises `ModelFailedError` if it is missing."""
        if target.credential is None:
            return None
        try:
            return self.at(target.credential)
        except CredentialError as error:
            raise credential_missing(f"there is no credential for {target.base_url}: {error}") from error

    def at(self, path: str) -> str:
        """The credential at `<secret>/<key>`, fit for a header. Raises `CredentialError`."""
        where = f"key {path.rpartition('/')[2]!r} of Secret {path.partition('/')[0]!r}"
        if ".." in path.split("/"):
            raise CredentialError(f"{path!r} is no path below the credentials mount")
        try:
            with open(f"{self._directory}/{path}") as file:
                value = file.read().strip()
        except (OSError, ValueError):
            value = ""
        if not value:
            raise CredentialError(f"{where} is missing or empty")
        if not value.isascii() or not value.isprintable():
            raise CredentialError(f"{where} is not a credential: it holds characters that no header can carry")
        return value
