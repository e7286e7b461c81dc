"""A port on loopback that leads to a Service or pod, kept open while the other end comes and goes."""

import re
import subprocess
import threading
from types import TracebackType

from harness.kube import Kube


class Forward:
    """`kubectl port-forward`, started again whenever it ends. Use as a context manager.

    kubectl's forward follows one pod of a Service. That the pod has gone it notices by the first connection that fails.
    """

    def __init__(self, kube: Kube, target: str, port: int, local_port: int = 0) -> None:
        self._kube, self._target, self._port = kube, target, port
        self.local_port = local_port
        self._closing = threading.Event()
        self._up = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_open, daemon=True)

    def __enter__(self) -> "Forward":
        self._thread.start()
        if not self._up.wait(60):
            raise TimeoutError(f"no port-forward to {self._target} within 60 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._process:
            self._process.terminate()
        self._thread.join(10)

    def renew(self) -> None:
        """Leads to a pod that is there now."""
        self._up.clear()
        assert self._process
        self._process.terminate()
        if not self._up.wait(60):
            raise TimeoutError(f"no port-forward to {self._target} within 60 s")

    @property
    def url(self) -> str:
        """Where the other end is reached."""
        return f"http://127.0.0.1:{self.local_port}"

    def _keep_open(self) -> None:
        while not self._closing.is_set():
            self._process = subprocess.Popen(
                self._kube.command("port-forward", self._target, f"{self.local_port or ''}:{self._port}"),
                env=self._kube.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert self._process.stdout
            for line in self._process.stdout:
                if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                    self.local_port = int(found[1])
                    self._up.set()
            self._process.wait()
            self._closing.wait(0.3)
