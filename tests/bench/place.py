"""An installed Tenure and a namespace for a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager

import cluster
from harness import manifests
from harness.forward import Forward
from harness.tenure import SYSTEM, Installed, Place, install, kube, unique


@contextmanager
def measured_place(prefix: str) -> Iterator[Place]:
    """A namespace with Tenure installed by Helm (one gateway replica) and the scripted model beside it."""
    cluster.up()
    k8s = kube()
    install(k8s, "--set", "gateway.replicas=1")
    k8s.apply(*manifests.scripted_model("tenure/scripted-model:dev"))
    k8s.within(manifests.DOUBLES).run("rollout", "status", "deploy/scripted-model", "--timeout", "60s")
    name = unique(prefix)
    k8s.apply(manifests.namespace(name))
    try:
        with Forward(k8s.within(SYSTEM), "service/tenure-gateway", 80) as gateway:
            yield Place(Installed(k8s, gateway), k8s.within(name), name)
    finally:
        k8s.delete("namespace", name, "--wait=false")
