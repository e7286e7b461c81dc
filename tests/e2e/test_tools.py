"""An agent uses a real MCP server, a real HTTP API, code and another agent, each behind the sidecar."""

import base64
import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from harness.effects import Effects
from harness.kube import KubectlError, condition, eventually
from harness.manifests import API_SECRET, HTTP_API_URL, MCP_URL, http_tool
from harness.model import ScriptedModel, call, program
from harness.tenure import SYSTEM, Place
from harness.turns import items
from harness.volume import volume
from tenure_api.names import CALL_ANNOTATION, PARENT_LABEL, session_pod

HEADERS = [{"name": "X-Api-Key", "valueSecretRef": {"name": "tools", "key": "api-key"}}]
FIND = """
import os, sys
needle = sys.stdin.read().strip().encode()
for root, dirs, files in os.walk("/"):
    dirs[:] = [d for d in dirs if os.path.join(root, d) not in ("/dev", "/sys", "/usr", "/lib")]
    for name in files:
        path = os.path.join(root, name)
        if path.startswith("/proc") and not path.endswith(("/environ", "/cmdline")):
            continue
        try:
            with open(path, "rb") as file:
                if needle in file.read(4_000_000):
                    print(path)
        except OSError:
            pass
"""
DOWN = "http://127.0.0.1:9"


def documented(name: str, operation: str, **options: Any) -> dict[str, Any]:
    """A tool that is an operation of the HTTP API, as its OpenAPI document describes it."""
    document = {"url": f"{HTTP_API_URL}/openapi.json", "operationId": operation}
    return {"name": name, "http": {"openAPI": document, "headers": HEADERS}, **options}


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


@pytest.fixture(scope="module")
def agent(place: Place, http_api: Effects, mcp_server: Effects) -> str:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tools"},
        "stringData": {"api-key": API_SECRET},
    }
    place.kube.apply(secret)
    place.agent("other")
    return place.agent(
        "worker",
        tools=[
            documented("private", "getPrivate"),
            documented("order", "createOrder", replay="IdempotencyKey"),
            documented("large", "getLarge", maxResultBytes=1024),
            {"name": "desk", "mcp": {"url": MCP_URL, "headers": HEADERS}},
            {"name": "code", "code": {}},
            {"name": "ask", "description": "Asks the other agent.", "agent": {"name": "other"}},
        ],
    )


@pytest.fixture(scope="module")
def conversation(place: Place, agent: str) -> str:
    return place.session("work", "worker")


def called(response: Response) -> dict[str, Any]:
    """The calls of a response by function."""
    assert response.status == "completed", response.error
    return {item.name: item for item in items(response, "mcp_call")}


def test_an_agent_uses_an_mcp_server_and_an_http_api_in_one_turn(
    place: Place, agent: str, conversation: str, client: openai.OpenAI, http_api: Effects, mcp_server: Effects
) -> None:
    tag = f"{place.name}-both"
    said = program(
        [call("order", {"item": "chair", "tag": tag}), call("desk__note", {"text": "a chair", "tag": tag})],
        [call("desk__look", {"at": "{0.0}", "tag": f"{tag}-look"})],
        final="First {0.0}, then {1.0}.",
    )
    answer = client.responses.create(model=agent, conversation=conversation, input=said)
    calls = called(answer)
    order = json.loads(calls["order"].output)
    assert order["item"] == "chair"
    assert calls["desk__note"].output == "noted a chair"
    assert calls["desk__look"].output == f"looked at {calls['order'].output}"
    assert answer.output_text == f"First {calls['order'].output}, then {calls['desk__look'].output}."
    keys = [list(double.count(tag).effects_by_key) for double in (http_api, mcp_server)]
    assert [len(one) for one in keys] == [1, 1]
    assert keys[0] != keys[1]


def test_parallel_calls_go_out_together_unless_the_request_says_one_at_a_time(
    place: Place, agent: str, conversation: str, client: openai.OpenAI, mcp_server: Effects
) -> None:
    tags = [f"{place.name}-{order}-{n}" for order in ("together", "alone") for n in range(4)]
    for parallel, used in ((True, tags[:2]), (False, tags[2:4])):
        calls = [call("desk__look", {"at": tag, "tag": tag}) for tag in used]
        for tag in used:
            mcp_server.hold(f"{tag}/before")
        asked = client.responses.create(
            model=agent,
            conversation=conversation,
            input=program(calls, final="Done."),
            parallel_tool_calls=parallel,
            background=True,
        )
        mcp_server.await_hold(f"{used[0]}/before")
        if parallel:
            mcp_server.await_hold(f"{used[1]}/before")
        assert mcp_server.waiting(f"{used[1]}/before") == int(parallel)
        for tag in used:
            mcp_server.release(f"{tag}/before")
        eventually(lambda asked=asked: client.responses.retrieve(asked.id).status == "completed")  # type: ignore[misc]


def test_the_secret_of_a_header_reaches_the_tool_and_nobody_else(
    place: Place, agent: str, conversation: str, client: openai.OpenAI
) -> None:
    calls = [call("private"), call("desk__authorized")]
    answer = client.responses.create(model=agent, conversation=conversation, input=program(calls, final="Done."))
    settled = called(answer)
    assert json.loads(settled["private"].output) == {"authorized": True}
    assert settled["desk__authorized"].output.lower() == "true"
    pod = session_pod("work")
    for container in ("agent", "workspace"):
        assert place.kube.execute(pod, container, "python3", "-c", FIND, stdin=API_SECRET) == ""
    logs = [place.kube.run("logs", pod, "--all-containers")]
    for component in ("operator", "gateway"):
        selector = f"app.kubernetes.io/component={component}"
        logs.append(place.kube.within(SYSTEM).run("logs", "-l", selector, "--tail=-1"))
    assert all(API_SECRET not in text for text in logs)
    kept = eventually(lambda: volume(place, "work"), 30)
    assert kept.records
    assert kept.turns_with(API_SECRET) == set()
    assert all(API_SECRET.encode() not in content for content in kept.files.values())
    shown = [place.kube.run("get", kind, "-o", "yaml") for kind in ("agentsessions", "agents", "events", "configmaps")]
    assert all(API_SECRET not in text for text in shown)


