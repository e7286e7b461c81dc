"""The Secrets that an agent refers to: what must exist, and what only the sidecar is given of them."""

from tenure_api.agent import AgentSpec
from tenure_api.fields import SecretKeyRef
from tenure_api.tools import Header, Tool
from tenure_operator.kinds import Manifest

CREDENTIALS_MOUNT = "/var/run/tenure/credentials"
GATEWAY_TOKEN_MOUNT = "/var/run/tenure/gateway"
GATEWAY_TOKEN_SECONDS = 3600
"""Life of a token for the gateway. The kubelet renews it well before."""


def credential_path(reference: SecretKeyRef) -> str:
    """Where a credential is, below the sidecar's credentials mount."""
    return f"{reference.name}/{reference.key}"


def credentials(spec: AgentSpec) -> list[tuple[str, SecretKeyRef]]:
    """The Secrets that the agent refers to, each with the path of the field that does."""
    found = [("spec.model.credentialsSecretRef", spec.model.credentials_secret_ref)]
    for index, fallback in enumerate(spec.model.fallbacks):
        found.append((f"spec.model.fallbacks[{index}].credentialsSecretRef", fallback.credentials_secret_ref))
    for index, tool in enumerate(spec.tools):
        for number, header in enumerate(_headers(tool)):
            source = "mcp" if tool.mcp else "http"
            found.append((f"spec.tools[{index}].{source}.headers[{number}].valueSecretRef", header.value_secret_ref))
    return [(field, reference) for field, reference in found if reference is not None]


def _headers(tool: Tool) -> list[Header]:
    source = tool.mcp or tool.http
    return source.headers if source else []


def calls_agents(spec: AgentSpec) -> bool:
    """Whether a tool of the agent is another agent, which is called through the gateway."""
    return any(tool.agent for tool in spec.tools)


def credential_volumes(spec: AgentSpec, audience: str) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes of the sidecar's credentials, and their mounts."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if sources := _secrets(spec):
        volumes.append({"name": "credentials", "projected": {"sources": sources}})
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_MOUNT, "readOnly": True})
    if calls_agents(spec):
        token = {"path": "token", "audience": audience, "expirationSeconds": GATEWAY_TOKEN_SECONDS}
        volumes.append({"name": "gateway-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
        mounts.append({"name": "gateway-token", "mountPath": GATEWAY_TOKEN_MOUNT, "readOnly": True})
    return volumes, mounts


def _secrets(spec: AgentSpec) -> list[Manifest]:
    """One source for each Secret. All are optional: a missing one is for the sidecar to report, not to hang the pod."""
    keys: dict[str, set[str]] = {}
    for _, reference in credentials(spec):
        keys.setdefault(reference.name, set()).add(reference.key)
    return [
        {
            "secret": {
                "name": secret,
                "optional": True,
                "items": [{"key": key, "path": f"{secret}/{key}"} for key in sorted(keys[secret])],
            }
        }
        for secret in sorted(keys)
    ]
