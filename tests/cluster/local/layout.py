"""Addresses, names and folders of the local cluster, all in one place so that nothing is spelt twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..paths import CHECKOUT, RUN
from ..shell import ClusterError

BRIDGE = "tenure0"
NODE_PREFIX = "172.31.255"
POD_PREFIX = "10.244"
POD_CIDR = f"{POD_PREFIX}.0.0/16"
NODE_CIDR = f"{NODE_PREFIX}.0/24"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_FIRST = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
HOST_ADDRESS = f"{NODE_PREFIX}.1"
API_SERVER = f"https://{HOST_ADDRESS}:6443"
CONTEXT = "tenure-local"
RESERVED = {"key": "cluster.tenure.dev/reserved", "value": "true", "effect": "NoSchedule"}
"""The taint of a node that a test has for itself, so that it can die without anybody else noticing."""
PAUSE_IMAGE = "docker.io/local/pause:1"
COREDNS_IMAGE = "docker.io/local/coredns:1"
MASQUERADE_TABLE = "ip tenure-masquerade"
NETPOL_TABLE = "inet tenure-netpol"
KUBE_PROXY_TABLES = ("ip kube-proxy", "ip6 kube-proxy")
RECORD = RUN / "cluster.json"
PIDS = RUN / "pids"


@dataclass
class Record:
    """What `down` and the next `up`, from whichever checkout, must know of the running cluster."""

    checkout: str
    state: str
    bin_dir: str
    nodes: list[int] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    """Nodes that a test has killed or cut off: left as they are until they are added again or removed."""
    reserved: list[int] = field(default_factory=list)
    """Nodes with a taint, which take only pods that tolerate it."""
    sysctls: dict[str, str] = field(default_factory=dict)
    nft_tables: list[str] = field(default_factory=list)
    manifests: str = ""

    def save(self) -> None:
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        fresh = RECORD.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(RECORD)  # whole or not at all: an interrupted `up` must still be taken down

    def require_own(self) -> None:
        """Only `down` may touch the cluster of another checkout."""
        if self.checkout != str(CHECKOUT):
            raise ClusterError(
                f"a cluster of {self.checkout} is up on this machine; take it down first, "
                f"with the verb `down` of `python -m cluster`, here or there"
            )

    @classmethod
    def load(cls) -> Record | None:
        try:
            return cls(**json.loads(RECORD.read_text()))
        except FileNotFoundError:
            return None

    def node(self, number: int) -> Node:
        """One of its nodes, or one that is to become one."""
        return Node(number, State(Path(self.state)), number in self.reserved)

    def serving(self) -> list[Node]:
        """The nodes that are to run."""
        return [self.node(number) for number in self.nodes if number not in self.out]


@dataclass(frozen=True)
class State:
    """The folders of one cluster below `build/cluster`."""

    root: Path

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def kubeconfigs(self) -> Path:
        return self.root / "kubeconfigs"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"


@dataclass(frozen=True)
class Node:
    """One node: the first lives in the machine's network, the others each in a network namespace."""

    number: int
    state: State
    reserved: bool = False

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> str:
        return f"{NODE_PREFIX}.{self.number}"

    @property
    def pod_cidr(self) -> str:
        return f"{POD_PREFIX}.{self.number}.0/24"

    @property
    def directory(self) -> Path:
        return self.state.root / "nodes" / self.name

    @property
    def run(self) -> Path:
        return RUN / self.name

    @property
    def socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def volumes(self) -> Path:
        return self.state.volumes / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.state.kubeconfigs / f"kubelet-{self.name}"

    @property
    def own_network(self) -> bool:
        return self.number > 1

    @property
    def netns(self) -> Path:
        """Not below /run/netns: `ip netns add` mounts that folder over itself and hides what CNI put there before."""
        return RUN / "netns" / self.name

    @property
    def link(self) -> str:
        return f"tenure-{self.number}"

    @property
    def enter(self) -> list[str]:
        """Prefix of a command that runs in this node's network (`ip netns exec` would hide /sys/fs/cgroup)."""
        return ["nsenter", f"--net={self.netns}"] if self.own_network else []

    @property
    def cgroup(self) -> str:
        """One per node: kubelets that share /kubepods clear away each other's pods. And by its name, what is
        still in it when the node is gone is known to be ours."""
        return f"/tenure-{self.name}"

    def process(self, component: str) -> str:
        return f"{component}-{self.name}"
