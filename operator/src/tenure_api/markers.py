"""Markers for `Annotated[...]` and model configuration, which the CRD renderer turns into Kubernetes' own keywords.

Pydantic carries them as JSON-schema extras, so a model stays an ordinary pydantic model.
Source of the keywords: Kubernetes API conventions and KEP-2876 (CRD validation expressions).
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

CEL = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
FREE = "x-kubernetes-preserve-unknown-fields"


def rule(expression: str, message: str) -> dict[str, str]:
    """One CEL validation; `message` names the fix, since the API server already names the field."""
    return {"rule": expression, "message": message}


def cel(*rules: dict[str, str]) -> Any:
    """Validations for one field, given inside `Annotated`."""
    return Field(json_schema_extra={CEL: [dict(r) for r in rules]})


def immutable(what: str) -> dict[str, str]:
    """The rule that a value is fixed at creation."""
    return rule("self == oldSelf", f"{what} cannot be changed; create a new object instead")


def list_map(*keys: str) -> Any:
    """A list merged by key on server-side apply."""
    return Field(json_schema_extra={LIST_TYPE: "map", LIST_KEYS: [*keys]})


def list_atomic() -> Any:
    """A list replaced as a whole on server-side apply, because its order has meaning."""
    return Field(json_schema_extra={LIST_TYPE: "atomic"})


def list_set() -> Any:
    """A list of different values, merged on server-side apply."""
    return Field(json_schema_extra={LIST_TYPE: "set"})


def free_object() -> Any:
    """An object that the API server keeps as it is."""
    return Field(json_schema_extra={FREE: True})


def free(schema: dict[str, Any]) -> None:
    """The same for a model with fields of its own: `model_config = ConfigDict(json_schema_extra=free)`."""
    schema[FREE] = True


def validated(*rules: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    """A model's validations: `model_config = ConfigDict(json_schema_extra=validated(...))`."""

    def extend(schema: dict[str, Any]) -> None:
        schema[CEL] = list(rules)

    return extend


class Resource(BaseModel):
    """Base of all that is read from custom resources: camelCase outside, unknown fields tolerated.

    Unknown fields are left to the API server, which prunes or refuses them; an older operator must be able to read an
    object that a newer CRD allowed.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")
