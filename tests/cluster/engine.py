"""What image building needs of a container engine, and the engine that is simply there: docker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from .shell import run, succeeds

PIP_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Engine(Protocol):
    name: str

    def base_image(self) -> str | None:
        """What Dockerfiles get as BASE_IMAGE; None leaves them their own default."""

    def base_identity(self) -> str:
        """Changes when the base image does, so that what was built on the old one counts as stale."""

    def has(self, image_id: str) -> bool:
        """Whether an image is still there; must be quick, and true only if it is."""

    def running(self) -> AbstractContextManager[Docker]:
        """The engine's command line, for as long as it is needed."""


class Docker:
    """A docker command line and the environment it is called with."""

    def __init__(self, command: str | Path, extra: Mapping[str, str] | None = None) -> None:
        self.command = str(command)
        self.env = {**os.environ, "DOCKER_BUILDKIT": "1", **(extra or {})}

    def __call__(self, *args: str | Path) -> str:
        return run([self.command, *args], env=self.env)

    def image_id(self, name: str) -> str:
        return self("image", "inspect", "--format", "{{.Id}}", name).strip()


def build_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings of the host that a build cannot do without (index, proxy), and only those that are set."""
    return {name: environ[name] for name in (*PIP_VARIABLES, *PROXY_VARIABLES) if environ.get(name)}


class HostEngine:
    """The docker that a person has anyway; builds on the stock base image, which it can pull."""

    name = "host"

    def base_image(self) -> str | None:
        return None

    def base_identity(self) -> str:
        return "stock"

    def has(self, image_id: str) -> bool:
        return succeeds(["docker", "image", "inspect", image_id])

    @contextmanager
    def running(self) -> Iterator[Docker]:
        yield Docker("docker")
