"""The chart, rendered by Helm."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cluster.local import binaries

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tenure"
RELEASE, NAMESPACE = "tenure", "tenure-system"
KUBERNETES = "1.33.0"
"""The oldest version that the chart supports. Given always, since a Helm built from source knows none."""

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm refused; the text is what it said."""


@cache
def helm_binary() -> str:
    """The helm on PATH, or the one that `make binaries` builds."""
    found = shutil.which("helm", path=f"{os.environ['PATH']}:{binaries.directory() / 'bin'}")
    assert found, "these tests need helm: run `make binaries`, or put helm on PATH"
    return found


def helm(*arguments: str, stdin: str | None = None) -> str:
    """What Helm prints. Raises `HelmError`."""
    done = subprocess.run(
        [helm_binary(), *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


@cache
def _render(values: str, release: str, chart: Path, only: str) -> str:
    scope = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES, *(("--show-only", only) if only else ()))
    return helm("template", release, str(chart), *scope, "--values", "-", stdin=values)


def render_text(values: Values | None = None, release: str = RELEASE, chart: Path = CHART, only: str = "") -> str:
    """What a chart renders with these values, as text; `only` is one of its templates. Raises `HelmError`."""
    return _render(yaml.safe_dump(dict(values or {}), sort_keys=True), release, chart, only)


def render(values: Values | None = None, release: str = RELEASE) -> list[Manifest]:
    """The manifests that the chart renders with these values. Raises `HelmError`."""
    return [manifest for manifest in yaml.safe_load_all(render_text(values, release)) if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of a kind by name."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def all_on() -> list[Manifest]:
    """What the chart renders with all that is optional."""
    monitors = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}
    return render({"monitoring": monitors, "roles": {"aggregate": True}})
