"""The NetworkPolicy of a session's pod."""

import ipaddress
from collections.abc import Iterable

from tenure_api import names
from tenure_api.names import COMPONENT_LABEL, SET_LABEL
from tenure_api.wire import METRICS_PORT, SIDECAR_PORT
from tenure_operator.desired.parts import NAME, NAME_LABEL, manifest
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import NETWORKS, Manifest

GATEWAY_PORT = 8080
"""On which the gateway's pods listen: a policy sees a connection after the Service's address has been replaced."""
METADATA_NETWORKS = ("169.254.0.0/16", "fd00:ec2::254/128")
"""Where cloud providers serve a node's credentials: link-local, and the address that AWS uses for IPv6."""
ANYWHERE = ("0.0.0.0/0", "::/0")


def _blocks(excepted: Iterable[str]) -> list[Manifest]:
    networks = sorted({ipaddress.ip_network(network) for network in excepted}, key=lambda n: (n.version, n))
    blocks = []
    for cidr in ANYWHERE:
        version = ipaddress.ip_network(cidr).version
        inside = [str(network) for network in networks if network.version == version]
        blocks.append({"ipBlock": {"cidr": cidr} | ({"except": inside} if inside else {})})
    return blocks


def network(of: SetOf, release_namespace: str, excepted: Iterable[str]) -> Manifest:
    """Who may reach the session's pod and what it may reach.

    `excepted` are the networks that it must not reach, besides the metadata addresses: those of the API server, and
    what the settings add. Name servers are anywhere, since clusters have them in many places. The gateway, through
    which agents call one another, is allowed wherever it is: the settings may except the network of all pods.
    """
    release = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": release_namespace}}}
    control_plane = release | {
        "podSelector": {
            "matchLabels": {NAME_LABEL: NAME},
            "matchExpressions": [{"key": COMPONENT_LABEL, "operator": "In", "values": ["gateway", "operator"]}],
        },
    }
    gateway = release | {"podSelector": {"matchLabels": {NAME_LABEL: NAME, COMPONENT_LABEL: "gateway"}}}
    return manifest(
        NETWORKS,
        names.session_network(of.name),
        of.owner,
        of.labels(),
        spec={
            "podSelector": {"matchLabels": {SET_LABEL: of.name}},
            "policyTypes": ["Egress", "Ingress"],
            "ingress": [
                {"from": [control_plane], "ports": [{"port": SIDECAR_PORT, "protocol": "TCP"}]},
                {"from": [{"namespaceSelector": {}}], "ports": [{"port": METRICS_PORT, "protocol": "TCP"}]},
            ],
            "egress": [
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                {"to": [gateway], "ports": [{"port": GATEWAY_PORT, "protocol": "TCP"}]},
                {"to": _blocks([*METADATA_NETWORKS, *excepted])},
            ],
        },
    )
