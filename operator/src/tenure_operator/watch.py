"""kopf as the informer: it lists and watches, and tells of each event. No logic here.

Only `on.event` handlers: kopf's indexes block all handlers for a time that is quadratic in the number of objects, its
daemons and timers put a finalizer on each object, and its state-changing handlers store a copy of each spec in an
annotation. Only async ones: a synchronous handler would take a thread for each object.
"""

from collections.abc import Callable
from typing import Any, cast

import kopf

from tenure_api.names import GROUP
from tenure_operator.kinds import CHILDREN, WATCHED, Kind, Manifest
from tenure_operator.resync import SELECTOR

Told = Callable[[Kind, str | None, Manifest], None]
"""Kind, type of the event (None for an object of a list) and the object."""


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is compared, so nothing is remembered; kopf would copy each object twice for each event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def registry(told: Told) -> kopf.OperatorRegistry:
    """The handlers: one for each kind, and the login."""
    found = kopf.OperatorRegistry()
    for kind in WATCHED:
        kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=found)(_handler(kind, told))
    kopf.on.login(id="login", registry=found)(_login)
    return found


def _handler(kind: Kind, told: Told) -> Callable[..., Any]:
    async def seen(event: Any, **_: Any) -> None:
        told(kind, event["type"], event["object"])

    return seen


def _login(**given: Any) -> Any:
    return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)


def settings() -> kopf.OperatorSettings:
    """Kopf's settings, as far as they differ from its defaults."""
    found = kopf.OperatorSettings()
    found.peering.standalone = True
    found.posting.enabled = False
    found.scanning.disabled = True  # needs no right to list namespaces and definitions
    found.persistence.finalizer = f"{GROUP}/unused"  # kopf removes a finalizer of this name; ours are none
    found.persistence.diffbase_storage = _NoDiffBase()
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    found.networking.request_timeout = 30.0
    found.networking.connect_timeout = 10.0
    found.watching.connect_timeout = 10.0
    found.watching.server_timeout = 240  # kopf #698: streams that end without a word are replaced
    found.watching.client_timeout = 270.0
    found.watching.chunk_size = 500
    found.queueing.idle_timeout = (
        0.5  # one task for each object for so long; the default of 5 s costs memory at the start
    )
    for kind in CHILDREN:
        found.watching.label_selectors[kind.group, kind.version, kind.plural] = SELECTOR
    return found


async def watch(told: Told) -> None:
    """Tells of events until it is cancelled, or until SIGTERM or SIGINT, which kopf takes over."""
    await kopf.operator(
        registry=registry(told),
        settings=settings(),
        standalone=True,
        clusterwide=True,
        identity=cast(
            Any, "tenure"
        ),  # unused without peering; by default kopf asks for a user name, and a pod has none
    )
