"""What all manifests have in common: labels, owners, the Kubernetes envelope."""

from typing import Any

from tenure_api.names import AGENT_LABEL, COMPONENT_LABEL, MANAGED_BY, MANAGER
from tenure_operator.kinds import Kind, Manifest, Meta

NAME_LABEL = "app.kubernetes.io/name"
NAME = "tenure"


def labels(component: str, agent: str) -> dict[str, str]:
    """The labels of an object of an agent."""
    return {NAME_LABEL: NAME, COMPONENT_LABEL: component, MANAGED_BY: MANAGER, AGENT_LABEL: agent}


def owner(kind: Kind, meta: Meta) -> Manifest:
    """The reference by which Kubernetes deletes an object with its owner.

    It never blocks the owner's deletion: that would need the right to update the owner's finalizers.
    """
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def manifest(kind: Kind, name: str, owned_by: tuple[Kind, Meta], labels: dict[str, str], **fields: Any) -> Manifest:
    """An object in its owner's namespace."""
    owner_kind, meta = owned_by
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": labels,
            "ownerReferences": [owner(owner_kind, meta)],
        },
        **fields,
    }
