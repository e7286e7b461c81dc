"""Operations of OpenAPI documents."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure_api.configuration import HeaderSource, HttpConfig, ToolConfig
from tenure_sidecar.tools import openapi_tool
from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.openapi import DocumentError, Operation, operation_of, request_of
from tenure_sidecar.tools.openapi_tool import loaded
from unit.sidecar.support import serving, until
from unit.sidecar.tools.support import HEADERS, SECRET, Server, World, a_world, says

Json = dict[str, Any]
URL = "https://api.example.com/specs/openapi.json"


def a_document(operation: Json, path: str = "/orders", method: str = "post", **more: Any) -> Json:
    found = {"openapi": "3.1.0", "servers": [{"url": "/v1"}], "paths": {path: {method: operation}}, **more}
    operation.setdefault("operationId", "op")
    return found


def read(document: Any, url: str = URL, given: frozenset[str] = frozenset()) -> Operation:
    return operation_of(document, url, "op", given)


def json_body(schema: Any, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


ORDER = {
    "operationId": "op",
    "summary": "Change an order",
    "parameters": [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Which."},
        {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
        {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
    ],
    "requestBody": json_body({"$ref": "#/components/schemas/Change"}),
}
COMPONENTS = {
    "schemas": {
        "Change": {
            "type": "object",
            "properties": {
                "state": {"$ref": "#/components/schemas/State"},
                "count": {"type": "integer"},
                "made": {"type": "string", "readOnly": True},
            },
            "required": ["state", "made"],
        },
        "State": {"type": "string", "enum": ["open", "sent"]},
    }
}


def test_an_operation_is_one_flat_schema_and_each_argument_goes_where_it_belongs() -> None:
    operation = read(a_document(ORDER, "/orders/{id}", "patch", components=COMPONENTS))
    assert (operation.method, operation.url) == ("PATCH", "https://api.example.com/v1/orders/{id}")
    assert operation.description == "Change an order"
    assert operation.arguments == {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Which."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "X-Trace": {"type": "string"},
            "state": {"type": "string", "enum": ["open", "sent"]},
            "count": {"type": "integer"},
        },
        "required": ["id", "state"],
        "additionalProperties": False,
    }
    request = request_of(operation, {"id": "a/b", "tags": ["x", "y"], "X-Trace": "t", "state": "sent"})
    assert request.url == "https://api.example.com/v1/orders/a%2Fb?tags=x&tags=y"
    assert json.loads(request.body) == {"state": "sent"}
    assert dict(request.headers) == {"X-Trace": "t", "content-type": "application/json"}


def test_a_body_whose_members_clash_with_parameters_is_one_argument() -> None:
    schema = {"type": "object", "properties": {"id": {"type": "string"}}}
    parameter = {"name": "id", "in": "query", "schema": {"type": "integer"}}
    operation = read(a_document({"parameters": [parameter], "requestBody": json_body(schema)}))
    assert operation.arguments["properties"] == {"id": {"type": "integer"}, "body": schema}
    assert operation.arguments["required"] == ["body"]
    request = request_of(operation, {"id": 1, "body": {"id": "x"}})
    assert (request.url, request.body) == ("https://api.example.com/v1/orders?id=1", b'{"id": "x"}')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}},
        {"oneOf": [{"type": "string"}, {"type": "object"}]},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object"},
    ],
)
def test_a_body_that_is_no_plain_object_is_one_argument(schema: Json) -> None:
    operation = read(a_document({"requestBody": json_body(schema)}))
    assert operation.arguments["properties"] == {"body": schema}
    assert request_of(operation, {"body": ["x"]}).body == b'["x"]'


def test_a_body_that_is_not_needed_may_be_left_out() -> None:
    for schema in ({"type": "string"}, {"type": "object", "properties": {"a": {}}, "required": ["a"]}):
        operation = read(a_document({"requestBody": json_body(schema, required=False)}))
        assert operation.arguments["required"] == []
        assert request_of(operation, {}).body == b""
    needed = read(a_document({"requestBody": json_body({"type": "object", "properties": {"a": {}}})}))
    assert request_of(needed, {}).body == b"{}"


@pytest.mark.parametrize(
    ("parameter", "value", "query"),
    [
        ({}, ["a", "b c"], "p=a&p=b%20c"),
        ({"explode": False}, ["a", "b"], "p=a%2Cb"),
        ({}, {"x": 1, "y": True}, "x=1&y=true"),
        ({"explode": False}, {"x": 1}, "p=x%2C1"),
        ({"content": {"application/json": {"schema": {"type": "object"}}}}, {"x": [1]}, "p=%7B%22x%22%3A%20%5B1%5D%7D"),
        ({}, None, ""),
        ({}, 1.5, "p=1.5"),
    ],
)
def test_query_parameters_are_written_by_the_style_form(parameter: Json, value: Any, query: str) -> None:
    operation = read(a_document({"parameters": [{"name": "p", "in": "query", **parameter}]}, method="get"))
    assert urlsplit(request_of(operation, {"p": value}).url).query == query


def test_parameters_of_the_path_hold_unless_the_operation_has_its_own() -> None:
    document = a_document({"parameters": [{"name": "p", "in": "query", "schema": {"type": "integer"}}]})
    shared = [{"name": "p", "in": "query", "schema": {"type": "string"}}, {"$ref": "#/components/parameters/Q"}]
    document["paths"]["/orders"]["parameters"] = shared
    document["components"] = {"parameters": {"Q": {"name": "q", "in": "query", "required": True}}}
    arguments = read(document).arguments
    assert arguments["properties"] == {"p": {"type": "integer"}, "q": {}}
    assert arguments["required"] == ["q"]


def test_parameters_of_one_name_in_two_places_have_two_names() -> None:
    parameters = [{"name": "id", "in": "path"}, {"name": "id", "in": "query"}]
    operation = read(a_document({"parameters": parameters}, "/orders/{id}"))
    assert request_of(operation, {"id": "1", "query_id": "2"}).url.endswith("/orders/1?id=2")


def test_headers_that_others_set_are_no_arguments() -> None:
    names = ("Accept", "Authorization", "Idempotency-Key", "X-Api-Key", "X-Other")
    parameters = [{"name": name, "in": "header", "required": True} for name in names]
    operation = read(a_document({"parameters": parameters}), given=frozenset({"x-api-key"}))
    assert list(operation.arguments["properties"]) == ["X-Other"]
    with pytest.raises(ToolFailedError, match="printable ASCII"):
        request_of(operation, {"X-Other": "a\r\nHost: evil"})


@pytest.mark.parametrize("value", ["..", ".", ""])
def test_no_argument_leads_out_of_its_segment(value: str) -> None:
    operation = read(a_document({"parameters": [{"name": "id", "in": "path"}]}, "/orders/{id}"))
    with pytest.raises(ToolFailedError):
        request_of(operation, {"id": value})


@pytest.mark.parametrize(
    ("servers", "base"),
    [
        (None, "https://api.example.com/orders"),
        ([{"url": "v2/"}], "https://api.example.com/specs/v2/orders"),
        ([{"url": "https://other.example.com/x"}], "https://other.example.com/x/orders"),
        (
            [{"url": "https://{host}.example.com", "variables": {"host": {"default": "eu"}}}],
            "https://eu.example.com/orders",
        ),
    ],
)
def test_the_server_is_relative_to_the_document(servers: Any, base: str) -> None:
    document = a_document({})
    document["servers"] = servers
    assert read(document).url == base


@pytest.mark.parametrize(
    "url", ["http://api.example.com/", "ftp://x/", "https://{host}/", "https://x/?a=b", "https://[x/"]
)
def test_a_server_that_cannot_be_called_or_is_less_safe_is_refused(url: str) -> None:
    document = a_document({})
    document["servers"] = [{"url": url}]
    with pytest.raises(DocumentError):
        read(document)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"swagger": "2.0"}, "not OpenAPI 3"),
        ([], "not OpenAPI 3"),
        (a_document({"operationId": "other"}), "no operation 'op'; it has other"),
        (a_document({}, "/orders/{id}"), "no such parameter"),
        (a_document({"requestBody": {"required": True, "content": {"text/xml": {}}}}), "not JSON"),
        (a_document({"parameters": [{"name": "c", "in": "cookie", "required": True}]}), "not supported"),
        (
            a_document({"parameters": [{"name": "c", "in": "query", "style": "deepObject", "required": True}]}),
            "not supported",
        ),
    ],
)
def test_what_cannot_be_called_is_explained(document: Any, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        read(document)


def test_what_is_not_supported_and_not_needed_is_left_out() -> None:
    parameters = [{"name": "c", "in": "cookie"}, {"name": "d", "in": "query", "style": "deepObject"}]
    body: Json = {"content": {"multipart/form-data": {}}}
    assert read(a_document({"parameters": parameters, "requestBody": body})).arguments["properties"] == {}


def test_the_schemas_of_openapi_3_0_become_json_schemas() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "nullable": True, "enum": ["x"]},
            "b": {"type": "number", "minimum": 1, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False},
        },
    }
    document = a_document({"requestBody": json_body(schema)}, openapi="3.0.3")
    assert read(document).arguments["properties"] == {
        "a": {"type": ["string", "null"], "enum": ["x", None]},
        "b": {"type": "number", "exclusiveMinimum": 1, "maximum": 5},
    }


def test_a_schema_that_contains_itself_ends() -> None:
    tree = {"type": "object", "description": "A tree.", "properties": {"children": {"type": "array", "items": {}}}}
    tree["properties"]["children"]["items"] = {"$ref": "#/components/schemas/Tree"}  # type: ignore[index]
    body = json_body({"$ref": "#/components/schemas/Tree"})
    arguments = read(a_document({"requestBody": body}, components={"schemas": {"Tree": tree}})).arguments
    children = arguments["properties"]["children"]
    assert children == {"type": "array", "items": {"type": "object", "description": "A tree."}}


@pytest.mark.parametrize("target", ["#/components/schemas/A", "#", "other.json", "#/nowhere", "#/paths/99"])
def test_a_reference_that_leads_nowhere_or_round_accepts_all(target: str) -> None:
    body = json_body({"$ref": "#/components/schemas/A"})
    document = a_document({"requestBody": body}, components={"schemas": {"A": {"$ref": target}}})
    assert read(document).arguments["properties"] == {"body": {}}


def test_a_schema_that_grows_beyond_all_use_is_cut() -> None:
    schemas: Json = {"S0": {"type": "string"}}
    for number in range(1, 20):
        inner = {"$ref": f"#/components/schemas/S{number - 1}"}
        schemas[f"S{number}"] = {"type": "object", "properties": dict.fromkeys("abcdefgh", inner)}
    body = json_body({"$ref": "#/components/schemas/S19"})
    arguments = read(a_document({"requestBody": body}, components={"schemas": schemas})).arguments
    assert len(json.dumps(arguments)) < 1_000_000
    assert arguments["properties"]["h"]["type"] == "object"


def test_yaml_is_read_without_what_json_does_not_have() -> None:
    text = b"""
