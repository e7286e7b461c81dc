"""The only module that knows the Kubernetes client. Plain dicts in and out.

What it needs of RBAC: get, list, watch on agents and agentsessions; create, delete, patch on agentsessions; create
on tokenreviews and subjectaccessreviews.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

from tenure_api.names import GROUP, VERSION, WAKE_ANNOTATION
from tenure_gateway.faults import ClusterRefused, ClusterUnavailable, NameTaken, Outdated, SessionGone
from tenure_gateway.ids import Key

log = logging.getLogger(__name__)

Object = dict[str, Any]

AGENTS = "agents"
SESSIONS = "agentsessions"

_CALL_SECONDS = 5.0
"""A review or a write that takes longer is answered with 503: a caller waits for it."""
_PAGE = 500
"""Objects in one page of a list, as in client-go."""
_WATCH_SECONDS = 240
"""How long the server keeps one watch; a reconnection costs nothing."""
_SILENCE_SECONDS = 90.0
"""Bookmarks come about every minute: a watch that is silent for longer is dead."""
_GONE = 410
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_MIN_BACKOFF = 0.25
_MAX_BACKOFF = 10.0


class Sink(Protocol):
    """Where a watch puts what it sees."""

    def replace(self, objects: list[Object], version: int) -> None:
        """These are all objects there are, as of this resource version."""

    def put(self, obj: Object) -> None:
        """This object was made or changed."""

    def forget(self, obj: Object) -> None:
        """This object is gone."""


class _ExpiredError(Exception):
    """The resource version is too old to watch from."""


async def connect() -> "Cluster":
    """The cluster that this process runs in, or that `KUBECONFIG` names."""
    configuration = Configuration()
    if "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = 200
    return Cluster(ApiClient(configuration))


class Cluster:
    """The calls that the gateway makes."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get_session(self, key: Key) -> Object | None:
        """One AgentSession as it is now; None if there is none. Raises `ClusterUnavailable`."""
        status, body = await self._call("GET", _path(SESSIONS, key))
        return None if status == 404 else _ok(status, body)

    async def create_session(self, manifest: Object) -> Object:
        """Creates an AgentSession.

        Raises `NameTaken`, another `ClusterRefused` if the API server refuses it, or `ClusterUnavailable`.
        """
        key = Key(manifest["metadata"]["namespace"], "")
        status, body = await self._call("POST", _path(SESSIONS, key).rstrip("/"), manifest)
        if status == 409 and body.get("reason") == "AlreadyExists":
            raise NameTaken("There is a session of this name already.")
        if status in (400, 403, 404, 409, 422):
            raise ClusterRefused(f"The session cannot be created: {body.get('message', 'refused')}.")
        return _ok(status, body)

    async def delete_session(self, key: Key, uid: str | None) -> None:
        """Deletes an AgentSession, whose absence is success. `uid` guards against a new one of the same name."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        status, body = await self._call("DELETE", _path(SESSIONS, key), options)
        if status not in (404, 409):
            _ok(status, body)

    async def wake_session(self, key: Key, version: int, generation: int) -> Object:
        """Annotates this version of an AgentSession, so that the operator wakes it, and returns it.

        Raises `Outdated` if it is not of this version any more, `SessionGone`, another `ClusterRefused` if the API
        server does not let it be woken, or `ClusterUnavailable`.
        """
        annotations = {WAKE_ANNOTATION: str(generation)}
        patch = {"metadata": {"resourceVersion": str(version), "annotations": annotations}}
        status, body = await self._call("PATCH", _path(SESSIONS, key), patch, content_type=_MERGE_PATCH)
        if status == 404:
            raise SessionGone
        if status == 409:
            raise Outdated("The session has changed.")
        if status in (400, 403, 422):
            raise ClusterRefused(f"The session sleeps and cannot be woken: {body.get('message', 'refused')}.")
        return _ok(status, body)

    async def review_token(self, token: str, audience: str) -> Object:
        """The status of a TokenReview. Raises `ClusterUnavailable`."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        return await self._review("/apis/authentication.k8s.io/v1/tokenreviews", review)

    async def review_access(self, user: Object, attributes: Object) -> bool:
        """Whether RBAC allows this user this. Raises `ClusterUnavailable`."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {**user, "resourceAttributes": {"group": GROUP, **attributes}},
        }
        return (await self._review("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)).get("allowed") is True

    async def _review(self, path: str, review: Object) -> Object:
        status, body = await self._call("POST", path, review)
        result: Object = _ok(status, body).get("status") or {}
        return result

    async def follow(self, resource: str, sink: Sink) -> None:
        """Keeps the sink up to date for ever: lists, watches, and lists again whenever the watch cannot go on."""
        backoff = _MIN_BACKOFF
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                await self._watch(resource, await self._list(resource, sink), sink)
            except _ExpiredError:
                log.info("the watch of %s is too old; listing again", resource)
            except ClusterUnavailable as error:
                log.warning("cannot follow %s: %s", resource, error)
            # What worked for a while may be tried again at once; what fails at once is left in peace for longer.
            backoff = _MIN_BACKOFF if clock() - begun > _MAX_BACKOFF else min(_MAX_BACKOFF, 2 * backoff)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - spreads replicas, keeps no secret

    async def _list(self, resource: str, sink: Sink) -> str:
        """Lists all objects, page by page, and returns the resource version to watch from."""
        objects: list[Object] = []
        query: list[tuple[str, str]] = [("limit", str(_PAGE))]
        while True:
            status, body = await self._call("GET", _path(resource), query=query, timeout=30)
            if status == _GONE:
                raise _ExpiredError
            page = _ok(status, body)
            objects += page.get("items", ())
            token = page["metadata"].get("continue")
            if not token:
                version: str = page["metadata"]["resourceVersion"]
                sink.replace(objects, int(version))
                return version
            query = [("limit", str(_PAGE)), ("continue", token)]

    async def _watch(self, resource: str, version: str, sink: Sink) -> None:
        """Feeds the sink until the objects must be listed again; a watch that merely ends is begun again."""
        while True:
            before = version
            async with aclosing(self._events(resource, version)) as events:
                async for event in events:
                    version = _feed(sink, event["type"], event["object"])
            if version == before:
                # Nothing came at all: do not hurry a server that ends every watch at once.
                await asyncio.sleep(_MIN_BACKOFF)

    async def _events(self, resource: str, version: str) -> AsyncGenerator[Object]:
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(_WATCH_SECONDS)),
        ]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_SECONDS, sock_read=_SILENCE_SECONDS)
        response = await self._send("GET", _path(resource), None, query, timeout)
        try:
            if response.status == _GONE:
                raise _ExpiredError
            if response.status != 200:
                raise ClusterUnavailable(f"the API server answers {response.status}")
            async for line in response.content:
                if line.strip():
                    yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # Silence and resets are how a watch usually ends; the list that follows makes good what was missed.
            raise ClusterUnavailable(f"the watch broke: {type(error).__name__}") from None
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: list[tuple[str, str]] | None = None,
        timeout: float = _CALL_SECONDS,
        content_type: str = _JSON,
    ) -> tuple[int, Object]:
        try:
            response = await self._send(method, path, body, query, aiohttp.ClientTimeout(total=timeout), content_type)
            async with response:
                parsed = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterUnavailable(f"the API server does not answer: {type(error).__name__}") from None
        if not isinstance(parsed, dict):
            raise ClusterUnavailable("what answers is not the API server")
        return response.status, parsed

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        query: list[tuple[str, str]] | None,
        timeout: aiohttp.ClientTimeout,
        content_type: str = _JSON,
    ) -> aiohttp.ClientResponse:
        serialized = await self._client.param_serialize(
            method,
            path,
            query_params=query,
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._client.call_api(*serialized, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"the API server does not answer: {type(error).__name__}") from None
        response: aiohttp.ClientResponse = answer.response
        return response


def _feed(sink: Sink, kind: str, obj: Object) -> str:
    """Hands one event to the sink and returns the resource version to go on from; a bookmark has nothing else."""
    if kind == "ERROR":
        raise _ExpiredError if obj.get("code") == _GONE else ClusterUnavailable(obj.get("message", "error"))
    if kind in ("ADDED", "MODIFIED"):
        sink.put(obj)
    elif kind == "DELETED":
        sink.forget(obj)
    version: str = obj["metadata"]["resourceVersion"]
    return version


def _path(resource: str, key: Key | None = None) -> str:
    where = f"/apis/{GROUP}/{VERSION}"
    return f"{where}/{resource}" if key is None else f"{where}/namespaces/{key.namespace}/{resource}/{key.name}"


def _ok(status: int, body: Object) -> Object:
    if not 200 <= status < 300:
        raise ClusterUnavailable(f"the API server answers {status}: {body.get('message', 'no message')}")
    return body
