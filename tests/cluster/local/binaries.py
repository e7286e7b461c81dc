"""The programs of the cluster, built from Go modules into the cache, once for each state of the sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from ..paths import cache
from ..shell import run, run_shown, say
from . import archive
from .layout import COREDNS_IMAGE, PAUSE_IMAGE, Record

SOURCES = Path(__file__).parent / "go"
LINKS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
HELM = "helm.sh/helm/v3"
CONTAINERD = "github.com/containerd/containerd/v2"
KUBERNETES = "k8s.io/kubernetes"
RUNC = "github.com/opencontainers/runc"
PACKAGES = (
    "./cmd/kube",
    "./cmd/coredns",
    f"{HELM}/cmd/helm",
    f"{CONTAINERD}/cmd/containerd",
    f"{CONTAINERD}/cmd/containerd-shim-runc-v2",
    f"{CONTAINERD}/cmd/ctr",
)
COMPLETE = ".complete"


def key() -> str:
    """A hash over everything that decides what the build makes, this file with its flags among it."""
    digest = hashlib.sha256(archive.architecture().encode())
    for path in sorted([Path(__file__), *(p for p in SOURCES.rglob("*") if p.is_file())]):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def directory() -> Path:
    return cache() / f"cluster-{key()}"


def ready() -> bool:
    return (directory() / COMPLETE).exists()


def ensure() -> Path:
    """The folder with `bin/` and `images/`; builds it when it is not there."""
    target = directory()
    if ready():
        return target
    say("building Kubernetes, etcd, containerd, runc, CoreDNS and Helm from Go modules (7 minutes on two cores, once)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as temporary:
        work = Path(temporary, "cluster")
        (work / "bin").mkdir(parents=True)
        (work / "images").mkdir()
        _build_go(work / "bin")
        _build_runc(work / "bin")
        _build_images(work)
        (work / COMPLETE).touch()
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    say(f"built into {target}")
    _prune(target)
    return target


def _prune(current: Path) -> None:
    """Each state of the sources costs 400 MB, so only this one and the one before stay, and the one that is running."""
    record = Record.load()
    used = Path(record.bin_dir).parent if record else None
    others = sorted(current.parent.glob("cluster-*"), key=lambda path: path.stat().st_mtime)
    for old in [path for path in others if path not in (current, used)][:-1]:
        shutil.rmtree(old)


def _environment(cgo: bool) -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "1" if cgo else "0", "GOWORK": "off"}


def _version(module: str, where: Path = SOURCES) -> str:
    return run(["go", "list", "-m", "-f", "{{.Version}}", module], cwd=where).strip()


def linker_flags(kubernetes: str, containerd: str, helm: str) -> str:
    """Versions, which these programs are told at link time; without them the API server calls itself v0.0.0."""
    minor = kubernetes.split(".")[1]
    values = {
        f"{CONTAINERD}/version.Version": containerd,
        f"{HELM}/internal/version.version": helm,
        f"{HELM}/internal/version.metadata": "",
        "github.com/coredns/coredns/coremain.GitCommit": "module",
    }
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        values |= {
            f"{package}.gitVersion": kubernetes,
            f"{package}.gitMajor": "1",
            f"{package}.gitMinor": minor,
            f"{package}.gitTreeState": "clean",
            f"{package}.gitCommit": "module",
            f"{package}.buildDate": archive.CREATED,
        }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def _build_go(target: Path) -> None:
    flags = linker_flags(_version(KUBERNETES), _version(CONTAINERD), _version(HELM))
    run_shown(
        ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", f"{target}/", *PACKAGES],
        cwd=SOURCES,
        env=_environment(cgo=False),
    )
    for name in LINKS:
        (target / name).symlink_to("kube")


def _build_runc(target: Path) -> None:
    """In a module of its own, for its requirements are far behind the others'; the only build with cgo."""
    where = SOURCES / "runc"
    flags = f"-s -w -X main.version={_version(RUNC, where)}"
    run_shown(
        [
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-tags",
            "seccomp",
            "-ldflags",
            flags,
            "-o",
            target / "runc",
            RUNC,
        ],
        cwd=where,
        env=_environment(cgo=True),
    )


def _build_images(work: Path) -> None:
    run(["gcc", "-Os", "-static", "-s", "-o", work / "bin" / "pause", SOURCES / "pause" / "pause.c"])
    for program, image in (("pause", PAUSE_IMAGE), ("coredns", COREDNS_IMAGE)):
        layer = archive.files_layer(work / "layer.tar", {f"/{program}": work / "bin" / program})
        archive.write(work / "images" / f"{program}.tar", image, [layer], entrypoint=[f"/{program}"])
        layer.unlink()
