"""Which provider is used, and what is said when none can be."""

import socket
from pathlib import Path

import pytest

import cluster
from cluster import external, kind
from cluster.local import Local, preflight
from cluster.provider import Candidate, Provider, choose
from cluster.shell import ClusterError


def candidate(name: str, reason: str | None) -> Candidate:
    def make() -> Provider:
        provider = Local()
        provider.name = name
        return provider

    return Candidate(name, lambda: reason, make)


def test_the_first_that_can_be_used_is_used() -> None:
    assert choose([candidate("a", "no engine"), candidate("b", None), candidate("c", None)], {}).name == "b"


def test_a_refusal_gives_every_reason_and_a_way_out() -> None:
    with pytest.raises(ClusterError) as refused:
        choose([candidate("a", "no engine"), candidate("b", "no root")], {})
    assert "a: no engine" in str(refused.value)
    assert "b: no root" in str(refused.value)
    assert "Install docker and kind" in str(refused.value)


def test_a_provider_can_be_insisted_on() -> None:
    environment = {"TENURE_TEST_PROVIDER": "b"}
    assert choose([candidate("a", None), candidate("b", None)], environment).name == "b"
    with pytest.raises(ClusterError, match="b: no root"):
        choose([candidate("a", None), candidate("b", "no root")], environment)
    with pytest.raises(ClusterError, match="names no provider: x"):
        choose([candidate("a", None)], {"TENURE_TEST_PROVIDER": "x"})


def test_a_named_cluster_comes_before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    monkeypatch.setenv("TENURE_TEST_KUBECONFIG", str(kubeconfig))
    assert cluster.provider().name == "external"


def test_the_current_context_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_TEST_KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/anywhere")
    assert external.refusal() is not None


def test_images_get_into_a_named_cluster_only_by_a_named_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig, seen = tmp_path / "config", tmp_path / "seen"
    kubeconfig.touch()
    monkeypatch.setenv("TENURE_TEST_KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("TENURE_TEST_IMAGE_LOAD", raising=False)
    with pytest.raises(ClusterError, match="TENURE_TEST_IMAGE_LOAD"):
        cluster.load("a:1")
    monkeypatch.setenv("TENURE_TEST_IMAGE_LOAD", f"sh -c 'echo \"$@\" >{seen}' name")
    cluster.load("a:1", "b:2")
    assert seen.read_text() == "a:1 b:2\n"


def test_a_kubeconfig_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_TEST_KUBECONFIG", "/not/there")
    with pytest.raises(ClusterError, match="/not/there"):
        cluster.provider()


@pytest.mark.parametrize(
    ("missing", "uid", "reason"),
    [("apt-get", 0, "apt-get"), ("go", 0, "Go 1.26"), ("nothing", 1000, "root")],
)
def test_the_local_cluster_says_what_it_lacks(missing: str, uid: int, reason: str) -> None:
    refusal = preflight.refusal(lambda name: None if name == missing else f"/bin/{name}", uid)
    assert refusal is not None
    assert reason in refusal


@pytest.mark.parametrize(
    ("said", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version devel", (0, 0)), ("go version go1.9 x/y", (1, 9))],
)
def test_go_versions_are_numbers(said: str, version: tuple[int, int]) -> None:
    assert preflight.go_version(said) == version


def test_kind_versions_are_numbers() -> None:
    assert kind.kind_version("kind v0.30.0 go1.24.6 linux/amd64") == (0, 30)
    assert kind.kind_version("kind v0.9.0 go1.15") < kind.OLDEST_KIND


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port}"):
            preflight.require_free_ports([port])
    preflight.require_free_ports([])
