"""An installed Tenure and a namespace for a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager

import cluster
from harness import manifests
from harness.forward import Forward
from harness.kube import Kube
from harness.tenure import SYSTEM, Installed, Place, install, kube, unique


@contextmanager
def measured_place(prefix: str) -> Iterator[Place]:
    """A namespace with Tenure installed by Helm and the scripted model beside it."""
    cluster.up()
    k8s = kube()
    install(k8s)
    k8s.apply(manifests.namespace(manifests.DOUBLES), *manifests.double("scripted-model"))
    k8s.within(manifests.DOUBLES).run("rollout", "status", "deploy/scripted-model", "--timeout", "60s")
    name = unique(prefix)
    k8s.apply(manifests.namespace(name))
    try:
        with Forward(k8s.within(SYSTEM), "service/tenure-gateway", 80) as gateway:
            yield Place(Installed(k8s, gateway), k8s.within(name), name)
    finally:
        k8s.delete("namespace", name)


def memory(kube: Kube, pod: str, container: str, field: str = "VmRSS") -> float:
    """Resident memory of a container's process, in MiB; `VmHWM` is the most that it ever was."""
    text = kube.execute(pod, container, "python3", "-c", "print(open('/proc/1/status').read())")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")) / 1024