openapi: 3.0.0
paths:
  /days/{day}:
    get:
      operationId: op
      parameters:
        - {name: day, in: path, required: true, schema: {type: string, enum: [2026-01-01], default: &a [*a]}}
      responses: {200: {description: ok}}
"""
    arguments = read(loaded(text)).arguments
    assert arguments["properties"]["day"]["enum"] == ["2026-01-01"]
    json.dumps(arguments)


@pytest.mark.parametrize(
    "text", [b"\0", b"{", b"[" * 100_000, b"- " * 100_000, b"a: b: c", b"!!python/object:os.system {}", b"\xff"]
)
def test_text_that_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(DocumentError):
        read(loaded(text))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
WORDS = (
    *("$ref", "type", "properties", "items", "allOf", "enum", "required", "nullable", "readOnly", "pattern", "default"),
    *("additionalProperties", "minimum", "exclusiveMinimum", "not", "const", "description"),
)
REFERENCES = st.sampled_from(["#/components/schemas/A", "#/components/schemas/B", "#/paths", "#"])
schemas = st.recursive(
    values | st.builds(lambda target: {"$ref": target}, REFERENCES),
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner | st.lists(inner, max_size=2) | values, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(schemas, schemas, st.lists(values | schemas, max_size=2), st.sampled_from(["3.0.1", "3.1.0"]))
def test_whatever_a_document_holds_it_is_an_operation_with_a_schema_or_refused(
    a: Any, b: Any, parameters: list[Any], version: str
) -> None:
    operation = {"parameters": parameters, "requestBody": json_body(a)}
    document = a_document(operation, openapi=version, components={"schemas": {"A": a, "B": b}})
    try:
        found = read(document)
    except DocumentError:
        return
    assert Operation.model_validate_json(found.model_dump_json()) == found
    assert len(json.dumps(found.arguments)) < 1_000_000


def a_tool(port: int, **fields: Any) -> ToolConfig:
    headers: list[HeaderSource] = HEADERS
    config = HttpConfig(document=f"http://127.0.0.1:{port}/openapi.yaml", operation="op", headers=headers)
    return ToolConfig(name="order", http=config, **fields)


async def test_the_operation_of_a_document_is_called(tmp_path: Path) -> None:
    document = a_document(json.loads(json.dumps(ORDER)), "/orders/{id}", "patch", components=COMPONENTS)
    server = Server(says(document), says({"state": "sent"}))
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        (function,) = world.tools.functions()
        assert (function.name, function.description, function.replay) == ("order", "Change an order", "Never")
        wrong = await world.call("order", {"id": "1", "state": "lost"})
        assert 'argument \'state\': must be one of ["open", "sent"]' in wrong.text
        outcome = await world.call("order", {"id": "1", "state": "sent"})
        assert outcome.text == '{"state": "sent"}'
    fetched, called = server.asked
    assert (fetched.path, called.path, called.method) == ("/openapi.yaml", "/v1/orders/1", "PATCH")
    assert fetched.headers["authorization"] == called.headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("gone", 404), "Unreachable"),
        (says({"swagger": "2.0"}), "InvalidResponse"),
        (
            says(a_document({"requestBody": json_body({"type": "object", "properties": {"a": {"minLength": -1}}})})),
            "InvalidResponse",
        ),
    ],
)
async def test_a_document_that_does_not_serve_is_told_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    monkeypatch.setattr(openapi_tool, "_RETRY_SECONDS", (0.01,))
    server = Server(answer)
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        assert world.names() == []
        assert [health.reason for health in world.tools.health()] == [reason]
        server.answers = [says(a_document({}))]
        await until(world.names)
        assert world.tools.health() == []


async def test_what_was_read_is_kept_for_the_next_process(tmp_path: Path) -> None:
    async with serving(Server(says(a_document({})))) as port, a_world(tmp_path, a_tool(port)) as world:
        functions = world.tools.functions()
    later = World(tmp_path / "later", a_tool(port))
    later.kept = world.kept
    await later.tools.ready()
    assert later.tools.functions() == functions
