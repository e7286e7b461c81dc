"""The CRDs are structural, bounded and documented; what they accept the models read, and the other way round."""

import re
from collections.abc import Iterator
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from tenure_api.crdgen import CATEGORY, KINDS, Kind, Schema, definition, open_api_schema, render, structural
from tenure_api.docgen import page
from tenure_api.markers import CEL, FREE, LIST_KEYS, LIST_TYPE
from tenure_api.names import MAX_NAME

ROOT = Path(__file__).resolve().parents[3]
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
CLIENT_SIDE_APPLY_LIMIT = 256 * 1024
"""`kubectl apply` keeps the whole object in an annotation, and all annotations of an object have at most this size."""


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of a structural schema with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


@EACH_KIND
def test_no_word_is_used_that_a_structural_schema_does_not_know(kind: Kind) -> None:
    known = {
        "type",
        "format",
        "description",
        "enum",
        "default",
        "properties",
        "required",
        "items",
        CEL,
        LIST_TYPE,
        LIST_KEYS,
        FREE,
    }
    known |= {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
    for path, node in nodes(open_api_schema(kind.model)):
        assert set(node) <= known, path
        assert node["type"] in {"object", "array", "string", "integer"}, path
        assert node.get("default", "") is not None, path


@EACH_KIND
def test_every_string_and_every_list_is_bounded(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        if node["type"] == "string" and path not in {".apiVersion", ".kind"}:
            assert "maxLength" in node or "enum" in node, path
        if node["type"] == "array":
            assert node["maxItems"] <= 64, path


@EACH_KIND
def test_every_list_says_how_it_is_merged(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        if node["type"] == "array":
            assert node[LIST_TYPE] in {"map", "set", "atomic"}, path
        for key in node.get(LIST_KEYS, ()):
            assert key in node["items"]["required"], f"{path}: a key of the list may be absent"


@EACH_KIND
def test_every_field_is_described_in_a_sentence(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        if path != ".metadata" and not path.endswith("[]"):
            assert node.get("description", "").endswith("."), path


@EACH_KIND
def test_every_rule_has_a_message_of_its_own(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        messages = [rule["message"] for rule in node.get(CEL, ())]
        assert all(messages), path
        assert len(set(messages)) == len(messages), path


@EACH_KIND
def test_no_field_is_both_required_and_defaulted(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        for name in node.get("required", ()):
            assert "default" not in node["properties"][name], f"{path}.{name}"


@EACH_KIND
def test_a_default_obeys_its_own_schema(kind: Kind) -> None:
    for path, node in nodes(open_api_schema(kind.model)):
        if "default" in node:
            assert not list(jsonschema.Draft202012Validator(node).iter_errors(node["default"])), path


@EACH_KIND
def test_a_fresh_object_is_not_taken_for_reconciled(kind: Kind) -> None:
    assert open_api_schema(kind.model)["properties"]["status"]["default"] == {"observedGeneration": -1}


@EACH_KIND
def test_the_api_server_fills_in_what_the_models_would(kind: Kind) -> None:
    schema = open_api_schema(kind.model)["properties"]["spec"]
    minimal = minimal_value(schema)
    read = kind.model.model_validate({"spec": minimal}).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert without_empty(with_defaults(schema, minimal)) == without_empty(read["spec"])


@EACH_KIND
def test_the_name_leaves_room_for_the_suffixes_of_derived_names(kind: Kind) -> None:
    rules = [rule["rule"] for rule in open_api_schema(kind.model)[CEL]]
    assert f"self.metadata.name.size() <= {MAX_NAME}" in rules


@EACH_KIND
def test_client_side_apply_can_carry_the_definition(kind: Kind) -> None:
    assert len(render(kind)) < CLIENT_SIDE_APPLY_LIMIT / 4


def test_the_category_is_not_the_name_of_a_kind() -> None:
    names = [definition(kind)["spec"]["names"] for kind in KINDS]
    taken = {name for n in names for name in (n["plural"], n["singular"], *n["shortNames"])}
    assert CATEGORY not in taken
    assert all(n["categories"] == [CATEGORY] for n in names)


def test_short_names_are_unique() -> None:
    assert len({kind.short_name for kind in KINDS}) == len(KINDS)


@EACH_KIND
def test_printer_columns_point_at_fields_that_exist(kind: Kind) -> None:
    known = {path.replace("[]", "") for path, _ in nodes(open_api_schema(kind.model))}
    for name, _, path in (*kind.columns, *kind.wide):
        plain = re.sub(r'\[\?\(@\.type=="\w+"\)\]', "", path)
        assert plain in known or plain == ".metadata.creationTimestamp", name


@pytest.mark.parametrize("directory", ["crds", "charts/tenure/files/crds"])
@EACH_KIND
def test_the_committed_definition_is_the_generated_one(kind: Kind, directory: str) -> None:
    written = (ROOT / directory / f"{kind.plural}.yaml").read_text(encoding="utf-8")
    assert written == render(kind), "run `make generate`"


@pytest.mark.parametrize("directory", ["crds", "charts/tenure/files/crds"])
def test_there_is_no_definition_of_a_kind_that_is_gone(directory: str) -> None:
    assert {path.name for path in (ROOT / directory).iterdir()} == {f"{kind.plural}.yaml" for kind in KINDS}


@EACH_KIND
def test_the_rendered_text_is_the_definition(kind: Kind) -> None:
    assert yaml.safe_load(render(kind)) == definition(kind)


def test_the_committed_api_reference_is_the_generated_one() -> None:
    assert (ROOT / "docs/api-reference.md").read_text(encoding="utf-8") == page(), "run `make generate`"


@EACH_KIND
def test_the_api_reference_names_every_field(kind: Kind) -> None:
    text = page()
    for path, _ in nodes(open_api_schema(kind.model)):
        if path.startswith((".spec.", ".status.")):
            assert f"`{path[1:]}`" in text or f"`{path[1:]}[]`" in text, path


def test_a_union_is_refused_because_a_structural_schema_has_none() -> None:
    with pytest.raises(ValueError, match="no unions"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})


def test_an_optional_field_may_be_absent_but_is_never_null() -> None:
    optional = {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}], "default": None, "description": "D."}
    assert structural(optional, {}) == {"type": "string", "maxLength": 8, "description": "D."}


def test_rules_of_a_field_join_those_of_its_type() -> None:
    referred = {"$ref": "#/$defs/Name", CEL: [{"rule": "field", "message": "f"}]}
    inlined = structural(referred, {"Name": {"type": "string", CEL: [{"rule": "type", "message": "t"}]}})
    assert [rule["rule"] for rule in inlined[CEL]] == ["type", "field"]


# --- what the schema accepts, the models read ---------------------------------------------------------------------


def minimal_value(schema: Schema) -> Any:
    """The smallest value that a schema allows."""
    match schema["type"]:
        case "object":
            return {name: minimal_value(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [minimal_value(schema["items"])] * schema.get("minItems", 0)
        case "integer":
            return schema.get("minimum", 0)
    return schema["enum"][0] if "enum" in schema else "x" * schema.get("minLength", 0)


def with_defaults(schema: Schema, value: Any) -> Any:
    """What the API server makes of a value: absent fields get their defaults, at every depth."""
    if schema["type"] == "array":
        return [with_defaults(schema["items"], item) for item in value]
    if schema["type"] != "object":
        return value
    fields = schema.get("properties", {})
    filled = {name: field["default"] for name, field in fields.items() if "default" in field} | value
    return {name: with_defaults(fields[name], part) for name, part in filled.items()}


def without_empty(value: Any) -> Any:
    """The value without empty objects and lists, which say the same as nothing."""
    if not isinstance(value, dict):
        return value
    parts = {key: without_empty(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part not in ({}, [])}


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that a structural schema accepts; CEL rules are not looked at."""
    match schema["type"]:
        case "object":
            fields = {name: values(field) for name, field in schema.get("properties", {}).items()}
            required = set(schema.get("required", ()))
            optional = {name: field for name, field in fields.items() if name not in required}
            return st.fixed_dictionaries({name: fields[name] for name in sorted(required)}, optional=optional)
        case "array":
            items = st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
            keys = schema.get(LIST_KEYS, ())
            return (
                items.filter(lambda found: len({tuple(i[k] for k in keys) for i in found}) == len(found))
                if keys
                else items
            )
        case "integer":
            return st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat().replace("+00:00", "Z"))
    shortest = schema.get("minLength", 0)
    longest = max(shortest, min(schema["maxLength"], 40))
    return st.text(st.characters(codec="utf-8"), min_size=shortest, max_size=longest)


@cache
def parts_of(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """A spec and a status that the schema of a kind accepts."""
    properties = open_api_schema(kind.model)["properties"]
    return st.fixed_dictionaries({part: values(properties[part]) for part in ("spec", "status")})


@EACH_KIND
@given(data=st.data())
def test_what_the_schema_accepts_the_model_reads_and_writes_back(kind: Kind, data: st.DataObject) -> None:
    schema = open_api_schema(kind.model)
    read = kind.model.model_validate(data.draw(parts_of(kind)))
    written = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    for part in ("spec", "status"):
        assert not list(jsonschema.Draft202012Validator(schema["properties"][part]).iter_errors(written[part]))
    assert kind.model.model_validate(written) == read


# --- what the rules accept, our code can use -----------------------------------------------------------------------


def pattern(kind: Kind, path: str) -> str:
    """The first regular expression in the rules of a field, as the API server reads it."""
    node = dict(nodes(open_api_schema(kind.model)))[path]
    expression: str = node[CEL][0]["rule"]
    return expression.split("matches('", 1)[1].rsplit("')", 1)[0].replace("\\\\", "\\").removesuffix("$") + r"\Z"


AGENT = KINDS[0]
PARAMETERS = ".spec.model.parameters"


@pytest.mark.parametrize(("field", "greatest"), [("temperature", 2.0), ("topP", 1.0)])
@given(data=st.data())
def test_a_parameter_that_the_api_server_accepts_is_a_number_in_range(
    field: str, greatest: float, data: st.DataObject
) -> None:
    text = data.draw(st.from_regex(pattern(AGENT, f"{PARAMETERS}.{field}")))
    AGENT.model.model_validate(
        {"spec": {"model": {"name": "m", "baseURL": "http://m/v1", "parameters": {field: text}}}}
    )
    assert 0 <= float(text) <= greatest


@pytest.mark.parametrize(("field", "greatest"), [("temperature", 2), ("topP", 1)])
@given(data=st.data())
def test_every_decimal_in_range_is_accepted(field: str, greatest: int, data: st.DataObject) -> None:
    number = data.draw(st.decimals(0, greatest, places=4))
    jsonschema.validate(
        f"{number:f}", {"pattern": pattern(AGENT, f"{PARAMETERS}.{field}").replace(r"\Z", "$"), "maxLength": 8}
    )


@pytest.mark.parametrize(
    "field",
    [
        ".spec.model.baseURL",
        ".spec.tools[].mcp.url",
        ".spec.tools[].http.url",
        ".spec.tools[].http.openAPI.url",
    ],
)
@given(data=st.data())
def test_a_url_that_the_api_server_accepts_has_a_host_and_no_secret(field: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(pattern(AGENT, field)))
    assume("[" not in text)  # whether an IPv6 address is one, only the sidecar's HTTP client knows
    url = urlsplit(text)
    assert url.scheme in {"http", "https"}
    assert url.hostname
    assert "@" not in url.netloc
    assert (url.query, url.fragment) == ("", "")
    assert "{" not in url.netloc
    assert text.count("{") == text.count("}") == len(re.findall(r"\{[^{}]+\}", text))
