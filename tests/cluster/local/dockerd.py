"""A docker daemon for image builds only: no bridge, no firewall rules, and gone when the builds are done.

Its layers stay in the cache, so a build with little changed takes seconds. Its base image stands in for
`python:3.13-slim` where no registry can be reached: Debian's packages, put together by mmdebstrap.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..engine import PIP_VARIABLES, Docker
from ..paths import RUN, cache
from ..shell import run, say, succeeds, wait_for
from . import archive, process

BASE_IMAGE = "local/python:13"
SUITE = "trixie"
BASE_PACKAGES = ("python3", "python3-pip", "ca-certificates")
KEPT_BUILD_CACHE = "5GB"
DAEMON = "dockerd"
SOCKET = RUN / "docker.sock"
EXEC_ROOT = RUN / "docker"
BUNDLE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def _mmdebstrap(target: Path) -> list[str | Path]:
    """Debian's Python without documentation, called `python` as in the stock image, and pip allowed to install."""
    unwanted = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    hook = 'ln -s python3 "$1/usr/bin/python"; rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        f"--include={','.join(BASE_PACKAGES)}",
        *unwanted,
        f"--customize-hook={hook}",
        SUITE,
        target,
    ]


def _rootfs() -> Path:
    """The root file system of the base image; about a minute to make, so it is kept by recipe."""
    recipe = " ".join(str(word) for word in _mmdebstrap(Path("-"))) + archive.architecture()
    target = cache() / f"base-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}" / "rootfs.tar"
    if not target.exists():
        say(f"making the base image {BASE_IMAGE} from Debian's packages (a minute, once)")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name("fresh.tar")
        run(_mmdebstrap(fresh))
        fresh.replace(target)
    return target


def ca_bundle() -> Path | None:
    """The certificates that pip on this machine trusts; builds in the image must trust the same."""
    named = [os.environ[name] for name in BUNDLE_VARIABLES if os.environ.get(name)]
    return next((Path(name) for name in [*named, BUNDLE] if Path(name).is_file()), None)


def _pip_environment() -> list[str]:
    """The index of this machine's pip, for every RUN of a Dockerfile: it need not declare arguments for it."""
    return [f"{name}={os.environ[name]}" for name in PIP_VARIABLES if os.environ.get(name)]


def base_archive() -> Path:
    """The base image as an archive, of the root file system and what this machine's pip needs."""
    rootfs = _rootfs()
    bundle = ca_bundle()
    settings = "\n".join(_pip_environment()).encode() + (bundle.read_bytes() if bundle else b"")
    target = rootfs.parent / f"image-{hashlib.sha256(settings).hexdigest()[:16]}.tar"
    if not target.exists():
        with tempfile.TemporaryDirectory() as temporary:
            layers = [rootfs]
            if bundle:
                layers.append(archive.files_layer(Path(temporary, "layer.tar"), {BUNDLE: bundle}))
            environment = [*_pip_environment(), *([f"PIP_CERT={BUNDLE}"] if bundle else [])]
            archive.write(target, BASE_IMAGE, layers, command=["python3"], environment=environment)
    return target


class PrivateEngine:
    """The daemon above, started for as long as a `running()` block lasts."""

    name = "local"

    def __init__(self) -> None:
        self.data = cache() / "docker"

    def base_image(self) -> str | None:
        return BASE_IMAGE

    def base_identity(self) -> str:
        return base_archive().name

    def has(self, image_id: str) -> bool:
        """Looked up in the daemon's own store: asking would mean starting it."""
        return any(self.data.glob(f"image/*/imagedb/content/{image_id.replace(':', '/')}"))

    def find(self, name: str) -> str | None:
        """The id of a tagged image, likewise without the daemon."""
        for path in self.data.glob("image/*/repositories.json"):
            tags: dict[str, dict[str, str]] = json.loads(path.read_text())["Repositories"]
            for repository in tags.values():
                if name in repository:
                    return repository[name]
        return None

    @contextmanager
    def running(self) -> Iterator[Docker]:
        client = Path("/usr/bin/docker")  # Debian's: another one on PATH may lack what its daemon needs
        docker = Docker(client if client.exists() else "docker", {"DOCKER_HOST": f"unix://{SOCKET}"})
        RUN.mkdir(parents=True, exist_ok=True)
        RUN.chmod(0o711)
        log = cache() / "dockerd.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process.start(DAEMON, self._command(), log)
        try:
            wait_for("the docker daemon", lambda: succeeds([docker.command, "info"], env=docker.env), 30, str(log))
            self._ensure_base(docker)
            yield docker
            docker("image", "prune", "--force")  # what a newer build has replaced
            docker("builder", "prune", "--force", "--keep-storage", KEPT_BUILD_CACHE)
        finally:
            stop()

    def _command(self) -> list[str | Path]:
        return [
            "dockerd",
            f"--data-root={self.data}",
            f"--exec-root={EXEC_ROOT}",
            f"--host=unix://{SOCKET}",
            f"--pidfile={RUN}/docker.pid",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",  # it would set the sysctl and a firewall policy by itself
            "--bridge=none",
        ]

    def _ensure_base(self, docker: Docker) -> None:
        path = base_archive()
        mark = self.data / "base"
        if not (
            mark.exists()
            and mark.read_text() == path.name
            and succeeds([docker.command, "image", "inspect", BASE_IMAGE], env=docker.env)
        ):
            docker("load", "--input", path)
            mark.write_text(path.name)


def stop() -> None:
    """Ends the daemon and removes what it leaves: namespaces' mounts, its sockets, its empty cgroups."""
    process.stop([DAEMON], patience=15)
    if EXEC_ROOT.exists():
        for mount in sorted((EXEC_ROOT / "netns").glob("*")):
            succeeds(["umount", mount])
        shutil.rmtree(EXEC_ROOT, ignore_errors=True)
    SOCKET.unlink(missing_ok=True)
    (RUN / "docker.pid").unlink(missing_ok=True)
    for top in Path("/sys/fs/cgroup").glob("*/docker"):
        succeeds(["find", top, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])
