"""Sessions as files: the gateway's routes that export and import bundles, as a caller with a token uses them."""

import httpx

from harness.kube import Manifest
from harness.tenure import Place

CARRIER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "carrier"},
    "rules": [
        {
            "apiGroups": ["tenure.dev"],
            "resources": ["agentsessions"],
            "verbs": ["get", "create", "export", "import", "decrypt", "wake"],
        }
    ],
}


def may_carry(account: str, namespace: str) -> list[Manifest]:
    """The role, and its binding to a ServiceAccount; `namespace` is the account's."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"carrier-{account}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "carrier"},
        "subjects": [subject],
    }
    return [CARRIER, binding]


class Carrier:
    """A caller who exports and imports."""

    def __init__(self, place: Place, token: str) -> None:
        self._place = place
        self._client = httpx.Client(
            base_url=place.tenure.gateway.url,
            headers={"authorization": f"Bearer {token}"},
            timeout=180,
            trust_env=False,
        )

    def export(self, session: str, **headers: str) -> httpx.Response:
        """The answer to an export of `namespace/name`."""
        return self._client.get(f"/v1/tenure/sessions/{session}/bundle", headers=headers)

    def import_(self, session: str, agent: str, bundle: bytes, **headers: str) -> httpx.Response:
        """The answer to an import as `namespace/name`."""
        return self._client.post(
            f"/v1/tenure/sessions/{session}/bundle",
            params={"agent": agent},
            content=bundle,
            headers={"content-type": "application/gzip", **headers},
        )
