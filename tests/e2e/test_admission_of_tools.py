"""Tools and limits that cannot work are refused by the API server with the field and what to write instead."""

import json
from typing import Any

import pytest

from harness.admission import Bad, agent, attempt, must_be_read_and_written_back, must_be_refused
from harness.kube import Manifest
from harness.tenure import Place


def tools(*given: dict[str, Any]) -> Manifest:
    """An agent with tools; those without a name get one."""
    return agent("tools", value=[{"name": f"tool-{number}", **tool} for number, tool in enumerate(given)])


def http(**source: Any) -> Manifest:
    """An agent with a tool that is an HTTP request."""
    return tools({"description": "Looks an order up.", "http": source})


def mcp(**source: Any) -> Manifest:
    """An agent with a tool that is an MCP server."""
    return tools({"mcp": {"url": MCP_URL, **source}})


def header(name: str, secret: str = "orders", **reference: str) -> dict[str, Any]:
    """A header of a tool."""
    return {"name": name, "valueSecretRef": {"name": secret, **reference}}


MCP_URL = "http://orders.shop.svc:8000/mcp"
API_URL = "https://api.example.com/orders"
OPEN_API = {"url": "https://api.example.com/openapi.json", "operationId": "getOrder"}
TOOL = "spec.tools[0]"
HTTP = f"{TOOL}.http"

