"""Fixtures: one cluster and one installed Tenure for the run, one namespace for each module."""

from collections.abc import Iterator

import pytest

import cluster
from harness import manifests
from harness.forward import Forward
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
    k8s.apply(*manifests.scripted_model("tenure/scripted-model:dev"))
    k8s.within(manifests.DOUBLES).run("rollout", "status", "deploy/scripted-model", "--timeout", "60s")
    with Forward(k8s.within(SYSTEM), "service/tenure-gateway", 80) as gateway:
        yield Installed(k8s, gateway)


@pytest.fixture(scope="session")
def model(tenure: Installed) -> Iterator[ScriptedModel]:
    """What the scripted model has seen."""
    with Forward(tenure.kube.within(manifests.DOUBLES), "service/scripted-model", 8000) as forward:
        yield ScriptedModel(forward.url)


@pytest.fixture(scope="module")
def place(tenure: Installed, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A namespace of this module's own, gone afterwards."""
    name = unique(request.module.__name__.rsplit("test_", 1)[-1].replace("_", "-")[:20])
    tenure.kube.apply(manifests.namespace(name))
    yield Place(tenure, tenure.kube.within(name), name)
    tenure.kube.delete("namespace", name, "--wait=false")
