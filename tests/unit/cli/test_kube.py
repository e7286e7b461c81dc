"""The one module that knows the Kubernetes client, against a server that answers as an API server does."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure_cli.errors import AlreadyExistsError, CliError, NotAllowedError, NotFoundError, NotNowError
from tenure_cli.kube import SESSIONS, Access, ApiServer, connect
from unit.cli.servers import Answer, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def kubeconfig(path: Path, url: str, **user: Any) -> str:
    contexts = [
        {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        {"name": "bare", "context": {"cluster": "c", "user": "u"}},
    ]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": contexts,
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture
def api(server: Server, tmp_path: Path) -> ApiServer:
    return connect(Access(kubeconfig(tmp_path / "config", server.url, token="secret")))


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    return Answer.json({"kind": "Status", "reason": reason, "message": message, "details": details}, code)


def test_an_object_is_fetched_with_the_credential_of_the_kubeconfig(server: Server, api: ApiServer) -> None:
    server.answer = lambda request: Answer.json({"metadata": {"name": "chat-1"}})
    assert api.get(SESSIONS, "shop", "chat-1") == {"metadata": {"name": "chat-1"}}
    (request,) = server.requests
    assert request.path == "/apis/tenure.dev/v1alpha1/namespaces/shop/agentsessions/chat-1"
    assert request.headers["authorization"] == "Bearer secret"


def test_a_list_is_read_page_by_page(server: Server, api: ApiServer) -> None:
    pages = [({"continue": "more"}, [{"a": 1}]), ({}, [{"b": 2}])]
    answers = [Answer.json({"metadata": metadata, "items": items}) for metadata, items in pages]
    server.answer = lambda request: answers.pop(0)
    assert api.find(SESSIONS, None, labels="a=b", fields="c=d") == [{"a": 1}, {"b": 2}]
    first, second = server.requests
    assert first.path.startswith("/apis/tenure.dev/v1alpha1/agentsessions?")
    assert "labelSelector=a%3Db" in first.path
    assert "fieldSelector=c%3Dd" in first.path
    assert "continue=more" in second.path


def test_changes_are_merged(server: Server, api: ApiServer) -> None:
    server.answer = lambda request: Answer.json({})
    api.patch(SESSIONS, "shop", "chat-1", {"spec": {"operatingMode": "Running"}})
    (request,) = server.requests
    assert (request.method, request.headers["content-type"]) == ("PATCH", "application/merge-patch+json")
    assert json.loads(request.body) == {"spec": {"operatingMode": "Running"}}


def test_an_object_is_made_under_our_name(server: Server, api: ApiServer) -> None:
    server.answer = lambda request: Answer.json({}, 201)
    api.create(SESSIONS, {"metadata": {"namespace": "shop", "name": "new"}})
    assert server.requests[0].path.endswith("/namespaces/shop/agentsessions?fieldManager=kubectl-tenure")


def test_a_token_is_asked_for_the_audience(server: Server, api: ApiServer) -> None:
    server.answer = lambda request: Answer.json({"status": {"token": "made"}}, 201)
    assert api.account_token("shop", "alice", "tenure") == "made"
    assert server.requests[0].path == "/api/v1/namespaces/shop/serviceaccounts/alice/token"
    assert json.loads(server.requests[0].body)["spec"]["audiences"] == ["tenure"]


def test_who_calls_is_asked_of_the_server(server: Server, api: ApiServer) -> None:
    server.answer = lambda request: Answer.json({"status": {"userInfo": {"username": "kate"}}}, 201)
    assert api.user() == "kate"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (status(404, "NotFound", "not found", name="chat-1"), NotFoundError, "There is no session shop/chat-1."),
        (Answer(404, b"404 page not found"), NotFoundError, "is Tenure installed in it?"),
        (status(403, "Forbidden", "kate cannot get it"), NotAllowedError, "kate cannot get it"),
        (status(401, "Unauthorized", "Unauthorized"), NotAllowedError, "Unauthorized"),
        (status(422, "Invalid", "spec.subject: is immutable"), CliError, "spec.subject: is immutable"),
        (status(409, "Conflict", "changed meanwhile"), CliError, "changed meanwhile"),
        (status(409, "AlreadyExists", "exists"), AlreadyExistsError, "There is a session shop/chat-1 already."),
        (status(500, "InternalError", "etcd is gone"), NotNowError, "etcd is gone"),
        (status(429, "TooManyRequests", "slow down"), NotNowError, "slow down"),
        (Answer(200, b"<html>"), NotNowError, "session shop/chat-1"),
    ],
)
def test_what_goes_wrong_is_said_for_people(
    server: Server, api: ApiServer, answer: Answer, error: type[CliError], said: str
) -> None:
    server.answer = lambda request: answer
    with pytest.raises(CliError, match=re.escape(said)) as caught:
        api.get(SESSIONS, "shop", "chat-1")
    assert type(caught.value) is error


def test_a_server_that_is_not_there_is_worth_another_try(tmp_path: Path) -> None:
    api = connect(Access(kubeconfig(tmp_path / "config", "http://127.0.0.1:9")))
    with pytest.raises(NotNowError, match=r"127\.0\.0\.1:9 does not answer"):
        api.get(SESSIONS, "shop", "chat-1")


@pytest.mark.parametrize(("context", "namespace"), [(None, "shop"), ("here", "shop"), ("bare", "default")])
def test_the_namespace_is_that_of_the_context(tmp_path: Path, context: str | None, namespace: str) -> None:
    assert connect(Access(kubeconfig(tmp_path / "config", "http://x"), context)).namespace == namespace


def test_only_a_token_is_a_token(tmp_path: Path) -> None:
    assert connect(Access(kubeconfig(tmp_path / "a", "http://x", token="secret"))).own_token() == "secret"
    assert connect(Access(kubeconfig(tmp_path / "b", "http://x"))).own_token() is None
    password = kubeconfig(tmp_path / "c", "http://x", username="kate", password="p")
    assert connect(Access(password)).own_token() is None


def test_a_kubeconfig_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("{")
    for access in (
        Access(str(tmp_path / "absent")),
        Access(kubeconfig(tmp_path / "config", "http://x"), "no-such-context"),
        Access(str(broken)),
    ):
        with pytest.raises(CliError, match="--kubeconfig"):
            connect(access)