BAD: dict[str, Bad] = {
    "tool without a name": (agent("tools", value=[{"code": {}}]), f"{TOOL}.name", "Required value"),
    "tool with a dotted name": (
        tools({"name": "orders.get", "code": {}}),
        f"{TOOL}.name",
        "must be a function name: letters, digits, '-' and '_', no '__'",
    ),
    "tool with a name that looks like one of an MCP server": (
        tools({"name": "orders__get", "code": {}}),
        f"{TOOL}.name",
        "no '__', beginning and ending with a letter or digit",
    ),
    "tool with a long name": (tools({"name": "a" * 33, "code": {}}), f"{TOOL}.name", "may not be more than 32"),
    "two tools of one name": (
        tools({"name": "run", "code": {}}, {"name": "run", "waitUntil": {}}),
        "spec.tools[1]",
        "Duplicate value",
    ),
    "too many tools": (tools(*[{"waitUntil": {}}] * 33), "spec.tools", "must have at most 32 items"),
    "tool of no kind": (tools({}), TOOL, "needs exactly one of mcp, http, code, agent and waitUntil"),
    "tool of two kinds": (
        tools({"code": {}, "waitUntil": {}}),
        TOOL,
        "needs exactly one of mcp, http, code, agent and waitUntil",
    ),
    "two tools with code": (
        tools({"code": {}}, {"code": {}}),
        "spec.tools",
        "may have one tool with code only: all code of a session runs in the same container",
    ),
    "misspelt kind of tool": (tools({"wait_until": {}}), f"{TOOL}.wait_until", "unknown field"),
    "MCP server without a URL": (tools({"mcp": {}}), f"{TOOL}.mcp.url", "Required value"),
    "MCP server at no URL": (mcp(url="orders.shop.svc"), f"{TOOL}.mcp.url", "must be an http:// or https:// URL"),
    "MCP server at a huge port": (mcp(url="http://orders:99999/mcp"), f"{TOOL}.mcp.url", "must have a port from 0"),
    "MCP server with a description": (
        tools({"description": "Orders.", "mcp": {"url": MCP_URL}}),
        TOOL,
        "description comes from the MCP server: leave it out",
    ),
    "MCP tool that is named twice": (mcp(include=["get", "get"]), f"{TOOL}.mcp.include[1]", "Duplicate value"),
    "MCP server that is asked all the time": (
        mcp(refreshSeconds=1),
        f"{TOOL}.mcp.refreshSeconds",
        "should be greater than or equal to 5",
    ),
    "header that is none": (
        mcp(headers=[header("X Key")]),
        f"{TOOL}.mcp.headers[0].name",
        "must be the name of a header that Tenure does not set itself, such as Authorization",
    ),
    "header that is not the user's": (
        mcp(headers=[header("Idempotency-Key")]),
        f"{TOOL}.mcp.headers[0].name",
        "must be the name of a header that Tenure does not set itself",
    ),
    "header twice": (
        mcp(headers=[header("authorization"), header("Authorization")]),
        f"{TOOL}.mcp.headers",
        "names a header twice; upper and lower case make no difference",
    ),
    "header with its value in the clear": (
        mcp(headers=[{"name": "Authorization", "value": "Bearer 1"}]),
        f"{TOOL}.mcp.headers[0].value",
        "unknown field",
    ),
    "header from a Secret of another namespace": (
        http(url=API_URL, headers=[header("X-Api-Key", "shop/orders")]),
        f"{HTTP}.headers[0].valueSecretRef.name",
        "must be the name of an object in this namespace",
    ),
    "request without a description": (
        tools({"http": {"url": API_URL}}),
        TOOL,
        "description is needed: say in a sentence what the request is for",
    ),
    "request to nowhere": (http(method="GET"), HTTP, "needs either url or openAPI"),
    "request to two places": (http(url=API_URL, openAPI=OPEN_API), HTTP, "needs either url or openAPI"),
    "request by an unknown method": (http(method="QUERY", url=API_URL), f"{HTTP}.method", 'supported values: "GET"'),
    "request with a query": (http(url=f"{API_URL}?all=1"), f"{HTTP}.url", "without credentials or query, with {param"),
    "request to a host that the model chooses": (
        http(url="https://{host}/orders"),
        f"{HTTP}.url",
        "with {parameter} only in its path, such as https://api.example.com/orders/{id}",
    ),
    "request with half a parameter": (http(url=f"{API_URL}/{{id"), f"{HTTP}.url", "with {parameter} only in its path"),
    "request to a huge port": (
        http(url="http://orders:99999/{id}", parameters={"required": ["id"]}),
        f"{HTTP}.url",
        "must have a port from 0 to 65535",
    ),
    "request with a parameter that nobody describes": (
        http(url=f"{API_URL}/{{id}}"),
        HTTP,
        "each {parameter} of url must be in parameters.required, and described in parameters.properties",
    ),
    "request with a parameter that may be left out": (
        http(url=f"{API_URL}/{{id}}/{{line}}", parameters={"required": ["id"]}),
        HTTP,
        "each {parameter} of url must be in parameters.required",
    ),
    "arguments that are a list": (
        http(url=API_URL, parameters={"type": "array"}),
        f"{HTTP}.parameters.type",
        'supported values: "object"',
    ),
    "operation with a method": (
        http(method="POST", openAPI=OPEN_API),
        HTTP,
        "openAPI says method and parameters itself: leave them out",
    ),
    "operation with parameters": (
        http(parameters={}, openAPI=OPEN_API),
        HTTP,
        "openAPI says method and parameters itself: leave them out",
    ),
    "operation without an id": (
        http(openAPI={"url": OPEN_API["url"]}),
        f"{HTTP}.openAPI.operationId",
        "Required value",
    ),
    "code in an image with a space": (
        tools({"code": {"image": "my image"}}),
        f"{TOOL}.code.image",
        "must be an image reference",
    ),
    "code with a request above its limit": (
        tools({"code": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}}),
        f"{TOOL}.code.resources",
        "requests.cpu must not be greater than limits.cpu",
    ),
    "code in less memory than Python needs": (
        tools({"code": {"resources": {"limits": {"memory": "16Mi"}}}}),
        f"{TOOL}.code",
        "resources.limits.memory must be at least 32Mi, which Python itself needs",
    ),
    "code on less of a CPU than Python needs": (
        tools({"code": {"resources": {"limits": {"cpu": "5m"}}}}),
        f"{TOOL}.code",
        "resources.limits.cpu must be at least 10m",
    ),
    "code that cannot even start": (
        tools({"code": {"maxProcesses": 1}}),
        f"{TOOL}.code.maxProcesses",
        "should be greater than or equal to 8",
    ),
    "code with some network": (
        tools({"code": {"network": "Internal"}}),
        f"{TOOL}.code.network",
        'supported values: "Denied", "Allowed"',
    ),
    "agent as a tool without a description": (
        tools({"agent": {"name": "researcher"}}),
        TOOL,
        "description is needed: say what the agent is for",
    ),
    "agent as a tool of another namespace": (
        tools({"description": "Researches.", "agent": {"name": "shop/researcher"}}),
        f"{TOOL}.agent.name",
        "must be the name of an object in this namespace",
    ),
    "agent as a tool that is called blindly": (
        tools({"description": "Researches.", "agent": {"name": "researcher"}, "replay": "Never"}),
        TOOL,
        "an agent is always called with an idempotency key: leave replay out",
    ),
    "agent as a tool whose session is gone at once": (
        tools({"description": "Researches.", "agent": {"name": "researcher", "lifetimeSeconds": 1}}),
        f"{TOOL}.agent.lifetimeSeconds",
        "should be greater than or equal to 60",
    ),
    "waiting with a time-out": (
        tools({"waitUntil": {}, "timeoutSeconds": 60}),
        TOOL,
        "waitUntil has no replay, timeoutSeconds or maxResultBytes: leave them out",
    ),
    "waiting for years": (
        tools({"waitUntil": {"maxSeconds": 100_000_000}}),
        f"{TOOL}.waitUntil.maxSeconds",
        "should be less than or equal to 31536000",
    ),
    "unknown replay": (tools({"code": {}, "replay": "Always"}), f"{TOOL}.replay", 'supported values: "Safe"'),
    "approval as a truth": (tools({"code": {}, "approval": True}), f"{TOOL}.approval", "must be of type string"),
    "result of no size": (
        tools({"code": {}, "maxResultBytes": 0}),
        f"{TOOL}.maxResultBytes",
        "should be greater than or equal to 256",
    ),
    "turn without a step": (
        agent("turnLimits", value={"maxSteps": 0}),
        "spec.turnLimits.maxSteps",
        "should be greater than or equal to 1",
    ),
    "turn without an end": (
        agent("turnLimits", value={"maxDurationSeconds": 10_000_000}),
        "spec.turnLimits.maxDurationSeconds",
        "should be less than or equal to 2592000",
    ),
    "turn without a token": (
        agent("turnLimits", value={"maxTokens": 0}),
        "spec.turnLimits.maxTokens",
        "should be greater than or equal to 1",
    ),
}

