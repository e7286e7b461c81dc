"""The Kubernetes client against a small API server over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from starlette.types import Receive, Scope, Send

from tenure_gateway import api_client
from tenure_gateway.api_client import SESSIONS, Cluster
from tenure_gateway.directory import Table, session_view
from tenure_gateway.faults import ClusterRefused, ClusterUnavailable, Outdated, SessionGone
from tenure_gateway.ids import Key
from unit.gateway.doubles import listening
from unit.gateway.world import until

Object = dict[str, Any]
KEY = Key("ns", "a")


def session(name: str, version: int) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return {
        "metadata": {**metadata, "creationTimestamp": "2026-11-24T00:00:00Z"},
        "spec": {"agentRef": {"name": "a"}, "subject": "alice"},
    }


class StandInServer:
    """A stand-in for the API server that says what it is told to, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.bodies: list[Object] = []
        self.types: list[str] = []
        """Content types of bodies."""
        self.answers: list[tuple[int, Any]] = []
        """Status and body of the next answers; of a watch, the list of its events. The last one is repeated."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.asked.append((scope["method"], scope["path"], scope["query_string"].decode()))
        self.types += [value.decode() for name, value in scope["headers"] if body and name == b"content-type"]
        self.bodies.append(json.loads(body) if body else {})
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await send({"type": "http.response.start", "status": status, "headers": []})
        if isinstance(answer, list):
            for event in answer:
                await send(
                    {"type": "http.response.body", "body": json.dumps(event).encode() + b"\n", "more_body": True}
                )
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.asked]


@pytest.fixture
def server() -> StandInServer:
    return StandInServer()


@pytest.fixture
async def cluster(server: StandInServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(api_client, "_MIN_BACKOFF", 0.001)
    monkeypatch.setattr(api_client, "_MAX_BACKOFF", 0.002)
    async with listening(server) as port:
        cluster = Cluster(ApiClient(Configuration(host=f"http://127.0.0.1:{port}", api_key={"BearerToken": "t"})))
        yield cluster
        await cluster.close()


def page(version: int, *objects: Object, more: str = "") -> tuple[int, Object]:
    return 200, {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(objects)}


def event(kind: str, obj: Object) -> Object:
    return {"type": kind, "object": obj}


async def following(cluster: Cluster, wanted: set[str]) -> Table[Any]:
    """The table, once it holds these sessions."""
    table = Table(session_view)
    task = asyncio.create_task(cluster.follow(SESSIONS, table))
    try:
        await until(lambda: table.filled and {row.key.name for row in table} == wanted)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return table


async def test_it_lists_page_by_page_and_watches_from_there(server: StandInServer, cluster: Cluster) -> None:
    server.answers = [
        page(9, session("a", 1), more="next"),
        page(9, session("b", 2)),
        (200, [event("ADDED", session("c", 10)), event("DELETED", session("a", 11))]),
        (200, [event("BOOKMARK", {"metadata": {"resourceVersion": "20"}})]),
        (200, []),
    ]
    await following(cluster, {"b", "c"})
    await asyncio.sleep(0)
    queries = [query for _, _, query in server.asked]
    assert "continue=next" in queries[1]
    assert "resourceVersion=9&" in queries[2]
    assert server.asked[0][1] == "/apis/tenure.dev/v1alpha1/agentsessions"


async def test_a_watch_goes_on_from_the_last_bookmark(server: StandInServer, cluster: Cluster) -> None:
    server.answers = [
        page(9),
        (200, [event("BOOKMARK", {"metadata": {"resourceVersion": "20"}})]),
        (200, [event("ADDED", session("a", 21))]),
        (200, []),
    ]
    await following(cluster, {"a"})
    assert "resourceVersion=20&" in server.asked[2][2]


@pytest.mark.parametrize(
    "trouble",
    [
        (410, {"message": "too old"}),
        (200, [event("ERROR", {"code": 410})]),
        (200, [event("ERROR", {"code": 500, "message": "etcd"})]),
        (500, {"message": "etcd"}),
    ],
)
async def test_when_a_watch_cannot_go_on_it_lists_again(
    server: StandInServer, cluster: Cluster, trouble: tuple[int, Any]
) -> None:
    server.answers = [page(9, session("a", 1)), trouble, page(30, session("b", 29)), (200, [])]
    await following(cluster, {"b"})


async def test_a_list_that_fails_is_tried_again(server: StandInServer, cluster: Cluster) -> None:
    server.answers = [(500, {}), (410, {}), (200, "nonsense"), page(9, session("a", 1)), (200, [])]
    await following(cluster, {"a"})


async def test_a_session_is_read_created_and_deleted(server: StandInServer, cluster: Cluster) -> None:
    server.answers = [(404, {}), (201, session("a", 1)), (200, {}), (404, {}), (409, {})]
    assert await cluster.get_session(KEY) is None
    manifest = {"metadata": {"namespace": "ns", "name": "a"}}
    assert (await cluster.create_session(manifest))["metadata"]["uid"] == "u-a"
    await cluster.delete_session(KEY, "u-a")
    await cluster.delete_session(KEY, None)
    await cluster.delete_session(KEY, "u-old")
    assert server.paths()[1:3] == [
        "POST /apis/tenure.dev/v1alpha1/namespaces/ns/agentsessions",
        "DELETE /apis/tenure.dev/v1alpha1/namespaces/ns/agentsessions/a",
    ]
    assert server.bodies[1] == manifest
    assert server.bodies[2]["preconditions"] == {"uid": "u-a"}


async def test_a_wake_is_a_merge_patch_of_the_very_version_that_was_seen(
    server: StandInServer, cluster: Cluster
) -> None:
    server.answers = [(200, session("a", 8))]
    assert (await cluster.wake_session(KEY, 7, 3))["metadata"]["resourceVersion"] == "8"
    assert server.paths() == ["PATCH /apis/tenure.dev/v1alpha1/namespaces/ns/agentsessions/a"]
    assert server.types == ["application/merge-patch+json"]
    assert server.bodies == [{"metadata": {"resourceVersion": "7", "annotations": {"tenure.dev/wake": "3"}}}]


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, ClusterRefused),
        (403, ClusterRefused),
        (422, ClusterRefused),
        (404, SessionGone),
        (409, Outdated),
        (429, ClusterUnavailable),
        (500, ClusterUnavailable),
    ],
)
async def test_a_wake_that_is_not_taken_says_why(
    server: StandInServer, cluster: Cluster, status: int, fault: type[Exception]
) -> None:
    server.answers = [(status, {"message": "because"})]
    with pytest.raises(fault) as raised:
        await cluster.wake_session(KEY, 7, 3)
    assert type(raised.value) is fault


async def test_a_refusal_is_told_and_a_failure_is_not_a_refusal(server: StandInServer, cluster: Cluster) -> None:
    manifest = {"metadata": {"namespace": "ns", "name": "a"}}
    server.answers = [(403, {"message": "exceeded quota"})]
    with pytest.raises(ClusterRefused, match="exceeded quota"):
        await cluster.create_session(manifest)
    server.answers = [(500, {})]
    with pytest.raises(ClusterUnavailable):
        await cluster.create_session(manifest)


async def test_reviews_ask_what_the_contract_says(server: StandInServer, cluster: Cluster) -> None:
    server.answers = [(201, {"status": {"authenticated": True}}), (201, {"status": {"allowed": True}}), (201, {})]
    assert await cluster.review_token("t", "tenure") == {"authenticated": True}
    attributes = {"verb": "use", "resource": "agents", "namespace": "ns", "name": "a"}
    assert await cluster.review_access({"user": "alice", "groups": ["g"]}, attributes)
    assert not await cluster.review_access({"user": "alice"}, attributes)
    assert server.bodies[0]["spec"] == {"token": "t", "audiences": ["tenure"]}
    assert server.bodies[1]["spec"] == {
        "user": "alice",
        "groups": ["g"],
        "resourceAttributes": {"group": "tenure.dev", **attributes},
    }


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_review_that_fails_allows_nothing(server: StandInServer, cluster: Cluster, status: int) -> None:
    server.answers = [(status, {"status": {"allowed": True, "authenticated": True}})]
    with pytest.raises(ClusterUnavailable):
        await cluster.review_token("t", "tenure")
    with pytest.raises(ClusterUnavailable):
        await cluster.review_access({"user": "alice"}, {})


async def test_an_api_server_that_is_not_there_is_unavailable() -> None:
    cluster = Cluster(ApiClient(Configuration(host="http://127.0.0.1:9")))
    with pytest.raises(ClusterUnavailable):
        await cluster.get_session(KEY)
    await cluster.close()
