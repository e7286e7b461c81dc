"""The API server, with plain dicts: the only module that knows the Kubernetes client.

Every call is bounded in time and raises only errors of `errors`. Nothing is retried here: the work queue does that.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from tenure_api.names import MANAGER
from tenure_operator.errors import (
    ConflictError,
    ExistsError,
    NoRoomError,
    NotFoundError,
    OperatorError,
    RefusedError,
    UnavailableError,
)
from tenure_operator.kinds import SECRETS, Kind, Manifest

TIMEOUT_SECONDS = 10.0
PAGE = 500
"""Objects asked for at once in a list: bounds memory and the time for which the event loop is busy with one answer."""
CONNECTIONS = 64

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
_REFUSED = (400, 403, 405, 413, 415, 422)


class Api(Protocol):
    """What the operator asks of the API server."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """One object. Raises `NotFoundError`."""

    def pages(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        """All objects of a kind, in pages, each with the resource version of the whole list."""

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Creates an object. Raises `ExistsError` if the name is taken."""

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Server-side apply, taking over fields that others have set."""

    async def merge(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Merges what is said into this very object: what is None goes, and lists are replaced.

        Unlike an apply it can take an owner away that a create has set. Raises `NotFoundError`.
        """

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Server-side apply to the status. Raises `NotFoundError`."""

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Replaces an object at its resource version. Raises `ConflictError` if it has changed."""

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        uid: str,
        resource_version: str | None = None,
        grace: int | None = None,
    ) -> Manifest:
        """Deletes this very object; with a `grace` of 0, without waiting for a pod's end.

        Raises `NotFoundError`, or `ConflictError` if the name is now another's.
        """

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether a Secret exists, asked without the right to read it: by a create that is not carried out."""


class ApiClient:
    """`Api` by the official client, of which only connection and authentication are used."""

    def __init__(self, inner: client.ApiClient, wrote: Callable[[Kind, str], None] = lambda *_: None) -> None:
        self._inner = inner
        self._wrote = wrote

    @classmethod
    async def connect(cls, wrote: Callable[[Kind, str], None] = lambda *_: None) -> "ApiClient":
        """A client by the pod's own ServiceAccount, or by `KUBECONFIG` outside a cluster.

        `wrote` is told of each write that the API server has carried out.
        """
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.connection_pool_maxsize = CONNECTIONS
        return cls(client.ApiClient(configuration), wrote)

    async def close(self) -> None:
        """Closes all connections."""
        await self._inner.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """See `Api`."""
        return await self._call("GET", kind.path(namespace, name))

    async def pages(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        """See `Api`."""
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._call("GET", kind.path(namespace), query)
            yield page["items"], int(page["metadata"]["resourceVersion"])
            if not (more := page["metadata"].get("continue")):
                return
            query["continue"] = more

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """See `Api`."""
        path, query = kind.path(manifest["metadata"]["namespace"]), {"fieldManager": MANAGER}
        return await self._write(kind, "create", "POST", path, query, manifest)

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        """See `Api`."""
        path = kind.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._write(kind, "apply", "PATCH", path, {"fieldManager": MANAGER, "force": "true"}, manifest)

    async def merge(self, kind: Kind, manifest: Manifest) -> Manifest:
        """See `Api`."""
        path = kind.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._write(kind, "merge", "PATCH", path, {"fieldManager": MANAGER}, manifest)

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        """See `Api`."""
        path = kind.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"]) + "/status"
        return await self._write(kind, "status", "PATCH", path, {"fieldManager": MANAGER, "force": "true"}, manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """See `Api`."""
        path = kind.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._write(kind, "replace", "PUT", path, {"fieldManager": MANAGER}, manifest)

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        uid: str,
        resource_version: str | None = None,
        grace: int | None = None,
    ) -> Manifest:
        """See `Api`."""
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        return await self._write(kind, "delete", "DELETE", kind.path(namespace, name), {}, options)

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """See `Api`."""
        empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": name}}
        try:
            await self._call("POST", SECRETS.path(namespace), {"dryRun": "All", "fieldManager": MANAGER}, empty)
        except ExistsError:
            return True
        return False

    async def _write(
        self, kind: Kind, verb: str, method: str, path: str, query: dict[str, str], body: Manifest
    ) -> Manifest:
        answer = await self._call(method, path, query, body)
        self._wrote(kind, verb)
        return answer

    async def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        headers = {"Accept": _JSON, "Content-Type": _content_type(method, query or {})}
        what = f"{method} {path}"
        try:
            await self._inner.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            url = f"{self._inner.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            response = await self._inner.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{what}: the API server does not answer ({type(error).__name__})") from None
        answer = _decoded(what, response.status, text)
        if response.status >= 300:
            raise _error(what, response.status, answer)
        return answer


def _content_type(method: str, query: dict[str, str]) -> str:
    if method != "PATCH":
        return _JSON
    return _APPLY if "force" in query else _MERGE


def _decoded(what: str, status: int, text: bytes) -> Manifest:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if status < 300:
        raise UnavailableError(f"{what}: the answer is not a JSON object")
    return {}


def _error(what: str, status: int, answer: dict[str, Any]) -> OperatorError:
    message = f"{what}: {answer.get('message') or f'HTTP status {status}'}"
    causes = (answer.get("details") or {}).get("causes") or []
    if status == 404 or any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NotFoundError(message)
    if status == 409:
        return ExistsError(message) if answer.get("reason") == "AlreadyExists" else ConflictError(message)
    if status == 403 and "exceeded quota" in message:
        return NoRoomError(answer.get("message") or message)
    if status in _REFUSED:
        return RefusedError(answer.get("message") or message)
    return UnavailableError(message)
