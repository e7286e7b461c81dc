"""The operator's settings, from its environment.

| variable                        | default        | what |
|---------------------------------|----------------|------|
| `TENURE_NAMESPACE`              | required       | namespace of the release (downward API) |
| `TENURE_POD_NAME`               | the host name  | who holds the Lease (downward API) |
| `TENURE_RUNTIME_IMAGE`          | required       | image of the sidecar and of the built-in agent loop |
| `TENURE_IMAGE_PULL_POLICY`      | `IfNotPresent` | pull policy of all containers of a session pod |
| `TENURE_GATEWAY_URL`            | required       | base URL of the gateway, without `/v1`, as session pods reach it |
| `TENURE_AUDIENCE`               | `tenure`       | audience of the tokens that the gateway takes |
| `TENURE_SIDECAR_CPU_REQUEST`    | `10m`          | CPU that each sidecar reserves |
| `TENURE_SIDECAR_MEMORY_REQUEST` | `64Mi`         | memory that each sidecar reserves |
| `TENURE_SIDECAR_MEMORY_LIMIT`   | `256Mi`        | memory that a sidecar cannot exceed |
| `TENURE_EXCEPTED_CIDRS`         | none           | more networks, by commas, that session pods must not reach |
| `TENURE_SCRAPE_SECONDS`         | `15`           | seconds between two reports of a running sidecar |
| `TENURE_WORKERS`                | `16`           | objects that are reconciled at a time |
| `TENURE_PORT`                   | `8082`         | port of `/healthz`, `/readyz` and `/metrics` |
| `TENURE_LOG_LEVEL`              | `INFO`         | `DEBUG`, `INFO`, `WARNING` or `ERROR` |

Outside a cluster the API server is found by `KUBECONFIG`.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tenure_api.environment import read


def _cidrs(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(str(ipaddress.ip_network(part.strip())) for part in parts if part.strip())


class Settings(BaseModel):
    """The operator's settings; see the table above."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    namespace: str = Field(min_length=1)
    pod_name: str = Field(default_factory=socket.gethostname, min_length=1)
    runtime_image: str = Field(min_length=1)
    gateway_url: str = Field(pattern=r"^https?://[^/?#]+$")
    audience: str = Field("tenure", min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    sidecar_cpu_request: str = "10m"
    sidecar_memory_request: str = "64Mi"
    sidecar_memory_limit: str = "256Mi"
    excepted_cidrs: Annotated[tuple[str, ...], BeforeValidator(_cidrs)] = ()
    scrape_seconds: int = Field(15, ge=1, le=3600)
    workers: int = Field(16, ge=1, le=256)
    port: int = Field(8082, ge=1, le=65_535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings of this environment. Raises `InvalidSettingsError`."""
    return read(Settings, environment)
