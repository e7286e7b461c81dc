"""What the machine's kernel is told: sysctls, the bridge of the nodes, their network namespaces, nft.

Everything here has its undoing in `teardown.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..shell import run, succeeds
from .layout import BRIDGE, HOST_ADDRESS, MASQUERADE_TABLE, NODE_CIDR, POD_CIDR, Node

WANTED_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "fs.inotify.max_user_instances": "1024",
    "fs.inotify.max_user_watches": "524288",
}
KUBELET_SYSCTLS = (  # the kubelet sets these by itself; they are put back all the same
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


def sysctl_path(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def read_sysctls() -> dict[str, str]:
    """The present values of all that a cluster changes; what this kernel does not have is left out."""
    paths = {name: sysctl_path(name) for name in (*WANTED_SYSCTLS, *KUBELET_SYSCTLS)}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


def set_sysctls() -> None:
    for name, value in WANTED_SYSCTLS.items():
        path = sysctl_path(name)
        if path.exists():
            present = path.read_text().strip()
            enough = name.startswith("fs.inotify") and int(present) >= int(value)
            if present != value and not enough:
                path.write_text(value)


def nft_tables() -> list[str]:
    listed = run(["nft", "list", "tables"])
    return [line.removeprefix("table ").strip() for line in listed.splitlines()]


def remove_host_ports(tables_before: Sequence[str]) -> None:
    """Takes the chains of CNI's `portmap` out of the nat tables: it leaves them, and tables that it made itself."""
    present = nft_tables()
    for table in ("ip nat", "ip6 nat"):
        if table in present:
            _remove_host_ports(table, keep_table=table in tables_before)


def _remove_host_ports(table: str, *, keep_table: bool) -> None:
    listed = json.loads(run(["nft", "-j", "list", "table", *table.split()]))["nftables"]
    chains = [entry["chain"]["name"] for entry in listed if "chain" in entry]
    rules = [entry["rule"] for entry in listed if "rule" in entry]
    ours = [name for name in chains if name.startswith("CNI-")]
    jumps = [r for r in rules if r["chain"] not in ours and '"target": "CNI-' in json.dumps(r["expr"])]
    lines = [f"delete rule {table} {rule['chain']} handle {rule['handle']}" for rule in jumps]
    lines += [f"flush chain {table} {name}" for name in ours]
    lines += [f"delete chain {table} {name}" for name in ours]
    if not keep_table and all(r in jumps or r["chain"] in ours for r in rules):
        lines = [f"delete table {table}"]
    if lines:
        run(["nft", "-f", "-"], stdin="\n".join(lines) + "\n")


def ensure_bridge() -> None:
    if not succeeds(["ip", "link", "show", "dev", BRIDGE]):  # /sys may show the links of another network namespace
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])


def ensure_masquerade(node: Node) -> None:
    """Pods reach the outside as the machine, and each other as themselves."""
    if succeeds([*node.enter, "nft", "list", "table", *MASQUERADE_TABLE.split()]):
        return
    own = f"{{ {POD_CIDR}, {NODE_CIDR} }}"
    run(
        [*node.enter, "nft", "-f", "-"],
        stdin=f"table {MASQUERADE_TABLE} {{ chain post {{ type nat hook postrouting priority srcnat; "
        f"ip saddr {own} ip daddr != {own} masquerade; }}; }}",
    )


def ensure_namespace(node: Node) -> None:
    """The network of a further node, on the same bridge as the first."""
    if not node.netns.exists():
        node.netns.parent.mkdir(parents=True, exist_ok=True)
        node.netns.touch()
        run(["unshare", f"--net={node.netns}", "true"])
        run(["ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.netns])
        run(["ip", "link", "set", node.link, "master", BRIDGE, "up"])
        for command in (
            ["addr", "add", f"{node.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", HOST_ADDRESS],
        ):
            run([*node.enter, "ip", *command])
        run([*node.enter, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def connect(nodes: list[Node]) -> None:
    """Static routes: each node knows where the pods of every other are."""
    for node in nodes:
        for other in nodes:
            if other != node:
                run([*node.enter, "ip", "route", "replace", other.pod_cidr, "via", other.address])
