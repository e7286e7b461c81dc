"""Fixtures: one cluster and one installed Tenure for the run, one namespace for each module."""

from collections.abc import Iterator

import pytest

import cluster
from harness import manifests
from harness.effects import Effects
from harness.forward import Forward
from harness.killing import Killer
from harness.kube import Kube
from harness.model import ScriptedModel
from harness.tenure import SYSTEM, Installed, Place, install, kube, unique


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def k8s() -> Kube:
    """kubectl against a real cluster."""
    cluster.up()
    return kube()


@pytest.fixture(scope="session")
def tenure(k8s: Kube) -> Iterator[Installed]:
    """Tenure, installed by Helm, and the scripted model."""
    install(k8s)
    stand_in(k8s, "scripted-model")
    with Forward(k8s.within(SYSTEM), "service/tenure-gateway", 80) as gateway:
        yield Installed(k8s, gateway)


def stand_in(k8s: Kube, name: str) -> None:
    """Sees that a stand-in of `tests/doubles` serves."""
    k8s.apply(manifests.namespace(manifests.DOUBLES), *manifests.double(name))
    k8s.within(manifests.DOUBLES).run("rollout", "status", f"deploy/{name}", "--timeout", "60s")


@pytest.fixture(scope="session")
def model(tenure: Installed) -> Iterator[ScriptedModel]:
    """What the scripted model has seen."""
    with Forward(tenure.kube.within(manifests.DOUBLES), "service/scripted-model", 8000) as forward:
        yield ScriptedModel(forward.url)


@pytest.fixture(scope="session")
def http_api(k8s: Kube) -> Iterator[Effects]:
    """A real HTTP API, and what it has seen."""
    stand_in(k8s, "http-api")
    with Forward(k8s.within(manifests.DOUBLES), "service/http-api", 8000) as forward:
        yield Effects(forward.url)


@pytest.fixture(scope="session")
def mcp_server(k8s: Kube) -> Iterator[Effects]:
    """A real MCP server, and what it has seen."""
    stand_in(k8s, "mcp-server")
    with Forward(k8s.within(manifests.DOUBLES), "service/mcp-server", 8000) as forward:
        yield Effects(forward.url)


@pytest.fixture(scope="module")
def killer(place: Place) -> Killer:
    """Who kills pods and containers of the module's namespace."""
    killer = Killer(place.kube)
    killer.prepare()
    return killer


@pytest.fixture(scope="module")
def place(tenure: Installed, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A namespace of this module's own, gone afterwards."""
    name = unique(request.module.__name__.rsplit("test_", 1)[-1].replace("_", "-")[:20])
    tenure.kube.apply(manifests.namespace(name))
    yield Place(tenure, tenure.kube.within(name), name)
    tenure.kube.delete("namespace", name, "--wait=false")
