"""The model credentials: read for every call, so that a rotated one is used at once."""

from pathlib import Path

from tenure_api.configuration import ModelTarget
from tenure_sidecar.proxy.failure import credential_missing


class Credentials:
    """The files of the credentials mount."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, target: ModelTarget) -> str | None:
        """The credential of a target; None if it needs none. Raises `ModelFailedError` if it is missing."""
        if target.credential is None:
            return None
        where = f"key {target.credential.rpartition('/')[2]!r} of Secret {target.credential.partition('/')[0]!r}"
        if ".." in target.credential.split("/"):
            raise credential_missing(f"{target.credential!r} is no path below the credentials mount")
        try:
            with open(f"{self._directory}/{target.credential}") as file:
                value = file.read().strip()
        except (OSError, ValueError):
            value = ""
        if not value:
            raise credential_missing(f"there is no credential for {target.base_url}: {where} is missing or empty")
        if not value.isascii() or not value.isprintable():
            raise credential_missing(f"{where} is not a credential: it holds characters that no header can carry")
        return value
