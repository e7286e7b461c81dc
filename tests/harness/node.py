"""The official `openai` package from npm, run by Node.js."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SMOKE = Path(__file__).parents[1] / "smoke-node"


def smoke(script: str, **environment: str) -> Any:
    """What a script of `tests/smoke-node` prints, which is JSON."""
    if shutil.which("npm") is None:
        pytest.fail("npm is needed for the smoke test of the openai package from npm: install Node.js 20")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=SMOKE, check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        ["node", script],
        cwd=SMOKE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
