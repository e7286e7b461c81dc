"""The manifests that tests start from."""

from typing import Any

Manifest = dict[str, Any]

DOUBLES = "tenure-test"
"""Namespace of the stand-ins, see `tests/doubles`."""
MODEL_URL = f"http://scripted-model.{DOUBLES}.svc:8000/v1"
HTTP_API_URL = f"http://http-api.{DOUBLES}.svc:8000"
MCP_URL = f"http://mcp-server.{DOUBLES}.svc:8000/mcp"
API_SECRET = "the-secret-of-the-tools-that-nobody-may-see"
"""What the stand-ins for tools want in the header X-Api-Key, where they want something."""


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


def http_tool(name: str, path: str, method: str = "GET", **options: Any) -> Manifest:
    """A tool that is a request to the HTTP API stand-in; `options` are further fields of the tool."""
    kinds = {"tag": "string", "item": "string", "order": "string", "amount": "number", "seconds": "number"}
    properties = {field: {"type": kind} for field, kind in kinds.items()}
    request = {"method": method, "url": HTTP_API_URL + path, "parameters": {"type": "object", "properties": properties}}
    return {"name": name, "description": f"The request {method} {path}.", "http": request, **options}


def double(name: str) -> list[Manifest]:
    """A stand-in as a Deployment and a Service in `DOUBLES`, which must be there."""
    labels = {"app": name}
    container = {
        "name": "double",
        "image": f"tenure/{name}:dev",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8000}],
        "env": [{"name": "API_SECRET", "value": API_SECRET}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": DOUBLES},
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
            "metadata": {"name": name, "namespace": DOUBLES},
            "spec": {"selector": labels, "ports": [{"port": 8000}]},
        },
    ]
