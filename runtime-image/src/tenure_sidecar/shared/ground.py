"""What a host stands on: its volume, which only its latest run may use, and what it keeps there for itself."""

from pathlib import Path

from tenure_api.configuration import SessionConfig
from tenure_api.messages import Wire
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.lock import Lock
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import LOCK
from tenure_sidecar.shared.places import Places
from tenure_sidecar.shared.sealed import SealedFile


class Functions(Wire):
    """The functions of tools as they were last told, by tool."""

    functions: dict[str, str]


class HeldLease(Lease):
    """The host's lease as each of its journals sees it: it is announced already."""

    def announce(self) -> None:
        """Raises `SupersededError` if a later run has announced itself."""
        self.check()


class Ground:
    """The volume of a host. Everything blocks on the disk."""

    def __init__(self, state: Path, workspace: Path, key: bytes, identity: str, generation: int) -> None:
        """Take the volume. Raises `JournalError`."""
        self.lease = HeldLease(state, generation)
        Lease(state, generation).announce()
        self._lock = Lock(state / LOCK)
        try:
            self.lease.check()  # a later run may have come and gone meanwhile
            sealer = Sealer(key, identity)
            self._config = SealedFile(state / "config", sealer)
            self._functions = SealedFile(state / "functions", sealer)
            self.places = Places(state, workspace, key, identity)
            self.places.prepare()
        except BaseException:
            self._lock.release()
            raise

    def config(self) -> SessionConfig | None:
        """The configuration that was last accepted. Raises `UnreadableError`."""
        kept = self._config.read()
        return SessionConfig.model_validate_json(kept) if kept is not None else None

    def keep_config(self, config: SessionConfig) -> None:
        """Keep a configuration. Raises `UnreadableError`."""
        self._config.write(config.model_dump_json(by_alias=True).encode())

    def functions(self) -> dict[str, str]:
        """The functions that were kept. Raises `UnreadableError`."""
        kept = self._functions.read()
        return dict(Functions.model_validate_json(kept).functions) if kept is not None else {}

    def keep_functions(self, functions: dict[str, str]) -> None:
        """Keep functions. Raises `UnreadableError`."""
        self._functions.write(Functions(functions=functions).model_dump_json(by_alias=True).encode())

    def release(self) -> None:
        """Let the next run in."""
        self._lock.release()
