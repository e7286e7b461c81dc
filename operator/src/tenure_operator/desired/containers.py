"""What the containers of a session pod have in common: whom they run as, and what they get."""

from dataclasses import dataclass

from tenure_api.fields import Amounts, Resources
from tenure_api.wire import SIDECAR_PORT
from tenure_operator.kinds import Manifest

GROUP_ID = 65500
"""The pod's group, which all its files belong to."""

AFTER_THE_TURN: Manifest = {"preStop": {"httpGet": {"path": "/drained", "port": SIDECAR_PORT}}}
"""Lifecycle of what takes part in a turn: a drain of the node or an eviction lets the turn end first, as far as the
pod's grace period reaches. A turn that takes longer goes on in the next pod."""


@dataclass(frozen=True)
class PodSettings:
    """What the operator's own settings say about every session pod."""

    image: str
    pull_policy: str
    sidecar: Resources
    audience: str
    """What tokens are issued for that the gateway takes."""


def security(user: int) -> Manifest:
    """The restricted Pod Security Standard."""
    return {
        "runAsUser": user,
        "runAsGroup": GROUP_ID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def amounts(resources: Resources) -> Manifest:
    """Resources as a container says them."""
    return resources.model_dump(exclude_none=True)


def with_defaults(given: Resources | None, defaults: Resources) -> Resources:
    """What a container gets.

    For each of CPU and memory the defaults hold only if nothing is said of it: a default limit could be below a given
    request, and a default request above a given limit.
    """
    requests, limits = (given.requests if given else None), (given.limits if given else None)

    def amount(of: Amounts | None, default: Amounts | None, what: str) -> str | None:
        said = any(getattr(each, what) for each in (requests, limits) if each)
        source = of if said else default
        return getattr(source, what) if source else None

    return Resources(
        requests=Amounts(**{what: amount(requests, defaults.requests, what) for what in ("cpu", "memory")}),
        limits=Amounts(**{what: amount(limits, defaults.limits, what) for what in ("cpu", "memory")}),
    )
