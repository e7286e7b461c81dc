"""What the options say about whom to talk to: which cluster, which gateway, with which credential."""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tenure_api.names import COMPONENT_LABEL
from tenure_cli.console import Console
from tenure_cli.errors import CliError, NotAllowedError, NotFoundError
from tenure_cli.forwarding import Forwarding, Service
from tenure_cli.kube import SERVICES, Access, Cluster, Object, connect
from tenure_cli.names import Key, parse

if TYPE_CHECKING:
    from tenure_cli.gateway import Gateway

_GATEWAYS = f"app.kubernetes.io/name=tenure,{COMPONENT_LABEL}=gateway"
_USUAL_NAMESPACE = "tenure-system"
"""Where the gateway is looked for by those who may not look everywhere."""
_RENEW_SECONDS = 300
"""Half of the shortest life that Kubernetes gives a token."""

_NO_TOKEN = (
    "The gateway knows its callers by tokens, and your kubeconfig's user has none: it is a client certificate, or "
    "another credential that Kubernetes' TokenReview does not take. Act as a ServiceAccount with --as-serviceaccount "
    "NAME (kubectl create serviceaccount NAME; kubectl create rolebinding NAME --clusterrole tenure-session-user "
    "--serviceaccount NAMESPACE:NAME), or give a token for the gateway's audience with --token or TENURE_TOKEN."
)


@dataclass
class Renewed:
    """A token that is asked for anew long before its life is over, however short the API server has made that."""

    ask: Callable[[], str]
    clock: Callable[[], float] = time.monotonic
    _token: str = ""
    _until: float = float("-inf")

    def __call__(self) -> str:
        """The token."""
        if self.clock() >= self._until:
            self._token = self.ask()
            self._until = self.clock() + _RENEW_SECONDS
        return self._token


@dataclass
class Reach(AbstractContextManager["Reach"]):
    """All that a command needs of the world. What it does not use is not looked for."""

    options: argparse.Namespace
    console: Console
    connect: Callable[[Access], Cluster] = connect
    _stack: ExitStack = field(default_factory=ExitStack)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def access(self) -> Access:
        """Which cluster."""
        return Access(self.options.kubeconfig, self.options.context)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster. Raises `CliError`."""
        return self.connect(self.access)

    @property
    def namespace(self) -> str:
        """The namespace of names that say none."""
        return self.options.namespace or self.cluster.namespace

    def key(self, text: str) -> Key:
        """The object that is meant by `name` or `namespace/name`."""
        return parse(text, lambda: self.namespace)

    @cached_property
    def gateway(self) -> "Gateway":
        """The gateway, with a credential. Raises `CliError`."""
        # Loaded only by those who need it: the client takes longer than most commands.
        from tenure_cli.gateway import Gateway

        credential = self._credential()
        where = self.options.gateway or os.environ.get("TENURE_GATEWAY") or ""
        if "://" in where:
            gateway = Gateway(where.rstrip("/"), credential)
        else:
            way = Forwarding(self._service(where), self.access)
            self._stack.callback(way.close)
            gateway = Gateway(way.url, credential, way.renew)
        self._stack.callback(gateway.close)
        return gateway

    @property
    def subject(self) -> str | None:
        """The user name by which the gateway knows this caller; None if only the gateway could tell."""
        if account := self._account:
            return f"system:serviceaccount:{account.namespace}:{account.name}"
        return None if self._given_token else self.cluster.user()

    @property
    def _account(self) -> Key | None:
        text: str | None = self.options.as_serviceaccount
        return self.key(text) if text else None

    @property
    def _given_token(self) -> str | None:
        return self.options.token or os.environ.get("TENURE_TOKEN")

    def _credential(self) -> Callable[[], str]:
        """What gives a token that is valid now. Raises `CliError`."""
        if account := self._account:
            return Renewed(lambda: self.cluster.account_token(account.namespace, account.name, self.options.audience))
        if given := self._given_token:
            return lambda: given
        if self.cluster.own_token() is None:
            raise NotAllowedError(_NO_TOKEN)
        return lambda: self.cluster.own_token() or ""

    def _service(self, where: str) -> Service:
        if where:
            key = parse(where, lambda: _USUAL_NAMESPACE)
            return _service(self.cluster.get(SERVICES, key.namespace, key.name))
        try:
            found = self.cluster.find(SERVICES, None, labels=_GATEWAYS)
        except NotAllowedError:
            found = self.cluster.find(SERVICES, _USUAL_NAMESPACE, labels=_GATEWAYS)
        # Its metrics have a Service of their own, with the same labels.
        found = [service for service in found if _port(service) is not None]
        if not found:
            raise NotFoundError(
                "No gateway of Tenure is found in the cluster. Is it installed? If it is somewhere else, give its URL "
                "with --gateway or TENURE_GATEWAY."
            )
        if len(found) > 1:
            names = ", ".join(f"{s['metadata']['namespace']}/{s['metadata']['name']}" for s in found)
            raise CliError(f"There are several gateways: {names}. Choose one with --gateway.")
        return _service(found[0])


def _service(obj: Object) -> Service:
    metadata = obj["metadata"]
    return Service(metadata["namespace"], metadata["name"], _port(obj) or obj["spec"]["ports"][0]["port"])


def _port(obj: Object) -> int | None:
    """The port of a Service that is for clients."""
    return next((port["port"] for port in obj["spec"]["ports"] if port.get("name") == "http"), None)
