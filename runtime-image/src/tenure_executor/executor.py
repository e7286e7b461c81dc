"""Runs the code of an agent, one call at a time, as the first process of the container `workspace`.

Whoever can connect to the Unix socket from outside of the container sends one line of JSON,

    {"language": "python" | "shell", "code": "...", "timeout": seconds, "keep": "path in the workspace"}

and gets `{"event": "started"}` before anything is run (so without it nothing was), then one line with the end:

    {"event": "ended", "output": "...", "status": 0, "signal": null, "stopped": null, "seconds": 0.1}
    {"event": "ended", "error": "why it could not be run"}

`stopped` is why the executor ended the call: `timeout` or `disk`. `output` is stdout and stderr in the order in which
they were written; of a long one the middle is left out, and all of it is in the file `keep`. If the client goes away,
the call is killed. After every call no process of the container is left but this one.

Code and executor have the same uid: the code can spoil its own socket, files and answers, but nothing outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from tenure_executor.errors import CannotServe
from tenure_executor.files import Space, empty
from tenure_executor.output import Output
from tenure_executor.processes import Processes
from tenure_executor.walls import confine, limit, look

REQUEST_BYTES = 8 << 20
PATIENCE = 10.0
"""Seconds for a client to send or to take a line."""
TICK = 0.2
"""Seconds between two looks at the volume."""


class Executor:
    """The server of one container."""

    def __init__(self, path: Path, workspace: Path, temporary: Path) -> None:
        self._path, self._workspace, self._temporary = path, workspace, temporary
        self._processes = Processes()
        self._clean()
        self._listener, self._inode = self._listen()

    def _listen(self) -> tuple[socket.socket, int]:
        try:
            empty(self._path.parent)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self._path))
            self._path.chmod(0o660)
            listener.listen(16)
            return listener, self._path.lstat().st_ino
        except OSError as error:
            raise CannotServe(f"cannot listen at {self._path}: {error}") from error

    def serve(self) -> None:
        """Takes calls until the container is to end. A call that runs then may use the time that its pod has left."""
        while not self._processes.ending:
            waiting, _, _ = select.select([self._listener.fileno(), self._processes.signals], [], [])
            if self._processes.signals in waiting:
                self._processes.heed()
            if self._listener.fileno() in waiting:
                with contextlib.suppress(OSError), self._listener.accept()[0] as client:  # which may go away
                    client.settimeout(PATIENCE)
                    if _is_outside(client):
                        self._answer(client)
                if self._is_spoilt():
                    self._listener.close()
                    self._listener, self._inode = self._listen()

    def _is_spoilt(self) -> bool:
        """Whether code has touched the socket, or left something in its directory, which is memory too."""
        return os.listdir(self._path.parent) != [self._path.name] or self._path.lstat().st_ino != self._inode

    def _answer(self, client: socket.socket) -> None:
        line = bytearray()
        while not line.endswith(b"\n"):
            received = client.recv(65536)
            if not received or len(line) > REQUEST_BYTES:
                return
            line += received
        try:
            request = json.loads(line)
            program = {"python": sys.executable, "shell": shutil.which("bash") or "sh"}[request["language"]]
            code, timeout = request["code"].encode(), float(request["timeout"])
            output = Output(self._workspace / request["keep"])
        except (ValueError, LookupError, TypeError, AttributeError):
            _send(client, event="ended", error="the request is not as it must be")
            return
        _send(client, event="started")
        try:
            end = self._run(client, program, code, timeout, output)
        except ConnectionAbortedError:
            return
        except (OSError, subprocess.SubprocessError, MemoryError) as error:
            end = {"error": getattr(error, "strerror", None) or str(error) or type(error).__name__}
        finally:
            self._processes.end_all()
            self._clean()
        _send(client, event="ended", **end)

    def _clean(self) -> None:
        """Removes files that are memory of the container, which the next call shall have."""
        empty(self._temporary)
        empty(Path("/dev/shm"))  # noqa: S108 - to leave nothing there

    def _run(self, client: socket.socket, program: str, code: bytes, timeout: float, output: Output) -> dict[str, Any]:
        script = self._temporary / "code" / "main"
        script.parent.mkdir(exist_ok=True)
        script.write_bytes(code)
        space, began = Space(self._workspace), time.monotonic()
        process, reader = self._start([program, str(script)])
        with reader:
            self._processes.watch(process.pid)
            stopped = self._wait(client, reader.fileno(), output, space, began + timeout)
            seconds = round(time.monotonic() - began, 3)
            self._processes.end_all()
            while _take(reader.fileno(), output):  # what was written last
                pass
        status = self._processes.status or 0
        exited = os.WIFEXITED(status)
        return {
            "output": output.text(),
            "status": os.WEXITSTATUS(status) if exited else None,
            "signal": None if exited else os.WTERMSIG(status),
            "stopped": stopped,
            "seconds": seconds,
        }

    def _start(self, command: list[str]) -> tuple[subprocess.Popen[bytes], Any]:
        """Starts the program, and gives the end of the pipe that it writes to. Raises `OSError`."""
        reading, writing = os.pipe()
        reader = os.fdopen(reading, "rb", buffering=0)
        os.set_blocking(reading, False)
        try:
            process = subprocess.Popen(  # noqa: S603 - to run what it is given is what it is for
                command,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=self._workspace,
                start_new_session=True,
                preexec_fn=_begin,  # which is safe in a process with one thread
            )
        except BaseException:
            reader.close()
            raise
        finally:
            os.close(writing)
        process.returncode = 0  # `Processes` waits for it, not `subprocess`
        return process, reader

    def _wait(self, client: socket.socket, reader: int, output: Output, space: Space, deadline: float) -> str | None:
        """Waits for the end of the call, and says why it must be ended if it must.

        Raises `ConnectionAbortedError` if nobody waits for the answer.
        """
        poll = select.poll()
        poll.register(self._processes.signals, select.POLLIN)
        poll.register(reader, select.POLLIN)
        poll.register(client, select.POLLIN | select.POLLRDHUP)
        look_at = 0.0
        while self._processes.status is None:
            now = time.monotonic()
            if now >= deadline:
                return "timeout"
            if now >= look_at:
                if space.is_short():
                    return "disk"
                look_at = now + TICK
            ready = dict(poll.poll(1000 * (min(deadline, look_at) - now)))
            if self._processes.signals in ready:
                self._processes.heed()
            if reader in ready and not _take(reader, output):
                poll.unregister(reader)
            if client.fileno() in ready:
                raise ConnectionAbortedError
        return None


def _is_outside(client: socket.socket) -> bool:
    """Whether a client is in another container: code of this one would queue itself, and outlive its call.

    A process of another PID namespace has no pid here.
    """
    pid, _, _ = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(pid == 0)


def _begin() -> None:
    """Runs in the new process before its program."""
    look(allowed=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.nice(10)  # within the container only: many that are busy do not keep the executor from ending them
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel takes the code before it takes the executor


def _take(reader: int, output: Output) -> bool:
    """Reads what there is. Whether more may come."""
    try:
        data = os.read(reader, 65536)
    except BlockingIOError:
        return False
    output.add(data)
    return bool(data)


def _send(client: socket.socket, **fields: Any) -> None:
    client.sendall(json.dumps(fields).encode() + b"\n")


def serve(environment: MutableMapping[str, str]) -> None:
    """Runs until the container is ended. Raises `CannotServe`."""
    if not sys.flags.isolated:
        raise CannotServe("start it as `python3 -I`: otherwise code of the workspace could run before its walls stand")
    network = environment.get("TENURE_NETWORK") == "Allowed"
    try:
        path, workspace = Path(environment["TENURE_EXEC_SOCKET"]), Path(environment["HOME"])
        processes, memory = int(environment["TENURE_MAX_PROCESSES"]), int(environment["TENURE_MEMORY_BYTES"])
        volume = os.statvfs(workspace)
    except (LookupError, ValueError, OSError) as error:
        raise CannotServe(f"its environment is not as it must be: {error}") from error
    walls = confine(network)
    limit(processes, memory, volume.f_blocks * volume.f_frsize)
    os.umask(0o002)  # the group is what sidecar, agent and code have in common
    for name in [name for name in environment if name.startswith("TENURE_")]:
        del environment[name]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workspace), environment.get("PYTHONPATH")]))
    environment["PYTHONUNBUFFERED"] = "1"  # so that stdout and stderr come in their order
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # no litter in the workspace
    environment.setdefault("OMP_NUM_THREADS", "1")  # by default one for each CPU of the node, whose stacks are too much
    executor = Executor(path, workspace, Path(environment.get("TMPDIR", "/tmp")))  # noqa: S108 - of the container
    print(f"executor: serves behind {' and '.join(walls)}", file=sys.stderr, flush=True)  # noqa: T201 - its log
    executor.serve()


def main() -> None:
    """The program."""
    try:
        serve(os.environ)
    except CannotServe as problem:
        sys.exit(f"executor: {problem}")
