"""What the local cluster writes down before anything of it runs."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from cluster import audit, kind
from cluster.local import (
    archive,
    binaries,
    control_plane,
    layout,
    lifecycle,
    network,
    node,
    nodes,
    pki,
    process,
    teardown,
)
from cluster.local.layout import Record, State
from cluster.local.node_images import full_name
from cluster.provider import NodeChange
from cluster.shell import ClusterError

STATE = State(Path("/checkout/build/cluster"))
FIRST, SECOND = layout.Node(1, STATE), layout.Node(2, STATE)


def test_the_first_node_lives_in_the_machines_network_and_others_in_their_own() -> None:
    assert node.kubelet(FIRST)[0] == "kubelet"
    assert node.kubelet(SECOND)[:2] == ["nsenter", "--net=/run/tenure-cluster/netns/node2"]
    assert FIRST.cgroup != SECOND.cgroup
    assert FIRST.pod_cidr != SECOND.pod_cidr


def test_pods_are_routed_so_that_network_policies_see_their_packets() -> None:
    config = json.loads(node.cni_config(SECOND))
    assert [plugin["type"] for plugin in config["plugins"]] == ["ptp", "portmap"]
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]


def test_containerd_keeps_to_the_folders_of_the_cluster() -> None:
    config = tomllib.loads(node.containerd_config(FIRST, Path("/cache/bin/runc")))
    assert config["root"] == "/checkout/build/cluster/nodes/node1/containerd"
    assert config["grpc"]["address"] == "/run/tenure-cluster/node1/containerd.sock"
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"]
    assert runtime["netns_mounts_under_state_dir"]
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["BinaryName"] == "/cache/bin/runc"


def test_the_kubelet_collects_no_images_and_admits_as_many_pods_as_have_addresses() -> None:
    config = json.loads(node.kubelet_config(FIRST))
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["maxPods"] <= 254
    assert config["authorization"] == {"mode": "Webhook"}


def test_a_node_that_a_test_has_for_itself_takes_no_other_pods() -> None:
    reserved = json.loads(node.kubelet_config(layout.Node(2, STATE, reserved=True)))
    assert [taint["effect"] for taint in reserved["registerWithTaints"]] == ["NoSchedule"]
    assert json.loads(node.kubelet_config(SECOND))["registerWithTaints"] == []


def test_a_node_that_was_killed_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("/checkout", str(STATE.root), "/bin", nodes=[1, 2], out=[2], reserved=[2])
    assert record.serving() == [FIRST]
    monkeypatch.setattr(process, "alive", lambda name: name not in lifecycle.daemons(record.node(2)))
    assert lifecycle._all_alive(record)


@pytest.mark.parametrize("change", [NodeChange.REMOVE, NodeChange.KILL, NodeChange.PAUSE])
def test_the_node_of_the_control_plane_cannot_be_taken_out(change: NodeChange) -> None:
    with pytest.raises(ClusterError, match="control plane"):
        nodes.CHANGES[change](Record("/checkout", str(STATE.root), "/bin", nodes=[1]), 1)


def test_a_death_is_noticed_only_when_several_renewals_are_missing() -> None:
    lease = json.loads(node.kubelet_config(FIRST))["nodeLeaseDurationSeconds"]
    patience = int(control_plane.DEAD_AFTER.partition("=")[2].removesuffix("s"))
    assert patience > lease  # a kubelet renews it after a quarter of that


def test_sockets_fit_into_their_addresses() -> None:
    assert len(f"{FIRST.directory}/kubelet/pod-resources/kubelet.sock") < 108


def test_the_api_server_checks_roles_and_logs_writes() -> None:
    flags = [str(word) for word in control_plane.api_server(STATE)]
    assert "--authorization-mode=Node,RBAC" in flags
    assert f"--audit-log-path={STATE.audit_log}" in flags
    rules = json.loads(audit.policy())["rules"]
    assert rules[0]["level"] == "Metadata"
    assert "get" not in rules[0]["verbs"]
    assert rules[-1] == {"level": "None"}


def test_the_manifests_are_whole_and_make_one_default_class() -> None:
    objects = [
        item for path in sorted(lifecycle.MANIFESTS.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())
    ]
    annotation = "storageclass.kubernetes.io/is-default-class"
    defaults = [
        o for o in objects if o["kind"] == "StorageClass" and annotation in o["metadata"].get("annotations", {})
    ]
    assert [o["metadata"]["name"] for o in defaults] == ["standard"]
    service = next(o for o in objects if o["kind"] == "Service")
    assert service["spec"]["clusterIP"] == layout.DNS_ADDRESS
    deployment = next(o for o in objects if o["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == layout.COREDNS_IMAGE


def test_certificates_pass_a_strict_check_and_are_made_once(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    before = (tmp_path / "admin.crt").read_bytes()
    pki.ensure(tmp_path)
    assert (tmp_path / "admin.crt").read_bytes() == before
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "apiserver.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    verifier = PolicyBuilder().store(Store([authority])).time(now).build_server_verifier(x509.DNSName("kubernetes"))
    assert verifier.verify(server, [])[0] == server
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0


def test_a_kubeconfig_carries_all_it_needs(tmp_path: Path) -> None:
    pki.ensure(tmp_path / "pki")
    target = tmp_path / "kubeconfig"
    pki.write_kubeconfig(target, tmp_path / "pki", "admin")
    config = yaml.safe_load(target.read_text())
    assert config["current-context"] == config["contexts"][0]["name"]
    assert "client-key-data" in config["users"][0]["user"]
    assert target.stat().st_mode & 0o077 == 0


def test_an_archive_is_what_an_engine_loads(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"program")
    layer = archive.files_layer(tmp_path / "layer.tar", {"/program": tmp_path / "program"})
    archive.write(tmp_path / "image.tar", "docker.io/local/x:1", [layer], entrypoint=["/program"])
    with tarfile.open(tmp_path / "image.tar") as image:

        def content(name: str) -> bytes:
            member = image.extractfile(name)
            assert member is not None
            return member.read()

        manifest = json.loads(content("manifest.json"))[0]
        config = json.loads(content(manifest["Config"]))
        assert manifest["RepoTags"] == ["docker.io/local/x:1"]
        digest = hashlib.sha256(content(manifest["Layers"][0])).hexdigest()
        assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
        assert config["config"]["Entrypoint"] == ["/program"]


def test_programs_are_told_their_versions() -> None:
    flags = binaries.linker_flags("v1.37.2", "v2.4.2", "v3.22.0")
    assert "-X k8s.io/component-base/version.gitMinor=37" in flags
    assert "-X helm.sh/helm/v3/internal/version.version=v3.22.0" in flags


def test_the_innermost_mounts_go_first_and_others_stay() -> None:
    mounts = "x /run/a t rw 0 0\nx /run/a/b/c t rw 0 0\nx /run/a/b\\040d t rw 0 0\nx /run/ab t rw 0 0\nx / t rw 0 0"
    assert teardown.mounts_below([Path("/run/a")], mounts) == ["/run/a/b/c", "/run/a/b d"]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("tenure/runtime:dev", "docker.io/tenure/runtime:dev"),
        ("python", "docker.io/library/python:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("registry.example/a/b:1", "registry.example/a/b:1"),
    ],
)
def test_image_names_are_completed_as_a_node_has_them(name: str, full: str) -> None:
    assert full_name(name) == full


def test_the_record_of_another_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "RECORD", tmp_path / "cluster.json")
    assert Record.load() is None
    Record("/elsewhere", "/elsewhere/build/cluster", "/bin", [1]).save()
    found = Record.load()
    assert found is not None
    with pytest.raises(ClusterError, match="/elsewhere"):
        found.require_own()


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "config"
    lifecycle.write_once(target, "a")
    os.utime(target, (1, 1))
    lifecycle.write_once(target, "a")
    assert target.stat().st_mtime == 1
    lifecycle.write_once(target, "b")
    assert target.read_text() == "b"


def test_daemons_are_known_by_pid_and_start_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PIDS", tmp_path / "pids")
    assert process.start("sleeper", ["sleep", "60"], tmp_path / "log")
    assert process.alive("sleeper")
    assert not process.start("sleeper", ["sleep", "60"], tmp_path / "log")
    assert process.known() == ["sleeper"]
    pid = process.pid_of("sleeper")
    process.stop(["sleeper"])
    assert not process.alive("sleeper")
    assert process.known() == []
    (tmp_path / "pids" / "sleeper").write_text(f"{os.getpid()} 1")
    assert not process.alive("sleeper"), "a pid that another process has now"
    assert pid is not None
    os.waitpid(pid, 0)


def test_a_program_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PIDS", tmp_path / "pids")
    with pytest.raises(ClusterError, match="no program nothing-like-it"):
        process.start("x", ["nothing-like-it"], tmp_path / "log")


def test_sysctls_are_read_before_they_are_changed() -> None:
    assert network.sysctl_path("net.ipv4.ip_forward") == Path("/proc/sys/net/ipv4/ip_forward")
    assert "net.ipv4.ip_forward" in network.read_sysctls()


def test_kind_shows_its_audit_log_and_volumes_to_the_host() -> None:
    config = json.loads(kind.config(2, Path("/state")))
    first, second = config["nodes"]
    assert first["role"] == "control-plane"
    assert second["role"] == "worker"
    mounted = {mount["containerPath"]: mount["hostPath"] for mount in first["extraMounts"]}
    assert mounted["/var/log/tenure-audit"] == "/state/audit"
    assert second["extraMounts"] == [{"hostPath": "/state/volumes/node2", "containerPath": kind.PROVISIONER_ROOT}]
    patches = [json.loads(patch) for patch in first["kubeadmConfigPatches"]]
    assert patches[1]["nodeRegistration"]["taints"] == []


def test_the_command_line_explains_itself() -> None:
    tests = Path(__file__).parents[2]
    said = subprocess.run(
        [sys.executable, "-m", "cluster", "--help"], cwd=tests, capture_output=True, text=True, check=True
    ).stdout
    for verb in ("up", "down", "env", "info", "build-images", "load", "binaries"):
        assert verb in said
