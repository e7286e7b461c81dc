"""Reaches a Service of the cluster through `kubectl port-forward`, and does so again when the way breaks."""

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from typing import NamedTuple

from tenure_cli.errors import CliError, NotNowError
from tenure_cli.kube import Access

_READY = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
_START_SECONDS = 20.0


class Service(NamedTuple):
    """A Service and its port."""

    namespace: str
    name: str
    port: int


class Forwarding:
    """A local port that leads to a Service. It stays the same when the way is made anew."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._access = access
        self._process: subprocess.Popen[str] | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        """Where the Service is reached. Raises `CliError`."""
        if self._process is None or self._process.poll() is not None:
            self._open()
        return f"http://127.0.0.1:{self._port}"

    def renew(self) -> None:
        """Makes the way anew: the pod at its other end may be gone, which kubectl does not notice by itself."""
        self.close()
        self._open()

    def close(self) -> None:
        """Ends the way."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _open(self) -> None:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise CliError("kubectl is not in the PATH: the gateway cannot be reached. Give its URL with --gateway.")
        process = subprocess.Popen(  # noqa: S603 - kubectl with names that the API server gave
            [kubectl, *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for the turn, not for the way to the gateway.
            start_new_session=True,
        )
        self._process = process
        late = threading.Timer(_START_SECONDS, process.kill)
        late.start()
        said = []
        for line in process.stdout or ():
            if found := _READY.match(line):
                late.cancel()
                self._port = int(found[1])
                # Whatever else kubectl says must not fill the pipe, on which it would stop.
                threading.Thread(target=_drain, args=(process,), daemon=True).start()
                return
            said.append(line.strip())
        late.cancel()
        self.close()
        raise NotNowError(
            f"kubectl port-forward to service {self._service.namespace}/{self._service.name} failed: "
            f"{' '.join(said) or 'it did not answer in time'}"
        )

    def _arguments(self) -> Sequence[str]:
        where = [f"--namespace={self._service.namespace}"]
        if self._access.kubeconfig:
            where.append(f"--kubeconfig={self._access.kubeconfig}")
        if self._access.context:
            where.append(f"--context={self._access.context}")
        ports = f"{self._port or ''}:{self._service.port}"
        return [*where, "port-forward", "--address=127.0.0.1", f"service/{self._service.name}", ports]


def _drain(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for _ in process.stdout or ():
            pass