def test_a_tool_that_is_down_is_an_error_that_the_model_sees_and_not_a_failed_turn(
    place: Place, client: openai.OpenAI
) -> None:
    down = http_tool("down", "")
    down["http"]["url"] = f"{DOWN}/none"
    agent = place.agent("hapless", tools=[down, {"name": "away", "mcp": {"url": f"{DOWN}/mcp"}}])
    conversation = place.session("hapless", "hapless")
    answer = client.responses.create(
        model=agent, conversation=conversation, input=program([call("down")], final="It says {0.0}")
    )
    failed = called(answer)["down"]
    assert failed.error
    assert "down" in answer.output_text
    found = eventually(
        lambda: (c := condition(place.kube.get("agentsession", "hapless"), "ToolsAvailable"))["status"] == "False" and c
    )
    assert found["reason"] == "Unreachable"
    assert "away" in found["message"]


def test_a_result_that_is_too_long_is_in_a_file_whose_path_the_model_is_given(
    place: Place, agent: str, conversation: str, client: openai.OpenAI
) -> None:
    answer = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("large", {"bytes": 100_000})], final="{0.0}"),
    )
    shown = called(answer)["large"].output
    assert len(shown.encode()) <= 1024
    assert "100000 bytes" in shown
    path = shown.partition("the whole is in ")[2].rstrip("\n.]")
    assert path.startswith("/workspace/")
    script = f"print(len(open({path!r}).read()))"
    again = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("code", {"language": "python", "code": script})], final="{0.0}"),
    )
    assert called(again)["code"].output.strip() == "100000"


def test_files_come_with_the_input_and_are_fetched_over_the_gateway(
    place: Place, agent: str, conversation: str, client: openai.OpenAI
) -> None:
    script = 'open("sum.txt", "w").write(str(sum(map(int, open("uploads/numbers.csv").read().split(",")))))'
    data = base64.b64encode(b"1,2,3,4").decode()
    file = {"type": "input_file", "filename": "numbers.csv", "file_data": f"data:text/csv;base64,{data}"}
    asks = program([call("code", {"language": "python", "code": script})], final="Done.")
    said: Any = [{"role": "user", "content": [file]}, {"role": "user", "content": asks}]
    answer = client.responses.create(model=agent, conversation=conversation, input=said)
    assert set(called(answer)) == {"code"}, answer.output_text
    container = "cntr_" + conversation.encode().hex()
    listed = {file.path: file for file in client.containers.files.list(container)}
    assert {"uploads/numbers.csv", "sum.txt"} <= {path.removeprefix("/workspace/") for path in listed}
    (found,) = [file for path, file in listed.items() if path.endswith("sum.txt")]
    assert client.containers.files.content.retrieve(found.id, container_id=container).read() == b"10"


def test_another_agent_is_a_session_of_its_own_that_goes_with_the_one_that_asked(
    place: Place, agent: str, client: openai.OpenAI, model: ScriptedModel
) -> None:
    conversation = place.session("parent", "worker")
    tag = f"{place.name}-child"
    asks = program([call("ask", {"input": f"tag:{tag} say: I am the other one."})], final="It says: {0.0}")
    answer = client.responses.create(model=agent, conversation=conversation, input=asks)
    assert answer.output_text == "It says: I am the other one."
    assert model.calls(tag) == 1
    (child,) = place.kube.items("agentsessions", f"{PARENT_LABEL}=parent")
    parent = place.kube.get("agentsession", "parent")
    (owner,) = child["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("AgentSession", parent["metadata"]["uid"])
    turn, step = child["metadata"]["annotations"][CALL_ANNOTATION].split("/")
    assert answer.id.endswith(turn)
    assert called(answer)["ask"].id.endswith(f"_{step}")
    assert child["spec"]["subject"] == parent["spec"]["subject"]
    assert child["spec"]["expiresAt"]
    assert child["spec"]["agentRef"]["name"] == "other"
    place.kube.delete("agentsession", "parent", "--wait=false")
    eventually(lambda: place.kube.find("agentsession", child["metadata"]["name"]) is None, 60)


def test_the_token_of_a_session_opens_nothing_but_what_its_agent_may_ask(place: Place, agent: str) -> None:
    place.session("holder", "worker")
    token = place.kube.execute(session_pod("holder"), "sidecar", "cat", "/var/run/tenure/gateway/token").strip()
    for container in ("agent", "workspace"):
        with pytest.raises(KubectlError):
            place.kube.execute(session_pod("holder"), container, "cat", "/var/run/tenure/gateway/token")
    server = place.kube.run("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    answer = httpx.get(f"{server}/api", headers={"Authorization": f"Bearer {token}"}, verify=False)
    assert answer.status_code == 401
    bearer = place.tenure.client(token)
    with pytest.raises(openai.NotFoundError):
        bearer.responses.create(model=f"{place.name}/worker", input="say: never")
    with pytest.raises(openai.NotFoundError):
        bearer.conversations.retrieve(f"{place.name}/work")
