"""Container images without an engine: a docker-archive (what `docker save` writes) from files and root file systems."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

CREATED = "2026-01-01T00:00:00Z"  # fixed: the same content must give the same image id
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def files_layer(target: Path, files: Mapping[str, Path]) -> Path:
    """A layer with the named files (path in the image -> path here), all root's and executable by everyone."""
    with tarfile.open(target, "w") as layer:
        for inside, source in files.items():
            entry = layer.gettarinfo(str(source), inside.lstrip("/"))
            entry.mode, entry.uid, entry.gid, entry.mtime = 0o755, 0, 0, 0
            entry.uname = entry.gname = "root"
            with source.open("rb") as content:
                layer.addfile(entry, content)
    return target


def write(
    target: Path,
    name: str,
    layers: Sequence[Path],
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Sequence[str] = (),
) -> None:
    """Writes the archive whole or not at all."""
    digests = [_digest(layer) for layer in layers]
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": {"Env": [PATH, *environment], "Entrypoint": list(entrypoint) or None, "Cmd": list(command) or None},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    raw = json.dumps(config).encode()
    config_name = hashlib.sha256(raw).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    fresh = target.with_suffix(".new")
    with tarfile.open(fresh, "w") as archive:
        _add(archive, "manifest.json", io.BytesIO(json.dumps(manifest).encode()))
        _add(archive, config_name, io.BytesIO(raw))
        for digest, layer in zip(digests, layers, strict=True):
            with layer.open("rb") as content:
                _add(archive, f"{digest}/layer.tar", content)
    fresh.replace(target)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(entry, content)
