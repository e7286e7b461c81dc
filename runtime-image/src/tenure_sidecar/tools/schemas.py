"""The schemas of an OpenAPI document as JSON schemas that stand alone.

References are replaced by what they point to. One that would go round, go deep or make too much of it is replaced by
as little as holds, so that reading a schema always ends and what it accepts is never less than the document says.
"""

from typing import Any
from urllib.parse import unquote

from tenure_sidecar.tools.tool import Json

_MOST_DEPTH = 24
_MOST_NODES = 5_000
"""Schemas of one operation; a model cannot use that many."""
_LONGEST_CHAIN = 16
_SCHEMA = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_DATA = (
    *("type", "enum", "const", "format", "title", "description", "default", "pattern", "required", "uniqueItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "dependentRequired"),
)


class Schemas:
    """Reads the schemas of one operation of a document."""

    def __init__(self, document: Json, old: bool) -> None:
        """`old` says that it is OpenAPI 3.0, whose schemas are almost JSON schemas."""
        self._document = document
        self._old = old
        self._nodes = 0

    def resolved(self, value: Any) -> Any:
        """What a value that may be a reference stands for; None if it leads nowhere."""
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            value = pointed(self._document, value["$ref"])
        return None

    def read(self, raw: Any) -> Json:
        """A schema that stands alone; one that accepts all if there is none."""
        return self._read(raw, frozenset(), 0)

    def _read(self, raw: Any, within: frozenset[int], depth: int) -> Json:
        if raw is False:
            return {"not": {}}
        schema = self.resolved(raw)
        if not isinstance(schema, dict):
            return {}
        self._nodes += 1
        if id(schema) in within or depth > _MOST_DEPTH or self._nodes > _MOST_NODES:
            return _outline(schema)
        inner, deeper = within | {id(schema)}, depth + 1
        read: Json = {key: self._copied(schema[key]) for key in _DATA if _is_data(key, schema.get(key))}
        for key in _SCHEMA:
            if isinstance(schema.get(key), dict):
                read[key] = self._read(schema[key], inner, deeper)
        if isinstance(schema.get("additionalProperties"), bool):
            read["additionalProperties"] = schema["additionalProperties"]
        for key in _SCHEMAS:
            if isinstance(schema.get(key), list) and schema[key]:
                read[key] = [self._read(element, inner, deeper) for element in schema[key]]
        for key in _NAMED:
            if isinstance(schema.get(key), dict):
                members = {str(name): self.resolved(member) for name, member in schema[key].items()}
                hidden = {name for name, member in members.items() if _is_read_only(member)}
                read[key] = {name: self._read(m, inner, deeper) for name, m in members.items() if name not in hidden}
                if key == "properties" and "required" in read:
                    read["required"] = [name for name in read["required"] if name not in hidden]
        return _modern(read, schema) if self._old else read

    def _copied(self, value: Any, depth: int = 0) -> Any:
        """A value of JSON; YAML has others, and can make a small text into a value without end."""
        self._nodes += 1
        if self._nodes > _MOST_NODES or depth > _MOST_DEPTH:
            return None
        if isinstance(value, dict):
            return {str(name): self._copied(member, depth + 1) for name, member in value.items()}
        if isinstance(value, list):
            return [self._copied(element, depth + 1) for element in value]
        return value if value is None or isinstance(value, str | int | float) else str(value)


def pointed(document: Any, reference: str) -> Any:
    """What a local reference points to; None if there is nothing (RFC 6901)."""
    if not reference.startswith("#/"):
        return None
    current = document
    for part in reference[2:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(current, dict):
            current = current.get(name)
        elif isinstance(current, list) and name.isdecimal() and len(name) < 8 and int(name) < len(current):
            current = current[int(name)]
        else:
            return None
    return current


def _outline(schema: Json) -> Json:
    """What can be said of a schema without what is in it."""
    return {key: schema[key] for key in ("type", "description") if _is_data(key, schema.get(key))}


def _is_read_only(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("readOnly") is True


def _is_data(key: str, value: Any) -> bool:
    """Whether a keyword has a value of the kind that it must have."""
    match key:
        case "enum":
            return isinstance(value, list)
        case "const" | "default":
            return value is not None
        case "required":
            return isinstance(value, list) and all(isinstance(name, str) for name in value)
        case "type":
            kinds = value if isinstance(value, list) and value else [value]
            return all(isinstance(kind, str) and kind in _TYPES for kind in kinds)
        case "dependentRequired":
            return isinstance(value, dict)
        case "title" | "description" | "format" | "pattern":
            return isinstance(value, str)
        case "uniqueItems":
            return isinstance(value, bool)
    return isinstance(value, int | float)


def _modern(read: Json, schema: Json) -> Json:
    """What OpenAPI 3.0 writes in its own way."""
    for bound in ("Minimum", "Maximum"):
        exclusive = read.get(f"exclusive{bound}")
        if isinstance(exclusive, bool):
            del read[f"exclusive{bound}"]
            if exclusive and bound.lower() in read:
                read[f"exclusive{bound}"] = read.pop(bound.lower())
    if schema.get("nullable") is True and isinstance(read.get("type"), str):
        read["type"] = [read["type"], "null"]
        if "enum" in read and None not in read["enum"]:
            read["enum"] = [*read["enum"], None]
    return read
