"""The gateway's settings, from its environment.

| variable | default | what |
| --- | --- | --- |
| `TENURE_PORT` | `8080` | port of the API |
| `TENURE_METRICS_PORT` | `8083` | port of `/healthz`, `/readyz` and `/metrics` |
| `TENURE_AUDIENCE` | `tenure` | audience that callers' tokens must be issued for |
| `TENURE_SIGNING_KEY_FILE` | `/var/run/tenure/signing/gateway.key` | Ed25519 private key (PEM) |
| `TENURE_MAX_BODY_BYTES` | `1048576` | longest request body; beyond it 413 |
| `TENURE_RECEIVE_TIMEOUT_SECONDS` | `30` | within which head and body of a request must come; of a file, each bit |
| `TENURE_HOLD_SECONDS` | `120` | how long a request waits for a session's pod, all in all |
| `TENURE_TURN_TIMEOUT_SECONDS` | `3600` | how long a request follows one turn |
| `TENURE_RESPONSE_RETENTION_SECONDS` | `2592000` | life of a session made by a lone response: 30 days |
| `TENURE_THROWAWAY_SECONDS` | `7200` | life of a throwaway session that could not be deleted |
| `TENURE_TRUSTED_KEYS_FILE` | `/var/run/tenure/trusted/keys.pem` | keys (PEM) whose bundles are taken besides its own |
| `TENURE_MAX_BUNDLE_BYTES` | `1073741824` | longest bundle that is taken; beyond it 413 |
| `TENURE_SPOOL_DIRECTORY` | `/var/spool/tenure` | where bundles lie, two at a time, while they are checked |
| `TENURE_TOKEN_CACHE_SECONDS` | `10` | how long a TokenReview is believed |
| `TENURE_ACCESS_CACHE_SECONDS` | `5` | how long a SubjectAccessReview is believed |
| `TENURE_DRAIN_DELAY_SECONDS` | `5` | after SIGTERM: serve on while endpoints catch up |
| `TENURE_DRAIN_SECONDS` | `60` | then: how long requests in flight may go on |
| `TENURE_LOG_LEVEL` | `INFO` | `DEBUG`, `INFO`, `WARNING` or `ERROR` |

The pod's terminationGracePeriodSeconds must exceed the sum of the two drain times. Outside a cluster the API server is
found by `KUBECONFIG`. The 30 days are those for which OpenAI documents that it keeps a response.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tenure_api.bundle import InvalidBundleError, keys_in
from tenure_api.environment import InvalidSettingsError, read

_TRUSTED_KEYS = Path("/var/run/tenure/trusted/keys.pem")


class Settings(BaseModel):
    """The gateway's settings; see the table above."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    port: int = Field(8080, ge=1, le=65_535)
    metrics_port: int = Field(8083, ge=1, le=65_535)
    audience: str = Field("tenure", min_length=1)
    signing_key_file: Path = Path("/var/run/tenure/signing/gateway.key")
    max_body_bytes: int = Field(1_048_576, ge=1024, le=1_073_741_824)
    receive_timeout_seconds: float = Field(30, gt=0)
    hold_seconds: float = Field(120, gt=0)
    turn_timeout_seconds: float = Field(3600, gt=0)
    response_retention_seconds: int = Field(2_592_000, ge=60)
    throwaway_seconds: int = Field(7200, ge=60)
    trusted_keys_file: Path = _TRUSTED_KEYS
    max_bundle_bytes: int = Field(1_073_741_824, ge=1024)
    spool_directory: Path = Path("/var/spool/tenure")
    token_cache_seconds: float = Field(10, ge=0, le=300)
    access_cache_seconds: float = Field(5, ge=0, le=300)
    drain_delay_seconds: float = Field(5, ge=0)
    drain_seconds: float = Field(60, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    def trusted_keys(self) -> frozenset[str]:
        """The keys in the file of trusted keys; none if it is not there and nobody has said that it would be.

        Raises `InvalidSettingsError`, or `OSError` if it cannot be read.
        """
        if self.trusted_keys_file == _TRUSTED_KEYS and not _TRUSTED_KEYS.exists():
            return frozenset()
        try:
            return keys_in(self.trusted_keys_file.read_text())
        except (ValueError, InvalidBundleError):
            message = f"TENURE_TRUSTED_KEYS_FILE: {self.trusted_keys_file} must hold public keys of Ed25519 in PEM"
            raise InvalidSettingsError(message) from None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings of this environment. Raises `InvalidSettingsError`."""
    return read(Settings, environment)
