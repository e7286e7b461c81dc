"""Reads the JSON body of a request, field by field; what is wrong becomes an error that names the field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core

from tenure_gateway.openai.errors import ApiError, Json, invalid, unsupported

MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
"""OpenAI's documented limits of `metadata`."""


@dataclass(frozen=True)
class Unsupported:
    """A parameter of OpenAI's that does nothing here: these values of it, besides null, ask for nothing."""

    advice: str
    harmless: tuple[Any, ...] = ()


def parse(data: bytes) -> Json:
    """The JSON object in the body.

    Raises `ApiError` also for NaN, lone surrogates and deep nesting, which Python's own parser would let through.
    """
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"The body is not valid JSON: {error}.", None, "invalid_json") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.", None, "invalid_type")
    return value


def refuse_others(
    body: Json, known: frozenset[str], without_effect: Mapping[str, Unsupported], hints: frozenset[str]
) -> None:
    """Refuses what would be ignored: unsupported parameters that ask for something, and unknown ones.

    `hints` are parameters that never change an answer, so that any value of them is as good as none.
    """
    for name, value in body.items():
        if name in known or name in hints or value is None:
            continue
        rule = without_effect.get(name)
        if rule is None:
            raise invalid(f"Unknown parameter: '{name}'. Leave it out.", name, "unknown_parameter")
        if value not in rule.harmless:
            raise unsupported(name, rule.advice)


def wrong_type(param: str, wanted: str) -> ApiError:
    """A field has the wrong type."""
    return invalid(f"'{param}' must be {wanted}.", param, "invalid_type")


def text(body: Json, name: str) -> str | None:
    """A text that may be left out."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a string")
    return value


def flag(body: Json, name: str, default: bool) -> bool:
    """A boolean that may be left out."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong_type(name, "true or false")
    return value


def number(body: Json, name: str, most: float) -> float | None:
    """A number from 0 to `most` that may be left out."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a number")
    if not 0 <= value <= most:
        raise invalid(f"'{name}' must be from 0 to {most:g}.", name)
    return float(value)


def count(body: Json, name: str) -> int | None:
    """A number of tokens that may be left out."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "a whole number")
    if not 1 <= value <= 10_000_000:
        raise invalid(f"'{name}' must be from 1 to 10000000.", name)
    return value


def metadata(body: Json) -> dict[str, str]:
    """The metadata, within OpenAI's limits; empty if left out."""
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type("metadata", "an object of strings")
    if len(value) > MAX_METADATA:
        raise invalid(f"'metadata' must have at most {MAX_METADATA} keys.", "metadata")
    for key, entry in value.items():
        if not isinstance(entry, str):
            raise wrong_type(f"metadata.{key}", "a string")
        if len(key) > MAX_METADATA_KEY or len(entry) > MAX_METADATA_VALUE:
            message = f"Keys of 'metadata' have at most {MAX_METADATA_KEY} characters, values {MAX_METADATA_VALUE}."
            raise invalid(message, f"metadata.{key[:MAX_METADATA_KEY]}")
    return value
