"""The real executor as the first process of PID and mount namespaces of its own, under a user that is not root.

So RLIMIT_NPROC holds, `kill(-1)` reaches nothing outside, and all ends with the test, whatever the code has done. On a
machine that does not give such namespaces these tests are skipped; `tests/e2e/test_workspace.py` proves the same.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenure_executor.install import install

GROUP = 65_500
ROOT = os.getuid() == 0
_NAMESPACES = ["unshare", "--mount", "--mount-proc", "--pid", "--fork"]
if not ROOT:
    _NAMESPACES += ["--user", "--map-root-user"]
_UNPRIVILEGED = (
    # The developers' Python may be where only root can look.
    f"setpriv --reuid=$SESSION_USER --regid={GROUP} --clear-groups "
    "--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
    if ROOT
    else "setpriv --bounding-set=-all --inh-caps=-all"
)
_START = (
    "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && "
    'if [ -n "$VOLUME" ]; then mount -t tmpfs -o "size=$VOLUME,mode=0777" tmpfs "$HOME"; fi && '
    f'exec {_UNPRIVILEGED} --no-new-privs --pdeathsig=KILL "$@"'
)


class Container:
    """One executor and the directories that its container would have."""

    def __init__(self, root: Path, volume: str, environment: dict[str, str]) -> None:
        self.workspace, self.tmp, self.run = root / "workspace", root / "tmp", root / "run"
        self.socket = self.run / "exec.sock"
        self.opt = root / "opt"
        for directory in (self.opt, self.workspace, self.tmp, self.run):
            directory.mkdir()
            if ROOT:
                os.chown(directory, 0, GROUP)
            directory.chmod(0o2777)
        self.program = install(self.opt)
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.workspace),
            "TMPDIR": str(self.tmp),
            "VOLUME": volume,
            "SESSION_USER": str(1_000_000_000 + secrets.randbelow(1_000_000_000)),  # whose processes are only these
            "TENURE_EXEC_SOCKET": str(self.socket),
            "TENURE_MAX_PROCESSES": "24",
            "TENURE_MEMORY_BYTES": str(256 << 20),
            "TENURE_NETWORK": "Denied",
            **environment,
        }

    def start(self, *python: str) -> subprocess.Popen[str]:
        """Starts the executor; `python` are the options of Python."""
        program = [sys.executable, *(python or ("-I",)), str(self.program)]
        self.process = subprocess.Popen(
            [*_NAMESPACES, "sh", "-c", _START, "sh", *program],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def serving(self) -> "Container":
        """Waits until it serves."""
        assert self.process.stderr
        line = self.process.stderr.readline()
        assert line.startswith("executor: serves"), line
        self.walls = line
        return self

    def end(self) -> None:
        """Ends all processes."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stderr
        self.process.stderr.close()

    def terminate(self) -> None:
        """Tells the executor to end, as a kubelet does."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        os.kill(int(children.read_text()), signal.SIGTERM)

    def connect(self) -> socket.socket:
        """A connection."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(self.socket))
        return client

    def call(self, language: str, code: str, timeout: float = 30, keep: str = "tool-results/1-2.txt") -> dict[str, Any]:
        """Runs code; the end."""
        with self.connect() as client, client.makefile("rwb") as lines:
            request = {"language": language, "code": code, "timeout": timeout, "keep": keep}
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            assert json.loads(lines.readline()) == {"event": "started"}
            end: dict[str, Any] = json.loads(lines.readline())
            assert end["event"] == "ended"
            return end

    def python(self, code: str, **options: Any) -> str:
        """What Python code prints; it must end well."""
        end = self.call("python", code, **options)
        assert end.get("status") == 0, end
        return str(end["output"])

    def shell(self, code: str, **options: Any) -> str:
        """What shell code prints; it must end well."""
        end = self.call("shell", code, **options)
        assert end.get("status") == 0, end
        return str(end["output"])

    def others(self) -> int:
        """How many processes there are besides the executor and the one that counts."""
        return int(self.python("import os; print(sum(name.isdigit() for name in os.listdir('/proc')) - 2)"))


def can_isolate() -> bool:
    """Whether this machine gives namespaces."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    command = [*_NAMESPACES, "sh", "-c", _START, "sh", sys.executable, "-c", ""]
    return (
        subprocess.run(
            command, env={**os.environ, "VOLUME": "", "SESSION_USER": "1000000000"}, capture_output=True, check=False
        ).returncode
        == 0
    )


needs_namespaces = pytest.mark.skipif(not can_isolate(), reason="needs namespaces: unshare, setpriv and the right to")


@contextmanager
def container(volume: str = "", start: bool = True, **environment: str) -> Iterator[Container]:
    """A container; with `volume`, such as `8m`, its workspace is a volume of that size."""
    with tempfile.TemporaryDirectory(prefix="ex-") as root:  # short: a socket's path has 107 characters at most
        Path(root).chmod(0o755)
        made = Container(Path(root), volume, environment)
        if not start:
            yield made
            return
        made.start()
        try:
            yield made.serving()
        finally:
            made.end()


def until(check: Any, seconds: float = 20) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)
