"""How the gateway is found and reached, and as whom."""

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from tenure_cli.console import Console
from tenure_cli.errors import CliError, NotAllowedError, NotFoundError, NotNowError
from tenure_cli.forwarding import Forwarding, Service
from tenure_cli.kube import SERVICES, Access, Object
from tenure_cli.options import parser
from tenure_cli.reach import Reach, Renewed
from unit.cli.desk import Desk, StandInCluster, Stream

KUBECTL = """#!{python}
import os, sys, time
with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
local, _, _ = sys.argv[-1].partition(":")
{body}
"""
FORWARDS = """print(f"Forwarding from 127.0.0.1:{local or 40123} -> 8080", flush=True)
print("x" * 100_000, flush=True)
time.sleep(60)
"""


def service(name: str = "tenure-gateway", namespace: str = "tenure-system") -> Object:
    labels = {"app.kubernetes.io/name": "tenure", "app.kubernetes.io/component": "gateway"}
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"metadata": metadata, "spec": {"ports": [{"name": "other", "port": 9}, {"name": "http", "port": 80}]}}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def put_kubectl(monkeypatch: pytest.MonkeyPatch, log: Path, body: str) -> None:
    """Puts a program in the place of kubectl that notes how it is called."""
    program = log.parent / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable, log=str(log), body=body))
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def reach(cluster: StandInCluster, *arguments: str) -> Reach:
    desk = Desk(cluster)
    options = parser().parse_args(["history", "chat-1", *arguments])
    return desk.reach(options, Console(Stream(), Stream(), Stream()))


@pytest.fixture
def cluster() -> StandInCluster:
    found = StandInCluster(own="own")
    found.put(SERVICES, service())
    metrics = service("tenure-gateway-metrics")
    metrics["spec"]["ports"] = [{"name": "metrics", "port": 9090}]
    found.put(SERVICES, metrics)
    return found


class TestTheGateway:
    def test_it_is_found_by_its_labels_and_reached_through_kubectl(
        self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch, log: Path
    ) -> None:
        put_kubectl(monkeypatch, log, FORWARDS)
        with reach(cluster, "--context", "here", "--kubeconfig", "config") as world:
            assert world.gateway is world.gateway
        assert log.read_text().split() == [
            "--namespace=tenure-system",
            "--kubeconfig=config",
            "--context=here",
            "port-forward",
            "--address=127.0.0.1",
            "service/tenure-gateway",
            ":80",
        ]

    def test_who_may_not_look_everywhere_looks_where_it_usually_is(
        self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch, log: Path
    ) -> None:
        put_kubectl(monkeypatch, log, FORWARDS)
        cluster.cluster_wide[SERVICES] = NotAllowedError("no")
        with reach(cluster) as world:
            assert world.gateway
        assert "--namespace=tenure-system" in log.read_text()

    def test_it_can_be_named(self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        put_kubectl(monkeypatch, log, FORWARDS)
        cluster.put(SERVICES, service("mine", "lab"))
        monkeypatch.setenv("TENURE_GATEWAY", "lab/mine")
        with reach(cluster) as world:
            assert world.gateway
        assert "--namespace=lab" in log.read_text()

    def test_several_must_be_chosen_from(self, cluster: StandInCluster) -> None:
        cluster.put(SERVICES, service("second"))
        with reach(cluster) as world, pytest.raises(CliError, match=r"tenure-system/second. Choose one with --gateway"):
            assert world.gateway

    def test_none_is_said_to_be_none(self) -> None:
        with reach(StandInCluster(own="own")) as world, pytest.raises(NotFoundError, match="Is it installed"):
            assert world.gateway

    def test_kubectl_says_why_it_failed(
        self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch, log: Path
    ) -> None:
        put_kubectl(monkeypatch, log, 'sys.exit("error: no pods")')
        with reach(cluster) as world, pytest.raises(NotNowError, match="error: no pods"):
            assert world.gateway

    def test_without_kubectl_an_url_is_asked_for(
        self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")
        with reach(cluster) as world, pytest.raises(CliError, match="--gateway"):
            assert world.gateway


def test_the_way_is_made_anew_at_the_same_port_and_ends_with_us(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    put_kubectl(monkeypatch, log, FORWARDS)
    way = Forwarding(Service("tenure-system", "gateway", 80), Access())
    assert way.url == "http://127.0.0.1:40123"
    way.renew()
    assert way.url == "http://127.0.0.1:40123"
    way.close()
    way.close()
    assert [line.split()[-1] for line in log.read_text().splitlines()] == [":80", "40123:80"]
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


class TestTheCredential:
    def test_a_client_certificate_is_explained(self) -> None:
        outcome = Desk(StandInCluster(own=None), ("--gateway", "http://127.0.0.1:9")).run("history", "chat-1")
        assert outcome.code == 4
        for said in ("client certificate", "TokenReview", "--as-serviceaccount", "tenure-session-user"):
            assert said in outcome.err

    def test_an_account_is_of_the_namespace_unless_it_says_another(self, cluster: StandInCluster) -> None:
        for name, expected in (("alice", ("shop", "alice", "tenure")), ("lab/bob", ("lab", "bob", "tenure"))):
            with reach(cluster, "--as-serviceaccount", name, "--gateway", "http://127.0.0.1:9") as world:
                with pytest.raises(NotNowError):
                    world.gateway.cancel("resp_1")
                assert cluster.tokens[-1] == expected
                assert world.subject == f"system:serviceaccount:{expected[0]}:{expected[1]}"

    def test_a_token_that_is_given_goes_before_the_kubeconfigs(
        self, cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TENURE_TOKEN", "given")
        with reach(cluster) as world:
            assert world.subject is None
        monkeypatch.delenv("TENURE_TOKEN")
        with reach(cluster) as world:
            assert world.subject == "kate"

    def test_a_token_is_renewed_long_before_its_life_is_over(self) -> None:
        now = [0.0]
        tokens = iter(["first", "second"])
        renewed = Renewed(lambda: next(tokens), lambda: now[0])
        assert (renewed(), renewed()) == ("first", "first")
        now[0] = 300
        assert renewed() == "second"
