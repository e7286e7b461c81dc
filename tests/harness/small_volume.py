"""A volume that is really as small as it says, on any cluster: memory that a pod holds, used as a volume of its node.

Provisioners that make directories do not hold to the size that is asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.killing import NAMESPACE
from harness.kube import Manifest
from harness.tenure import Place

GROUP = 65500
_ROOT = """
import os
root = "/var/lib/kubelet"
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{entry}/cmdline") as file:
            program, *arguments = file.read().split("\\0")
    except (FileNotFoundError, ProcessLookupError):
        continue
    if os.path.basename(program) == "kubelet":
        words = "=".join(arguments).split("=")
        root = words[words.index("--root-dir") + 1] if "--root-dir" in words else root
print(root)
"""


@contextmanager
def small_volume(place: Place, name: str, size: str) -> Iterator[str]:
    """The class of storage of one volume of this size, such as `48Mi`. There must be a killer on the pod's node."""
    place.kube.apply(_holder(name, size))
    place.kube.run("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    pod = place.kube.get("pod", name)
    node = pod["spec"]["nodeName"]
    root = place.kube.within(NAMESPACE).execute(node, "killer", "python3", "-c", _ROOT).strip()
    path = f"{root}/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~empty-dir/volume"
    class_name = f"{place.name}-{name}"
    place.kube.apply(_volume(class_name, node, path, size))
    try:
        yield class_name
    finally:
        place.kube.delete("persistentvolume", class_name, "--wait=false")


def _holder(name: str, size: str) -> Manifest:
    container = {
        "name": "holder",
        "image": "tenure/runtime:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": GROUP,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "volume", "emptyDir": {"medium": "Memory", "sizeLimit": size}}],
        },
    }


def _volume(name: str, node: str, path: str, size: str) -> Manifest:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
            "hostPath": {"path": path, "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
