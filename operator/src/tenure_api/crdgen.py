"""Renders the pydantic models as CustomResourceDefinitions with structural schemas.

`python -m tenure_api.crdgen DIRECTORY...` writes one file for each kind into each directory. What differs from plain
JSON schema follows the Kubernetes documentation of structural schemas and KEP-2876:
references are inlined; an optional field is one that may be absent, never null; enums keep no title; fields of models
with only defaulted fields get an object default, so that their own defaults apply.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tenure_api.agent import Agent
from tenure_api.conditions import ConditionType
from tenure_api.markers import CEL, FREE, LIST_KEYS, LIST_TYPE, Resource
from tenure_api.names import GROUP, VERSION
from tenure_api.policy import MemoryPolicy
from tenure_api.session import AgentSession

Schema = dict[str, Any]

CATEGORY = "tenure"
"""`kubectl get tenure` shows all kinds. Never the name of one of the kinds: kubectl reads a category first, so with
`agents` here `kubectl get agents NAME` fails and `kubectl delete agents --all` deletes sessions and policies too."""

_KEPT = (
    "type",
    "format",
    "description",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    CEL,
    LIST_TYPE,
    LIST_KEYS,
    FREE,
)
_MAX_DATE_TIME = 64


@dataclass(frozen=True)
class Kind:
    """One custom resource and how kubectl shows it."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[tuple[str, str, str], ...]
    """Name, type and JSON path of each printer column."""
    wide: tuple[tuple[str, str, str], ...]
    """Columns that `kubectl get -o wide` adds."""


def _condition(type_: ConditionType, path: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{path}'


def _ready(path: str) -> str:
    return _condition(ConditionType.READY, path)


KINDS = (
    Kind(
        Agent,
        "agents",
        "ag",
        (
            ("Model", "string", ".spec.model.name"),
            ("Ready", "string", _ready("status")),
            ("Reason", "string", _ready("reason")),
            ("Sessions", "integer", ".status.sessions.total"),
            ("Running", "integer", ".status.sessions.running"),
            ("Warm", "integer", ".status.warmPool.ready"),
            ("Policy", "string", ".spec.memoryPolicyRef.name"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        (("Message", "string", _ready("message")),),
    ),
    Kind(
        AgentSession,
        "agentsessions",
        "ags",
        (
            ("Agent", "string", ".spec.agentRef.name"),
            ("Ready", "string", _ready("status")),
            ("Reason", "string", _ready("reason")),
            ("Mode", "string", ".status.effectiveMode"),
            ("Waiting", "string", _condition(ConditionType.TURN_SUSPENDED, "reason")),
            ("Turns", "integer", ".status.turns"),
            ("Last-Activity", "date", ".status.lastActivityTime"),
            ("Expires", "string", ".spec.expiresAt"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        (
            ("Subject", "string", ".spec.subject"),
            ("Pod", "string", ".status.podName"),
            ("Parent", "string", ".status.lineage.parent"),
            ("Message", "string", _ready("message")),
        ),
    ),
    Kind(
        MemoryPolicy,
        "memorypolicies",
        "mp",
        (
            ("Ready", "string", _ready("status")),
            ("Reason", "string", _ready("reason")),
            ("Agents", "integer", ".status.agents"),
            ("Sessions", "integer", ".status.sessions.total"),
            ("Up-To-Date", "integer", ".status.sessions.current"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        (("Message", "string", _ready("message")),),
    ),
)


def structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """One node of a JSON schema by pydantic as a node of a structural schema."""
    node = dict(schema)
    if "$ref" in node:
        target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
        rules = [*target.get(CEL, ()), *node.get(CEL, ())]
        node = {**target, **node, **({CEL: rules} if rules else {})}
    if "anyOf" in node:
        options = [option for option in node.pop("anyOf") if option != {"type": "null"}]
        if len(options) != 1:
            raise ValueError(f"a structural schema has no unions: {options}")
        node = structural({**options[0], **node}, definitions)
        node.pop("default", None)
        return node
    if "$ref" in node:
        return structural(node, definitions)
    kept = {key: node[key] for key in _KEPT if key in node}
    if "properties" in node:
        required = node.get("required", ())
        kept["properties"] = {
            name: _filled(structural(field, definitions), name in required or "anyOf" in field)
            for name, field in node["properties"].items()
        }
    if "items" in node:
        kept["items"] = structural(node["items"], definitions)
        kept["items"].pop("default", None)
    if kept.get("format") == "date-time":
        kept["maxLength"] = _MAX_DATE_TIME
    if kept.get("default") is None or kept.get("default") == []:
        kept.pop("default", None)
    return kept


def _filled(field: Schema, required_or_optional: bool) -> Schema:
    """A field that gets a default `{}` if pydantic would make the object and there are defaults inside of it.

    The API server fills in what is inside of an object only if the object itself is there.
    """
    if not required_or_optional and any("default" in inner for inner in field.get("properties", {}).values()):
        field["default"] = {}
    return field


def open_api_schema(model: type[Resource]) -> Schema:
    """The structural schema of a kind."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema = structural(raw, raw.get("$defs", {}))
    schema["properties"]["status"]["default"] = {"observedGeneration": -1}  # a fresh object is not Current for kstatus
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"`{GROUP}/{VERSION}`."},
        "kind": {"type": "string", "description": f"`{model.__name__}`."},
        "metadata": {"type": "object"},  # the API server allows no description here
        **schema["properties"],
    }
    schema["required"] = ["spec"]
    return schema


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    name = kind.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": column, "type": type_, "jsonPath": path, **({"priority": 1} if wide else {})}
                        for columns, wide in ((kind.columns, False), (kind.wide, True))
                        for column, type_, path in columns
                    ],
                    "schema": {"openAPIV3Schema": open_api_schema(kind.model)},
                }
            ],
        },
    }


class _Plain(yaml.SafeDumper):
    """Writes shared parts out instead of as anchors, which not every reader of a CRD knows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """The CustomResourceDefinition of a kind as YAML."""
    text: str = yaml.dump(definition(kind), Dumper=_Plain, sort_keys=False, width=120)
    return f"# Generated from the models by `make generate`; do not edit.\n{text}"


def main() -> None:
    """Writes the definitions of all kinds into the given directories."""
    for directory in sys.argv[1:]:
        Path(directory).mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (Path(directory) / f"{kind.plural}.yaml").write_text(render(kind))


if __name__ == "__main__":
    main()
