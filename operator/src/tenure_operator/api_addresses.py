"""Where the API server is, as seen from a pod: what session pods must not reach."""

import ipaddress

from tenure_operator.api_client import Api
from tenure_operator.kinds import ENDPOINTS, SERVICES

NAMESPACE, SERVICE = "default", "kubernetes"


async def api_networks(api: Api) -> tuple[str, ...]:
    """The API server's addresses as networks of one address: of its Service, and of the endpoints behind it."""
    service = await api.get(SERVICES, NAMESPACE, SERVICE)
    addresses = set(service["spec"].get("clusterIPs") or [service["spec"]["clusterIP"]])
    async for slices, _ in api.pages(ENDPOINTS, NAMESPACE, f"kubernetes.io/service-name={SERVICE}"):
        for endpoint_slice in slices:
            for endpoint in endpoint_slice.get("endpoints") or []:
                addresses.update(endpoint["addresses"])
    return tuple(sorted(str(ipaddress.ip_network(address)) for address in addresses if address != "None"))