GOOD: dict[str, Manifest] = {
    "every kind of tool, said as briefly as can be": tools(
        {"mcp": {"url": MCP_URL}},
        {"description": "Lists orders.", "http": {"url": API_URL}},
        {"http": {"openAPI": OPEN_API}},
        {"code": {}},
        {"description": "Researches.", "agent": {"name": "researcher"}},
        {"waitUntil": {}},
    ),
    "everything that a tool can say": tools(
        {
            "name": "Orders_v2-x",
            "mcp": {
                "url": MCP_URL,
                "headers": [header("Authorization"), header("X-Api-Key", key="key")],
                "include": ["get", "list"],
                "refreshSeconds": 60,
            },
            "replay": "IdempotencyKey",
            "approval": "Required",
            "timeoutSeconds": 5,
            "maxResultBytes": 1024,
        },
        {
            "description": "Changes a line of an order.",
            "http": {
                "method": "PATCH",
                "url": "https://[fd00::1]:8443/orders/{id}/lines/{line.no}:move",
                "parameters": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "line.no": {"$ref": "#/$defs/line"}},
                    "required": ["id", "line.no"],
                    "additionalProperties": False,
                    "$defs": {"line": {"type": ["integer", "null"], "minimum": 1}},
                },
                "headers": [header("Authorization")],
            },
            "replay": "Safe",
        },
        {"description": "Mine.", "http": {"openAPI": OPEN_API, "headers": [header("X-Api-Key")]}, "replay": "Never"},
        {
            "description": "Python for tables.",
            "code": {
                "image": "registry.example.com/team/tables:1",
                "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "4Gi"}},
                "maxProcesses": 64,
                "network": "Allowed",
            },
            "replay": "Safe",
            "timeoutSeconds": 3600,
        },
        {
            "description": "Researches.",
            "agent": {"name": "researcher", "lifetimeSeconds": 600},
            "replay": "IdempotencyKey",
        },
        {"description": "Waits.", "waitUntil": {"maxSeconds": 60}, "approval": "Required"},
    ),
    "all limits of a turn": agent("turnLimits", value={"maxSteps": 12, "maxDurationSeconds": 60, "maxTokens": 10_000}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_tool_is_refused_with_the_field_and_the_fix(place: Place, case: str) -> None:
    must_be_refused(place.kube, BAD[case])


@pytest.mark.parametrize("case", GOOD)
def test_a_good_tool_is_accepted_and_nothing_of_it_is_lost(place: Place, case: str) -> None:
    must_be_read_and_written_back(place.kube, GOOD[case])


def test_defaults_of_tools_are_filled_in_by_the_api_server(place: Place) -> None:
    spec = json.loads(attempt(place.kube, agent()))["spec"]
    assert spec["turnLimits"] == {"maxSteps": 100, "maxDurationSeconds": 3600}
    assert "tools" not in spec
    brief = json.loads(attempt(place.kube, GOOD["every kind of tool, said as briefly as can be"]))["spec"]["tools"]
    assert [tool["approval"] for tool in brief] == ["Never"] * 6
    assert brief[0]["mcp"]["refreshSeconds"] == 300
    assert brief[3]["code"] == {"maxProcesses": 128, "network": "Denied"}
    assert brief[4]["agent"]["lifetimeSeconds"] == 3600
    assert brief[5]["waitUntil"] == {"maxSeconds": 604_800}
