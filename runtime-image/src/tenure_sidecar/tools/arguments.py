"""The arguments of a call: what the model wrote, checked against the function's schema.

What is wrong is said so that the model can mend it. `jsonschema` is imported only where there are tools.
"""

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.tool import Json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]
    from jsonschema.protocols import Validator  # type: ignore[import-untyped]

_MESSAGE_LIMIT = 500
_MOST_PROBLEMS = 5


def parsed(text: str) -> Json:
    """The arguments of a call. Raises `ToolFailedError`. Nothing at all means none."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ToolFailedError("The arguments hold half of a surrogate pair, which is no character.") from None
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, json.JSONDecodeError) else "it holds a number or a depth that is none"
        raise ToolFailedError(f"The arguments are not valid JSON: {said}. Call again with a JSON object.") from None
    if not isinstance(value, dict):
        raise ToolFailedError(f"The arguments must be a JSON object, not {_kind(value)}.")
    return value


def valid(schema: Json) -> bool:
    """Whether it is a JSON schema."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        validator_for(schema).check_schema(schema)
    except (SchemaError, RecursionError, re.error):
        return False
    return True


def check(arguments: Json, schema: Json) -> None:
    """Raises `ToolFailedError` that names each argument that does not fit the schema, and what is wanted."""
    from jsonschema.exceptions import SchemaError, best_match
    from referencing.exceptions import Unresolvable

    try:
        problems = list(_validator(json.dumps(schema)).iter_errors(arguments))
        best = [best_match([problem]) for problem in problems[:_MOST_PROBLEMS]]
    except (SchemaError, Unresolvable, RecursionError, re.error) as error:
        raise ToolFailedError(f"The tool's schema is not valid ({type(error).__name__}); tell the user.") from None
    if best:
        told = "; ".join(dict.fromkeys(_told(problem) for problem in best if problem is not None))
        raise ToolFailedError(f"The arguments do not fit: {told}. Call again with arguments that do.")


@lru_cache(maxsize=128)
def _validator(schema: str) -> "Validator":
    """Kept, for looking at the schema itself takes thirty times as long as looking at arguments."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    read = json.loads(schema)
    kind = validator_for(read)
    kind.check_schema(read)
    # A registry of its own, for the default one fetches what a $ref names from the network.
    made: Validator = kind(read, registry=Registry())
    return made


def _told(problem: "ValidationError") -> str:
    path = ".".join(str(part) for part in problem.absolute_path)
    return f"{f'argument {path!r}' if path else 'the arguments'}: {_wanted(problem)}"


def _wanted(problem: "ValidationError") -> str:
    """What is wanted; without the value, which the model knows and which may be long."""
    keyword, wanted = problem.validator, problem.validator_value
    if keyword == "type":
        return f"must be {' or '.join(wanted) if isinstance(wanted, list) else wanted}, not {_kind(problem.instance)}"
    if keyword == "enum":
        return f"must be one of {_short(json.dumps(wanted, default=str))}"
    if keyword in ("required", "additionalProperties", "dependentRequired"):
        return _short(problem.message)
    return f"must have {keyword} {_short(json.dumps(wanted, default=str))}"


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "…"


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    kinds = ((bool, "boolean"), (int, "number"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
