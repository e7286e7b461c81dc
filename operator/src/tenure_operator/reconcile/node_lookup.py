"""Asks about the nodes of a session when its pod gives a reason to.

Nodes are not watched: every kubelet writes its own every few minutes, and most operators would learn nothing of use.
"""

from datetime import datetime

from tenure_operator.api_client import Api
from tenure_operator.errors import NotFoundError
from tenure_operator.kinds import NODES, VOLUMES, Kind, Manifest
from tenure_operator.reconcile import nodes


async def trouble(api: Api, pod: Manifest | None, claim: Manifest | None, now: datetime) -> nodes.Trouble | None:
    """What is wrong with the nodes of a session's pod and volume."""
    if pod is None or nodes.suspicion(pod, now) != 0.0:
        return None
    name = claim["spec"].get("volumeName") if claim else None
    volume = await _get(api, VOLUMES, name) if name else None
    known = {node: await _get(api, NODES, node) for node in sorted(nodes.concerned(pod, volume))}
    return nodes.judge(pod, known, volume, now)


async def _get(api: Api, kind: Kind, name: str) -> Manifest | None:
    try:
        return await api.get(kind, "", name)
    except NotFoundError:
        return None
