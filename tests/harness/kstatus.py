"""What kstatus, the library by which GitOps tools read the status of any kind, makes of an object."""

import hashlib
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from cluster.paths import cache as kept_between_runs
from harness.kube import Manifest

SOURCES = Path(__file__).resolve().parents[1] / "kstatus"


@cache
def program() -> Path:
    """The program of `tests/kstatus`, built once for each state of its sources."""
    assert shutil.which("go"), "kstatus is built from a Go module: install Go 1.26 or newer"
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    built = kept_between_runs() / "kstatus" / digest.hexdigest()[:16]
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["go", "build", "-trimpath", "-buildvcs=false", "-o", fresh, "."],
            cwd=SOURCES,
            env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
            check=True,
        )
        fresh.replace(built)
    return built


def kstatus(resource: Manifest) -> str:
    """Current, InProgress, Failed, Terminating or Unknown."""
    done = subprocess.run([program()], input=json.dumps(resource), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
