"""Renders the API reference from the same schemas as the CRDs.

`python -m tenure_api.docgen FILE` writes one Markdown page: for each kind one table of `spec` and one of `status`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tenure_api.conditions import ConditionType, Reason
from tenure_api.crdgen import CATEGORY, KINDS, Kind, Schema, open_api_schema
from tenure_api.markers import CEL, LIST_KEYS, LIST_TYPE
from tenure_api.names import API_VERSION

_BOUNDS = (
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("minLength", "≥ {} characters"),
    ("maxLength", "≤ {} characters"),
    ("minItems", "≥ {} items"),
    ("maxItems", "≤ {} items"),
)
_HEAD = "| Field | Type | Default | Bounds | Description |\n| --- | --- | --- | --- | --- |"


def _type(field: Schema) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        merged = f", by `{', '.join(field[LIST_KEYS])}`" if LIST_KEYS in field else ""
        return f"list of {field['items']['type']}s ({field[LIST_TYPE]}{merged})"
    return str(field.get("format", field["type"]))


def _bounds(field: Schema) -> str:
    """The bounds in words. The length of a date-time is left out: it is there for the cost of CEL only."""
    shown = _BOUNDS if "format" not in field else ()
    return ", ".join(words.format(f"{field[key]:,}") for key, words in shown if key in field)


def _rules(field: Schema) -> str:
    return "".join(f" *Rule:* {rule['message']}." for rule in field.get(CEL, ()))


def _default(field: Schema, required: bool) -> str:
    if required:
        return "**required**"
    default = field.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def rows(path: str, schema: Schema) -> Iterator[str]:
    """One row of the table for each field below `path`, depth first, in the order of the models."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        inner = field.get("items", field)
        shown = f"{here}[]" if "items" in field else here
        required = name in schema.get("required", ())
        words = field.get("description", "") + _rules(field) + (_rules(inner) if inner is not field else "")
        cells = (f"`{shown}`", _type(field), _default(field, required), _bounds(field), words)
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
        yield from rows(shown, inner)


def section(kind: Kind) -> str:
    """The part of the page about one kind."""
    schema = open_api_schema(kind.model)
    spec, status = (schema["properties"][part] for part in ("spec", "status"))
    lines = [
        f"## {kind.model.__name__}",
        "",
        f"`{kind.plural}`, short `{kind.short_name}`. {schema['description']}{_rules(schema)}",
        "",
        f"### {kind.model.__name__} spec",
        "",
        f"{spec['description']}{_rules(spec)}",
        "",
        _HEAD,
        *rows("spec", spec),
        "",
        f"### {kind.model.__name__} status",
        "",
        status["description"],
        "",
        _HEAD,
        *rows("status", status),
    ]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    intro = f"""<!-- Generated from the models by `make generate`; do not edit. -->
# API reference

All kinds are namespaced, of `{API_VERSION}`; `kubectl get {CATEGORY}` shows them all. Users write `spec`; Tenure writes
`status` and never a `spec`. A rule that is broken is refused by the API server with the words given here. How two
server-side appliers share a list is in its type: `atomic` lists are replaced as a whole, `map` lists are merged by key.

Condition types: {", ".join(f"`{value}`" for value in ConditionType)}.

Reasons: {", ".join(f"`{value}`" for value in Reason)}."""
    return "\n\n".join([intro, *(section(kind) for kind in KINDS)]) + "\n"


def main() -> None:
    """Writes the page into the given file."""
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
