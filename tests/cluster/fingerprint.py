"""Whether an image has to be built again, answered without an engine.

A build that finds everything cached still sends its context and starts an engine: seconds per image, on
every test run. So the files that a Dockerfile copies are hashed here; equal hash, nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

IGNORED_DIRECTORIES = frozenset(
    {"__pycache__", ".git", "build", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)


def copied_sources(dockerfile: str) -> list[str]:
    """The paths (or patterns) in the build context that a Dockerfile reads; "." when that cannot be told."""
    text = re.sub(r"\\\s*\n", " ", dockerfile)
    sources: list[str] = []
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if len(words) != 2:
            continue
        instruction, rest = words[0].upper(), words[1]
        if instruction in {"COPY", "ADD"}:
            sources += _copy_arguments(rest)
        elif instruction == "RUN":
            for mount in re.findall(r"--mount=(\S+)", rest):
                options = dict(option.partition("=")[::2] for option in mount.split(","))
                if options.get("type", "bind") == "bind" and "from" not in options:
                    sources.append(options.get("source") or options.get("src") or ".")
    return ["."] if any("$" in source for source in sources) else sources


def _copy_arguments(rest: str) -> list[str]:
    flags = re.match(r"(?:--\S+\s+)*", rest)
    assert flags is not None  # it matches the empty string
    if "--from=" in flags.group():
        return []
    rest = rest[flags.end() :]
    if rest.startswith("["):
        words: list[str] = json.loads(rest)
    elif rest.startswith("<<"):
        return []
    else:
        words = shlex.split(rest)
    return words[:-1]


def context_files(context: Path, sources: Iterable[str]) -> list[Path]:
    """Every file below the sources, in a stable order."""
    found: set[Path] = set()
    for source in sources:
        pattern = source.strip("/") or "."
        for path in [context] if pattern == "." else context.glob(pattern):
            found.update(_files(path))
    return sorted(found)


def _files(path: Path) -> Iterable[Path]:
    if path.is_file() or path.is_symlink():
        yield path
    elif path.is_dir():
        for child in path.iterdir():
            if child.name not in IGNORED_DIRECTORIES and not child.name.endswith((".pyc", ".egg-info")):
                yield from _files(child)


def fingerprint(context: Path, dockerfile: Path, settings: Mapping[str, str]) -> str:
    """A hash over all that decides what a build makes."""
    digest = hashlib.sha256()
    for name, value in sorted(settings.items()):
        digest.update(f"{name}={value}\0".encode())
    text = dockerfile.read_text()
    files = context_files(context, copied_sources(text))
    for path in [dockerfile, context / ".dockerignore", *files]:
        if path.is_symlink():
            digest.update(f"{path}->{path.readlink()}\0".encode())
        elif path.is_file():
            relative = path.relative_to(context) if path.is_relative_to(context) else path.name
            digest.update(f"{relative}\0{path.stat().st_mode & 0o777:o}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
