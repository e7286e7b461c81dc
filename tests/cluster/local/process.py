"""Daemons that outlive the command that starts them, known by a pid file each."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..shell import ClusterError
from .layout import PIDS

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start(name: str, argv: Sequence[str | Path], log: Path, path: str = SYSTEM_PATH) -> bool:
    """Starts a daemon in a session of its own unless it runs already; tells whether it did.

    Its environment is nearly empty: a proxy variable or KUBECONFIG of the caller must not reach it.
    posix_spawn, not Popen: nobody here will ever wait for the child, and Popen warns about that.
    """
    if alive(name):
        return False
    PIDS.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        _executable(words[0], path),
        words,
        {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"},
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    (PIDS / name).write_text(f"{pid} {_start_time(pid)}")
    return True


def _executable(word: str, path: str) -> str:
    for folder in path.split(":"):
        candidate = Path(folder, word)  # an absolute word stays what it is
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise ClusterError(f"no program {word} on {path}")


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else ""


def pid_of(name: str) -> int | None:
    """The pid of a daemon if it runs. A zombie does not (PID 1 of a container may reap late), nor does
    another process that was given the pid meanwhile: its start time differs."""
    try:
        words = (PIDS / name).read_text().split()
    except OSError:
        return None
    if len(words) != 2:
        return None
    fields = _stat(int(words[0]))
    running = bool(fields) and fields[0] not in {"Z", "X"} and fields[19] == words[1]
    return int(words[0]) if running else None


def alive(name: str) -> bool:
    return pid_of(name) is not None


def known() -> list[str]:
    """The names of all daemons that were started and not yet stopped, running or not."""
    return sorted(path.name for path in PIDS.iterdir()) if PIDS.is_dir() else []


def stop(names: Iterable[str], patience: float = 3) -> None:
    """TERM to all, then KILL to what is left after `patience` seconds."""
    asked = list(names)
    for name in asked:
        send(name, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(alive(name) for name in asked) and time.monotonic() < deadline:
        time.sleep(0.05)
    for name in asked:
        send(name, signal.SIGKILL)
    while any(alive(name) for name in asked):
        time.sleep(0.05)
    for name in asked:
        (PIDS / name).unlink(missing_ok=True)


def kill(names: Iterable[str]) -> None:
    """KILL, as a power failure does it. They stay known."""
    asked = list(names)
    for name in asked:
        send(name, signal.SIGKILL)
    while any(alive(name) for name in asked):
        time.sleep(0.05)


def send(name: str, number: signal.Signals) -> None:
    """Sends a signal to a daemon if it runs."""
    pid = pid_of(name)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
