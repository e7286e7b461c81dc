"""The client speaks HTTP as the API server wants it, and every answer becomes one of our own errors."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from tenure_operator.api_client import ApiClient
from tenure_operator.errors import (
    ConflictError,
    ExistsError,
    NotFoundError,
    OperatorError,
    RefusedError,
    UnavailableError,
)
from tenure_operator.kinds import AGENTS, PODS, Kind

Answer = Callable[[web.Request], web.Response]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"}}


class Served:
    """A client of a server that answers as a test wants."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: web.json_response({})
        self.requests: list[tuple[str, str, Any, str]] = []
        self.writes: list[tuple[Kind, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path_qs, body, request.headers.get("Content-Type", "")))
        return self.answer(request)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Served, ApiClient]]:
    double = Served()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", double.handle)
    server = TestServer(app)
    await server.start_server()
    configuration = client.Configuration(host=str(server.make_url("")).rstrip("/"))
    api = ApiClient(client.ApiClient(configuration), lambda kind, verb: double.writes.append((kind, verb)))
    yield double, api
    await api.close()
    await server.close()


def failing(status: int, reason: str = "", message: str = "because") -> Answer:
    return lambda _: web.json_response({"kind": "Status", "reason": reason, "message": message}, status=status)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (404, "NotFound", NotFoundError),
        (409, "AlreadyExists", ExistsError),
        (409, "Conflict", ConflictError),
        (422, "Invalid", RefusedError),
        (403, "Forbidden", RefusedError),
        (400, "BadRequest", RefusedError),
        (401, "Unauthorized", UnavailableError),
        (429, "TooManyRequests", UnavailableError),
        (500, "InternalError", UnavailableError),
        (503, "ServiceUnavailable", UnavailableError),
    ],
)
async def test_each_status_is_one_of_our_errors(
    served: tuple[Served, ApiClient], status: int, reason: str, error: type[OperatorError]
) -> None:
    double, api = served
    double.answer = failing(status, reason)
    with pytest.raises(error, match="because"):
        await api.create(PODS, POD)
    assert double.writes == []


async def test_a_namespace_that_is_going_is_as_good_as_gone(served: tuple[Served, ApiClient]) -> None:
    double, api = served
    details = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
    body = {"kind": "Status", "reason": "Forbidden", "message": "being terminated", "details": details}
    double.answer = lambda _: web.json_response(body, status=403)
    with pytest.raises(NotFoundError, match="being terminated"):
        await api.create(PODS, POD)


async def test_an_answer_that_is_no_json_is_no_crash(served: tuple[Served, ApiClient]) -> None:
    double, api = served
    for status in (200, 502):
        double.answer = lambda _, status=status: web.Response(text="<html>", status=status)  # type: ignore[misc]
        with pytest.raises(UnavailableError):
            await api.get(PODS, "shop", "p")


async def test_no_answer_is_no_crash() -> None:
    api = ApiClient(client.ApiClient(client.Configuration(host="http://127.0.0.1:9")))
    with pytest.raises(UnavailableError, match="does not answer"):
        await api.get(PODS, "shop", "p")
    await api.close()


async def test_writes_say_who_writes_and_are_counted(served: tuple[Served, ApiClient]) -> None:
    double, api = served
    agent = {**POD, "metadata": {"namespace": "shop", "name": "helper"}}
    await api.create(PODS, POD)
    await api.apply(PODS, POD)
    await api.apply_status(AGENTS, agent)
    await api.delete(PODS, "shop", "p", "uid-1", "7")
    apply = "application/apply-patch+yaml"
    assert [(method, path, type_) for method, path, _, type_ in double.requests] == [
        ("POST", "/api/v1/namespaces/shop/pods?fieldManager=tenure", "application/json"),
        ("PATCH", "/api/v1/namespaces/shop/pods/p?fieldManager=tenure&force=true", apply),
        (
            "PATCH",
            "/apis/tenure.dev/v1alpha1/namespaces/shop/agents/helper/status?fieldManager=tenure&force=true",
            apply,
        ),
        ("DELETE", "/api/v1/namespaces/shop/pods/p", "application/json"),
    ]
    assert double.requests[3][2]["preconditions"] == {"uid": "uid-1", "resourceVersion": "7"}
    assert double.writes == [(PODS, "create"), (PODS, "apply"), (AGENTS, "status"), (PODS, "delete")]


async def test_a_secret_is_asked_for_without_reading_or_making_it(served: tuple[Served, ApiClient]) -> None:
    double, api = served
    assert await api.secret_exists("shop", "vendor") is False
    double.answer = failing(409, "AlreadyExists")
    assert await api.secret_exists("shop", "vendor") is True
    assert {path for _, path, _, _ in double.requests} == {
        "/api/v1/namespaces/shop/secrets?dryRun=All&fieldManager=tenure"
    }
    assert double.writes == []


async def test_a_list_is_read_page_by_page(served: tuple[Served, ApiClient]) -> None:
    double, api = served

    def page(request: web.Request) -> web.Response:
        if "continue" in request.query:
            return web.json_response({"metadata": {"resourceVersion": "9"}, "items": [{"n": 2}]})
        return web.json_response({"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"n": 1}]})

    double.answer = page
    pages = [(items, version) async for items, version in api.pages(PODS, selector="a=b")]
    assert pages == [([{"n": 1}], 9), ([{"n": 2}], 9)]
    assert [path for _, path, _, _ in double.requests] == [
        "/api/v1/pods?limit=500&labelSelector=a%3Db",
        "/api/v1/pods?limit=500&labelSelector=a%3Db&continue=more",
    ]
