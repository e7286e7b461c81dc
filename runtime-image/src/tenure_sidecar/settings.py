"""Where things are. The defaults are the paths and ports of a session pod; tests set others by environment."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenure_api.wire import METRICS_PORT, MODEL_PROXY_PORT, RUNTIME_PORT, SIDECAR_PORT

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
AGENT_GROUP = 65500
"""The group that sidecar and agent container share."""


@dataclass(frozen=True)
class Source:
    """The bundle that a session begins with. `digest`: no other than this one may come; None for a fork."""

    digest: str | None = None


@dataclass(frozen=True)
class Settings:
    """The settings of one sidecar."""

    identity: str
    """UID of the volume's claim. The journal, its sealing and all tokens are bound to it."""
    session: str = ""
    """`namespace/name`, for logs and messages; empty if the pod was started ahead and is bound to a session later."""
    generation: int = 0
    """Lease generation: of two sidecars with one volume, only the one with the higher one may write."""
    source: Source | None = None
    """What the session begins with, if not empty."""
    data: Path = Path("/data")
    """The volume. The sidecar makes `state` and `workspace` in it."""
    key: Path = Path("/var/run/tenure/key")
    """Directory of `data-key` and `pod-token`."""
    config: Path = Path("/etc/tenure")
    """Directory of `config.json` and the public keys of operator and gateway."""
    credentials: Path = Path("/var/run/tenure/credentials")
    """Directory of the model credentials, `<secret>/<key>`."""
    exec_socket: Path = Path("/run/tenure/exec/exec.sock")
    """Where the executor of the workspace container listens."""
    gateway_token: Path = Path("/var/run/tenure/gateway/token")
    """File of the token by which the gateway knows this pod."""
    shared: bool = False
    """Whether it is the host of many sessions. Its identity is that of the volume all the same."""
    host: str = "0.0.0.0"  # noqa: S104 - operator, gateway and kubelet come from outside; a NetworkPolicy and tokens guard it
    control_port: int = SIDECAR_PORT
    proxy_port: int = MODEL_PROXY_PORT
    metrics_port: int = METRICS_PORT
    runtime_port: int = RUNTIME_PORT

    @property
    def state(self) -> Path:
        """Directory of the journal, which only the sidecar can enter."""
        return self.data / "state"

    @property
    def workspace(self) -> Path:
        """Directory of the agent's files."""
        return self.data / "workspace"


def from_environment(env: Mapping[str, str] = os.environ) -> Settings:
    """Raises `ValueError` with a sentence if the environment lacks something or holds nonsense."""
    known: dict[str, tuple[str, Callable[[str], Any]]] = {
        "identity": ("TENURE_IDENTITY", str),
        "session": ("TENURE_SESSION", str),
        "generation": ("TENURE_GENERATION", int),
        "data": ("TENURE_DATA_DIR", Path),
        "key": ("TENURE_KEY_DIR", Path),
        "config": ("TENURE_CONFIG_DIR", Path),
        "credentials": ("TENURE_CREDENTIALS_DIR", Path),
        "exec_socket": ("TENURE_EXEC_SOCKET", Path),
        "gateway_token": ("TENURE_GATEWAY_TOKEN", Path),
        "shared": ("TENURE_SHARED", _flag),
        "host": ("TENURE_HOST", str),
        "control_port": ("TENURE_CONTROL_PORT", int),
        "proxy_port": ("TENURE_PROXY_PORT", int),
        "metrics_port": ("TENURE_METRICS_PORT", int),
        "runtime_port": ("TENURE_RUNTIME_PORT", int),
    }
    values: dict[str, Any] = {field: parse(env[name]) for field, (name, parse) in known.items() if env.get(name)}
    values["source"] = _source(env.get("TENURE_SOURCE", ""), env.get("TENURE_SOURCE_DIGEST", ""))
    if "identity" not in values:
        raise ValueError("TENURE_IDENTITY is not set; the operator sets it to the UID of the volume's claim")
    return Settings(**values)


def _source(kind: str, digest: str) -> Source | None:
    match kind, digest:
        case "", "":
            return None
        case "Fork", "":
            return Source()
        case "Import", _ if _DIGEST.fullmatch(digest):
            return Source(digest)
    raise ValueError("TENURE_SOURCE must be Fork, or Import with TENURE_SOURCE_DIGEST as sha256: and 64 hexadecimals")


def _flag(text: str) -> bool:
    return text == "true"
