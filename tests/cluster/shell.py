"""Running commands and telling the person at the terminal what happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_started = time.monotonic()


class ClusterError(Exception):
    """Something a person has to put right; its text says what, in a sentence, and is shown without a traceback."""


def say(text: str) -> None:
    """One progress line, on standard error so that `env` and `info` keep standard output to themselves."""
    print(f"[{time.monotonic() - _started:6.1f}s] {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Runs a command and gives its standard output; a failure carries the end of what it said."""
    done = subprocess.run([str(a) for a in argv], env=env, cwd=cwd, input=stdin, text=True, capture_output=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError(f"{' '.join(str(a) for a in argv[:6])} failed with {done.returncode}: {said}")
    return done.stdout


def run_shown(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Runs a command whose own progress is worth showing (on standard error)."""
    done = subprocess.run([str(a) for a in argv], env=env, cwd=cwd, stdout=sys.stderr, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(str(a) for a in argv[:6])} failed with {done.returncode}")


def succeeds(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 30) -> bool:
    """Whether a command exists and ends well; for questions, so what it says is dropped."""
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            env=env,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def wait_for(what: str, condition: Callable[[], bool], seconds: float, hint: str = "") -> None:
    """Asks ten times a second until the condition holds; `hint` says where to look when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not come about within {seconds:.0f} s{'; see ' + hint if hint else ''}")
        time.sleep(0.1)
