"""What the operator and the gateway may do: the one table that the chart renders and a test compares.

Least privilege, and for each rule the reason why it exists. A server-side apply that creates an object needs `create`
and `patch`. Nothing here can read a Secret, save the operator its own signing keys.
"""

from dataclasses import dataclass
from typing import Any

from tenure_api.names import GROUP

LEASE = "tenure-operator"
"""Name of the Lease, in the release namespace, that the running operator holds."""
SIGNING_KEYS = "tenure-signing-keys"
"""Name of the Secret, in the release namespace, with the operator's and the gateway's private keys."""


@dataclass(frozen=True)
class Rule:
    """One `rbac.authorization.k8s.io/v1` PolicyRule."""

    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """The rule as it stands in a Role."""
        rule: dict[str, Any] = {
            "apiGroups": list(self.groups),
            "resources": list(self.resources),
            "verbs": list(self.verbs),
        }
        if self.names:
            rule["resourceNames"] = list(self.names)
        return rule


@dataclass(frozen=True)
class Grants:
    """The rules of one ServiceAccount, by where they hold."""

    cluster: tuple[Rule, ...]
    """ClusterRole, bound cluster-wide."""
    release_namespace: tuple[Rule, ...] = ()
    """Role in the namespace of the release."""
    default_namespace: tuple[Rule, ...] = ()
    """Role in the namespace `default`, where the API server's own Service is."""


OPERATOR = Grants(
    cluster=(
        # What users ask for. Specs are never written; a session is deleted when it expires.
        Rule((GROUP,), ("agents", "memorypolicies"), ("get", "list", "watch")),
        Rule((GROUP,), ("agentsessions",), ("get", "list", "watch", "delete")),
        Rule((GROUP,), ("agents/status", "agentsessions/status", "memorypolicies/status"), ("patch",)),
        # What is made of it. It goes by Kubernetes' own garbage collection, save for pods, and for the claims of warm
        # pools that are of no use any more: those have their agent as owner. That no claim of a session is deleted, an
        # admission policy of the chart sees to.
        Rule(("",), ("pods",), ("get", "list", "watch", "create", "patch", "delete")),
        Rule(("",), ("persistentvolumeclaims",), ("get", "list", "watch", "create", "patch", "delete")),
        Rule(("",), ("serviceaccounts", "configmaps"), ("get", "list", "watch", "create", "patch")),
        Rule(("networking.k8s.io",), ("networkpolicies",), ("get", "list", "watch", "create", "patch")),
        # Data keys are made, and their existence asked by a dry-run create; never read, changed or deleted.
        Rule(("",), ("secrets",), ("create",)),
        # Whether a pod that does not end, or finds no place, has lost its node or its volume's. Both have no namespace,
        # and no user's data; they are asked for one by one, and never listed.
        Rule(("",), ("nodes", "persistentvolumes"), ("get",)),
        Rule(("events.k8s.io",), ("events",), ("create",)),
    ),
    release_namespace=(
        Rule(("coordination.k8s.io",), ("leases",), ("create",)),
        Rule(("coordination.k8s.io",), ("leases",), ("get", "update"), (LEASE,)),
        Rule(("",), ("secrets",), ("get",), (SIGNING_KEYS,)),
    ),
    default_namespace=(
        # The API server's addresses, which session pods must not reach.
        Rule(("",), ("services",), ("get",), ("kubernetes",)),
        Rule(("discovery.k8s.io",), ("endpointslices",), ("list",)),
    ),
)

GATEWAY = Grants(
    cluster=(
        Rule((GROUP,), ("agents",), ("get", "list", "watch")),
        Rule((GROUP,), ("agentsessions",), ("get", "list", "watch", "create", "delete")),
        # The annotation that wakes a session which sleeps. RBAC has no finer word for it; that nothing else is changed,
        # an admission policy of the chart sees to.
        Rule((GROUP,), ("agentsessions",), ("patch",)),
        # Who is calling, and what may they do.
        Rule(("authentication.k8s.io",), ("tokenreviews",), ("create",)),
        Rule(("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
    ),
)
