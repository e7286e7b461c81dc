"""The Kubernetes kinds that the operator reads or writes, and the keys of the objects that it reconciles."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from tenure_api.names import GROUP, VERSION

Manifest = dict[str, Any]
"""An object as the API server speaks of it. What is in the cache is never changed in place."""


@dataclass(frozen=True)
class Kind:
    """A kind and where the API server serves it."""

    group: str
    version: str
    plural: str
    name: str

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of the collection (in all namespaces if none is given) or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "")


AGENTS = Kind(GROUP, VERSION, "agents", "Agent")
SESSIONS = Kind(GROUP, VERSION, "agentsessions", "AgentSession")
POLICIES = Kind(GROUP, VERSION, "memorypolicies", "MemoryPolicy")
PODS = Kind("", "v1", "pods", "Pod")
CLAIMS = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
NETWORKS = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
SECRETS = Kind("", "v1", "secrets", "Secret")
SERVICES = Kind("", "v1", "services", "Service")
ENDPOINTS = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
NODES = Kind("", "v1", "nodes", "Node")
VOLUMES = Kind("", "v1", "persistentvolumes", "PersistentVolume")
EVENTS = Kind("events.k8s.io", "v1", "events", "Event")

POOLS = Kind("", "", "", "WarmPool")
"""No object of the API server: what is kept ahead for the agent of the same name, in keys of work."""

HOSTS = Kind("", "", "", "Hosts")
"""The same for the pods that the sessions of an agent share."""

OWNERS = (AGENTS, SESSIONS, POLICIES)
"""The kinds that users write."""
CHILDREN = (PODS, CLAIMS, ACCOUNTS, CONFIG_MAPS, NETWORKS)
"""The kinds that are made of them and watched by label."""
WATCHED = (*OWNERS, *CHILDREN)
BY_NAME = {kind.name: kind for kind in WATCHED}


class Key(NamedTuple):
    """An object to reconcile."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.namespace}/{self.name}"


class Meta(NamedTuple):
    """What identifies an object, and which state of it was seen."""

    namespace: str
    name: str
    uid: str
    generation: int = 0
    resource_version: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> "Meta":
        """The identity of an object that the API server returned."""
        meta = manifest["metadata"]
        return cls(
            meta["namespace"], meta["name"], meta["uid"], meta.get("generation", 0), meta.get("resourceVersion", "")
        )
