"""The images of the project: one table, and the build of those whose inputs have changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .engine import Docker, Engine, build_arguments
from .fingerprint import fingerprint
from .paths import CHECKOUT, cache
from .shell import ClusterError, say

DEFAULT_TAG = "dev"


@dataclass(frozen=True)
class Image:
    name: str
    context: str
    """Relative to the checkout."""
    dockerfile: str
    """Relative to the checkout."""

    def tagged(self, tag: str) -> str:
        return f"{self.name}:{tag}"


TABLE = (
    Image("tenure/control-plane", ".", "operator/Dockerfile"),
    Image("tenure/runtime", ".", "runtime-image/Dockerfile"),
    Image("tenure/scripted-model", "tests/doubles", "tests/doubles/scripted_model/Dockerfile"),
    Image("tenure/http-api", "tests/doubles", "tests/doubles/http_api/Dockerfile"),
    Image("tenure/mcp-server", "tests/doubles", "tests/doubles/mcp_server/Dockerfile"),
    Image("tenure/demo-model", "examples/demo-model", "examples/demo-model/Dockerfile"),
    Image("tenure/custom-agent", "examples/custom-image", "examples/custom-image/Dockerfile"),
)


@dataclass(frozen=True)
class Record:
    """What a finished build leaves in the cache, so that the next run need not start an engine to know."""

    fingerprint: str
    image_id: str


def selected(names: Iterable[str], table: Sequence[Image] = TABLE) -> list[Image]:
    """The named images (`tenure/` may be left out), or all. A name nobody knows is an error."""
    by_name = {image.name: image for image in table}
    wanted = list(names)
    if not wanted:
        return list(table)
    found = []
    for name in wanted:
        image = by_name.get(name) or by_name.get(f"tenure/{name}")
        if image is None:
            raise ClusterError(f"no such image: {name}; there are {', '.join(by_name)}")
        found.append(image)
    return found


def record_path(engine: str, tagged: str) -> Path:
    return cache() / "images" / f"{engine}-{re.sub(r'[^a-z0-9.-]+', '_', tagged)}.json"


def read_record(engine: str, tagged: str) -> Record | None:
    try:
        return Record(**json.loads(record_path(engine, tagged).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(engine: str, tagged: str, record: Record) -> None:
    path = record_path(engine, tagged)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record.__dict__))


def build(engine: Engine, names: Sequence[str], tag: str = DEFAULT_TAG) -> None:
    """Builds what has changed. A missing Dockerfile is an error, before anything is built."""
    chosen = selected(names)
    missing = [image.dockerfile for image in chosen if not (CHECKOUT / image.dockerfile).is_file()]
    if missing:
        raise ClusterError(f"cannot build: {', '.join(missing)} not there")
    settings = {"base": engine.base_identity(), **build_arguments(os.environ)}
    stale = []
    for image in chosen:
        wanted = fingerprint(CHECKOUT / image.context, CHECKOUT / image.dockerfile, settings)
        record = read_record(engine.name, image.tagged(tag))
        if record is not None and record.fingerprint == wanted and engine.has(record.image_id):
            say(f"{image.tagged(tag)} is up to date")
        else:
            stale.append((image, wanted))
    if not stale:
        return
    with engine.running() as docker:
        for image, wanted in stale:
            say(f"building {image.tagged(tag)}")
            image_id = _build_one(docker, engine, image, tag)
            write_record(engine.name, image.tagged(tag), Record(wanted, image_id))
    say("images built")


def _build_one(docker: Docker, engine: Engine, image: Image, tag: str) -> str:
    arguments = build_arguments(os.environ)
    base = engine.base_image()
    if base is not None:
        arguments["BASE_IMAGE"] = base
    flags = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    docker(
        "build",
        "--network=host",
        "--file",
        CHECKOUT / image.dockerfile,
        "--tag",
        image.tagged(tag),
        *flags,
        CHECKOUT / image.context,
    )
    return docker.image_id(image.tagged(tag))
