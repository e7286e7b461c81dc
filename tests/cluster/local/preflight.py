"""Whether this machine can carry a local cluster, and what will be done to it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence

from ..paths import STATE, cache
from ..shell import ClusterError, run, run_shown, say, succeeds
from .layout import BRIDGE, KUBE_PROXY_TABLES, MASQUERADE_TABLE, NETPOL_TABLE, NODE_CIDR
from .network import WANTED_SYSCTLS

PACKAGES = (
    "nftables",
    "iptables",
    "conntrack",
    "iproute2",
    "containernetworking-plugins",
    "mmdebstrap",
    "libseccomp-dev",
    "pkg-config",
    "gcc",
    "libc6-dev",
    "docker.io",
)
IF_KNOWN = ("docker-cli", "docker-buildx")  # parts of docker.io until Debian 12, packages of their own since
PORTS = (2379, 2380, 6443, 10250, 10257, 10259)
OLDEST_GO = (1, 26)
LONGEST_STATE = 60  # sockets below it may have 107 bytes


def refusal(which: Callable[[str], str | None] = shutil.which, uid: int | None = None) -> str | None:
    """Why there can be no local cluster here, or None. Asks only: nothing is changed."""
    if platform.system() != "Linux":
        return "it needs Linux"
    if (os.geteuid() if uid is None else uid) != 0:
        return "it needs root (it makes network namespaces, mounts and cgroups)"
    if which("apt-get") is None:
        return "it needs Debian's apt-get, from which it installs what it does not build"
    if which("go") is None:
        return "it needs Go 1.26 or newer, with which it builds Kubernetes"
    version = go_version(run(["go", "version"]))
    if version < OLDEST_GO:
        return f"it needs Go 1.26 or newer, not {version[0]}.{version[1]}"
    if len(str(STATE)) > LONGEST_STATE:
        return f"{STATE} is too long a path for the sockets below it; use a checkout in a shorter one"
    return None


def go_version(said: str) -> tuple[int, int]:
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def missing_packages(names: Sequence[str] = PACKAGES) -> list[str]:
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout  # it fails when one is unknown
    return [name for name in names if f"{name} installed" not in listed.splitlines()]


def require_free_ports(ports: Sequence[int] = PORTS) -> None:
    """Another etcd on our port would be taken for ours, and the API server would fill it."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise ClusterError(f"port {port} is in use by another program: {error.strerror}") from error


def announce(missing: list[str]) -> None:
    """Before the first change, all of them in one place."""
    sysctls = ", ".join(f"{name}={value}" for name, value in WANTED_SYSCTLS.items())
    tables = ", ".join([MASQUERADE_TABLE, NETPOL_TABLE, *KUBE_PROXY_TABLES])
    say("a Kubernetes cluster will run on this machine. What that changes, until `down`:")
    for line in (
        f"packages installed by apt (they stay): {' '.join(missing) or 'none, all are there'}",
        f"programs built with Go, and images, in {cache()} (they stay)",
        f"state in {STATE}, sockets and pids in /run/tenure-cluster, device plugins in /var/lib/kubelet",
        f"sysctls {sysctls}, and those a kubelet sets; all put back by `down`",
        f"bridge {BRIDGE} with {NODE_CIDR}, one veth per pod, nft tables {tables}",
        f"cgroups /tenure-node*; ports {', '.join(map(str, PORTS))}",
    ):
        say(f"  {line}")


def install(missing: list[str]) -> None:
    if not missing:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"installing {' '.join(missing)}")
    run_shown(["apt-get", "update", "-q"], env=environment)
    wanted = missing + [name for name in missing_packages(IF_KNOWN) if _known(name)]
    run_shown(["apt-get", "install", "-yq", "--no-install-recommends", *wanted], env=environment)
    left = missing_packages()
    if left:
        raise ClusterError(f"apt did not install {' '.join(left)}")


def _known(package: str) -> bool:
    return succeeds(["apt-cache", "show", "--no-all-versions", package])
