"""The manifests that tests start from."""

from typing import Any

Manifest = dict[str, Any]

DOUBLES = "tenure-test"
"""Namespace of the stand-ins: the scripted model."""
MODEL_URL = f"http://scripted-model.{DOUBLES}.svc:8000/v1"


def namespace(name: str) -> Manifest:
    """A namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "tenure.dev/test": "true"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def agent(name: str = "helper", **spec: Any) -> Manifest:
    """An agent that talks to the scripted model; `spec` replaces parts of its spec."""
    model = {"name": "scripted", "baseURL": MODEL_URL}
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"model": model, "session": {"storage": {"size": "64Mi"}}, **spec},
    }


def session(name: str, agent: str = "helper", subject: str = "nobody", **spec: Any) -> Manifest:
    """A session of an agent."""
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "AgentSession",
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": agent}, "subject": subject, **spec},
    }


def policy(name: str = "short", interval: int = 5, **transcript: int) -> Manifest:
    """A policy for the transcript, such as `policy(maxAgeSeconds=20)`."""
    return {
        "apiVersion": "tenure.dev/v1alpha1",
        "kind": "MemoryPolicy",
        "metadata": {"name": name},
        "spec": {"classes": [{"name": "transcript", **transcript}], "enforcement": {"intervalSeconds": interval}},
    }


def account(name: str) -> Manifest:
    """A ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def bind(role: str, account: str, namespace: str) -> Manifest:
    """Binds one of the chart's ClusterRoles to a ServiceAccount in its namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{role}-{account}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def scripted_model(image: str) -> list[Manifest]:
    """The scripted model as a Deployment and a Service in `DOUBLES`."""
    labels = {"app": "scripted-model"}
    container = {
        "name": "model",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/v1/models", "port": 8000}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return [
        namespace(DOUBLES),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "scripted-model", "namespace": DOUBLES},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "scripted-model", "namespace": DOUBLES},
            "spec": {"selector": labels, "ports": [{"port": 8000}]},
        },
    ]
