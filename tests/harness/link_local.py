"""A host at a link-local address, where clouds serve the credentials of their nodes: a stand-in for that service."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.killing import NAMESPACE
from harness.kube import Kube, Manifest

ADDRESS = "169.254.77.77"
"""Not the one of real clouds: the machine under test may need that."""
PORT = 8077
_NAME = "link-local"
_SERVE = """
import fcntl, signal, socket, struct, sys
address, port = sys.argv[1], int(sys.argv[2])
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def set_address(request, value):
    where = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
    fcntl.ioctl(control, request, struct.pack("16s16s8x", b"lo:test", where))


def end(*_):
    fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"lo:test", 0))  # SIOCSIFFLAGS: down, which removes an alias
    sys.exit()


signal.signal(signal.SIGTERM, end)
set_address(0x8916, address)  # SIOCSIFADDR
set_address(0x891C, "255.255.255.255")  # SIOCSIFNETMASK
server = socket.create_server((address, port))
print("serves", flush=True)
while True:
    server.accept()[0].close()
"""


@contextmanager
def link_local_host(kube: Kube, node: str) -> Iterator[tuple[str, str]]:
    """Address and port of a host that serves at a link-local address of a node."""
    system = kube.within(NAMESPACE)
    system.apply(_pod(node))
    try:
        system.run("wait", f"pod/{_NAME}", "--for=condition=Ready", "--timeout=60s")
        yield ADDRESS, str(PORT)
    finally:
        system.delete("pod", _NAME)


def _pod(node: str) -> Manifest:
    container = {
        "name": "host",
        "image": "tenure/runtime:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _SERVE, ADDRESS, str(PORT)],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}},
        "readinessProbe": {
            "exec": {"command": ["python3", "-c", f"import socket; socket.create_connection(('{ADDRESS}', {PORT}))"]}
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 10,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }
