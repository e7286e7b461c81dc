"""Bringing the local cluster up, or finding it up, and adding nodes to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .. import audit
from ..paths import CHECKOUT, RUN, STATE
from ..shell import ClusterError, run, say, wait_for
from . import binaries, cgroups, control_plane, network, node_images, pki, preflight, process, teardown
from . import node as node_config
from .api import Api
from .layout import COREDNS_IMAGE, PAUSE_IMAGE, Node, Record, State

MANIFESTS = Path(__file__).parent / "manifests"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE_COMPONENTS = ("containerd", "kubelet", "kube-proxy", "agent")
KUBECONFIGS = ("controller-manager", "scheduler", "proxy", "agent")


def up(count: int) -> Record:
    """The cluster, with at least `count` nodes. What already runs is left alone."""
    record = _mine_or_none()
    if record is not None and len(record.nodes) >= count and _all_alive(record) and Api(_state_of(record).pki).ready():
        _apply_manifests(record)
        return record
    return _bring_up(record, count)


def _mine_or_none() -> Record | None:
    """The record of this checkout's running cluster. Another checkout's is an error, a dead one is cleared away."""
    record = Record.load()
    if record is None:
        return None
    if not any(process.alive(name) for name in process.known()):
        say(f"clearing away what a cluster of {record.checkout} left that is no longer running")
        teardown.down()
        return None
    record.require_own()
    return record


def _all_alive(record: Record) -> bool:
    wanted = [*CONTROL_PLANE, *(name for node in record.serving() for name in daemons(node))]
    return all(process.alive(name) for name in wanted)


def daemons(node: Node) -> list[str]:
    """The names of a node's processes."""
    return [node.process(component) for component in NODE_COMPONENTS]


def _state_of(record: Record) -> State:
    return State(Path(record.state))


def _bring_up(record: Record | None, count: int) -> Record:
    if record is None:
        missing = preflight.missing_packages()
        preflight.require_free_ports()
        preflight.announce(missing)
        preflight.install(missing)
        built = binaries.ensure()
        teardown.clear_state(STATE)
        RUN.mkdir(parents=True, exist_ok=True)
        RUN.chmod(0o711)  # pods with user namespaces must be able to pass through
        record = Record(str(CHECKOUT), str(STATE), str(built / "bin"))
        record.sysctls, record.nft_tables = network.read_sysctls(), network.nft_tables()
        record.save()
    state = _state_of(record)
    images = Path(record.bin_dir).parent / "images"
    network.set_sysctls()
    network.ensure_bridge()
    _write_keys(state)
    say("starting what is not running")
    _start(record, "etcd", control_plane.etcd(state))
    _start(record, "kube-apiserver", control_plane.api_server(state))
    record.nodes = sorted({*record.nodes, *range(1, count + 1)})
    record.save()
    nodes = record.serving()
    for node in nodes:
        _start_runtime(record, node)
    for node in nodes:
        node_images.wait_for_runtime(record, node)
        node_images.ensure_archives(
            record, node, {PAUSE_IMAGE: images / "pause.tar", COREDNS_IMAGE: images / "coredns.tar"}
        )
        if node.own_network:
            node_images.copy(record, nodes[0], node)
    api = Api(state.pki)
    _wait_for(state, "the API server", api.ready, ["etcd", "kube-apiserver"])
    say("API server ready")
    _start(record, "kube-controller-manager", control_plane.controller_manager(state))
    _start(record, "kube-scheduler", control_plane.scheduler(state))
    _apply_manifests(record)  # before the nodes, whose agents would be refused and wait
    for node in nodes:
        _start_node(record, node)
    network.connect(nodes)
    for node in nodes:
        needed = [node.process("containerd"), node.process("kubelet")]
        _wait_for(state, node.name, partial(api.node_ready, node.name), needed)
        say(f"{node.name} ready")
    _wait_for(state, "CoreDNS", partial(api.deployment_available, "kube-system", "coredns"), CONTROL_PLANE)
    return record


def _wait_for(state: State, what: str, condition: Callable[[], bool], needed: Sequence[str]) -> None:
    """Waits, but not for what cannot come any more because a daemon has ended."""

    def check() -> bool:
        for name in needed:
            if not process.alive(name):
                raise ClusterError(f"{name} ended; see {state.logs / name}.log")
        return condition()

    wait_for(what, check, 90, str(state.logs))


def _start(record: Record, name: str, argv: Sequence[str | Path]) -> None:
    log = _state_of(record).logs / f"{name}.log"
    process.start(name, argv, log, f"{record.bin_dir}:{process.SYSTEM_PATH}")


def _write_keys(state: State) -> None:
    pki.ensure(state.pki)
    pki.write_kubeconfig(state.admin_kubeconfig, state.pki, "admin")
    for name in KUBECONFIGS:
        pki.write_kubeconfig(state.kubeconfigs / name, state.pki, name)
    write_once(state.root / "audit-policy.json", audit.policy())


def write_once(path: Path, text: str) -> None:
    """Writes only what differs: kube-proxy ends when its configuration file is touched, even to the same content."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _start_runtime(record: Record, node: Node) -> None:
    for directory in (node.run, node.directory, node.volumes, node.directory / "cni"):
        directory.mkdir(parents=True, exist_ok=True)
    if node.own_network:
        network.ensure_namespace(node)
    network.ensure_masquerade(node)
    cgroups.ensure(node)
    write_once(node.directory / "cni" / "10-tenure.conflist", node_config.cni_config(node))
    if not process.alive(node.process("containerd")):
        config = node_config.containerd_config(node, Path(record.bin_dir, "runc"))
        write_once(node.directory / "containerd.toml", config)
    _start(record, node.process("containerd"), node_config.containerd(node))


def _start_node(record: Record, node: Node) -> None:
    state = _state_of(record)
    pki.issue_kubelet(state.pki, node.name, node.address)
    pki.write_kubeconfig(node.kubeconfig, state.pki, node.name)
    if not process.alive(node.process("kubelet")):
        write_once(node.directory / "kubelet.json", node_config.kubelet_config(node))
    if not process.alive(node.process("kube-proxy")):
        write_once(node.directory / "kube-proxy.json", node_config.kube_proxy_config(node))
    _start(record, node.process("kubelet"), node_config.kubelet(node))
    _start(record, node.process("kube-proxy"), node_config.kube_proxy(node))
    _start(record, node.process("agent"), node_config.agent(node))


def _apply_manifests(record: Record) -> None:
    text = "\n---\n".join(path.read_text() for path in sorted(MANIFESTS.glob("*.yaml")))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if record.manifests == digest:
        return
    run([*kubectl(record), "apply", "-f", "-"], stdin=text)
    record.manifests = digest
    record.save()


def kubectl(record: Record) -> list[str | Path]:
    """The beginning of a kubectl command."""
    return [Path(record.bin_dir, "kubectl"), "--kubeconfig", _state_of(record).admin_kubeconfig]
