"""An operation of an OpenAPI 3 document as a function: one flat JSON schema of arguments, and where each one goes.

Pure. Documents come from strangers: whatever one holds, reading it ends, and ends in an operation or a `DocumentError`.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

from pydantic import Field

from tenure_api.messages import Wire
from tenure_sidecar.errors import SidecarError
from tenure_sidecar.tools.exchange import Request
from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.http import filled, plain, query_pairs, with_query
from tenure_sidecar.tools.schemas import Schemas
from tenure_sidecar.tools.tool import Json

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_NOT_OURS = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "cookie", "host", "idempotency-key"}
    | {"transfer-encoding"}
)
"""Headers that are no arguments: OpenAPI itself leaves three out, and the rest are the client's."""
_BODY = "body"
_STYLES = {"path": "simple", "query": "form", "header": "simple"}


class DocumentError(SidecarError):
    """A document that does not describe the operation in a way that can be called."""


class Parameter(Wire):
    """An argument that goes into the path, the query or a header."""

    argument: str
    name: str
    place: Literal["path", "query", "header"]
    explode: bool = False
    as_json: bool = False


class Operation(Wire):
    """An operation that can be called."""

    method: str
    url: str
    """Template with `{name}` in its path."""
    description: str
    arguments: Json
    """JSON schema of an object."""
    parameters: list[Parameter] = Field(default_factory=list)
    body: Literal["none", "members", "argument"] = "none"
    """`members`: all other arguments are the members of the body. `argument`: the argument `body` is the body."""
    body_type: str = ""
    body_required: bool = False


def operation_of(document: Any, url: str, operation_id: str, given: frozenset[str] = frozenset()) -> Operation:
    """The operation of a document that was fetched from `url`. Raises `DocumentError`.

    `given` has the lower-case names of headers that every request has anyway, which are no arguments therefore.
    """
    version = document.get("openapi") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("3."):
        raise DocumentError("the document is not OpenAPI 3: its field 'openapi' must be 3.x")
    schemas = Schemas(document, old=version.startswith("3.0"))
    path, item, method, operation = _found(document, schemas, operation_id)
    try:
        return _read(schemas, (path, item, method, operation), _server(document, item, operation, url), given)
    except RecursionError:
        raise DocumentError("the document is nested too deeply") from None


def request_of(operation: Operation, arguments: Json) -> Request:
    """The request of a call. Raises `ToolFailedError` if an argument cannot be put where it belongs."""
    rest = dict(arguments)
    in_path: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    for parameter in operation.parameters:
        value = rest.pop(parameter.argument, None)
        if value is None:
            continue
        if parameter.place == "query":
            pairs += _in_query(parameter, value)
        elif parameter.place == "header":
            headers.append((parameter.name, _header(parameter, _simple(parameter, value))))
        else:
            in_path[parameter.name] = _simple(parameter, value)
    url = with_query(filled(operation.url, in_path), pairs)
    body = _body(operation, rest)
    if body:
        headers.append(("content-type", operation.body_type))
    return Request(operation.method, url, tuple(headers), body)


def _found(document: Json, schemas: Schemas, operation_id: str) -> tuple[str, Json, str, Json]:
    """Path, path item, method and operation."""
    paths = document.get("paths")
    known: list[str] = []
    for path, raw in paths.items() if isinstance(paths, dict) else ():
        item = schemas.resolved(raw)
        for method in _METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if not isinstance(operation, dict):
                continue
            if operation.get("operationId") == operation_id:
                return str(path), item, method.upper(), operation
            known.append(str(operation.get("operationId", "")))
    some = ", ".join(sorted(name for name in known if name)[:10])
    raise DocumentError(f"the document has no operation {operation_id!r}; it has {some[:500] or 'none with an id'}")


def _server(document: Json, item: Json, operation: Json, url: str) -> str:
    """Base URL, without a slash at its end."""
    for level in (operation, item, document):
        servers = level.get("servers")
        if isinstance(servers, list) and servers and isinstance(servers[0], dict):
            base = str(servers[0].get("url", "/"))
            variables = servers[0].get("variables")
            for name, variable in variables.items() if isinstance(variables, dict) else ():
                default = variable.get("default", "") if isinstance(variable, dict) else ""
                base = base.replace(f"{{{name}}}", str(default))
            break
    else:
        base = "/"
    try:
        joined = urljoin(url, base)
        scheme, host = urlsplit(joined).scheme, urlsplit(joined).hostname
    except ValueError:
        raise DocumentError("the document's server has no valid URL") from None
    if scheme not in ("http", "https") or not host or "{" in joined or "?" in joined or "#" in joined:
        raise DocumentError("the document's server must have an http or https URL without query")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise DocumentError("the document came over https, but its server has an http URL")
    return joined.rstrip("/")


def _read(schemas: Schemas, place: tuple[str, Json, str, Json], base: str, given: frozenset[str]) -> Operation:
    path, item, method, operation = place
    parameters: list[Parameter] = []
    properties: Json = {}
    required: list[str] = []
    for name, where, raw in _parameters(schemas, item, operation):
        parameter = _parameter(name, where, raw, f"{where}_{name}" if name in properties else name, given)
        if parameter is None:
            continue
        parameters.append(parameter)
        properties[parameter.argument] = _described(schemas, raw)
        if raw.get("required") is True or where == "path":
            required.append(parameter.argument)
    template = base + "/" + path.lstrip("/")
    missing = _names_in(template) - {parameter.name for parameter in parameters if parameter.place == "path"}
    if missing:
        raise DocumentError(f"the path has {{{min(missing)}}}, but the operation has no such parameter")
    body = _body_of(schemas, operation, properties, required)
    arguments = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    told = str(operation.get("description") or operation.get("summary") or f"{method} {path}")
    return Operation(method=method, url=template, description=told, arguments=arguments, parameters=parameters, **body)


def _names_in(template: str) -> set[str]:
    return {part.partition("}")[0] for part in template.split("{")[1:]}


def _parameters(schemas: Schemas, item: Json, operation: Json) -> list[tuple[str, str, Json]]:
    """Name, place and definition; those of the operation in place of the path's."""
    found: dict[tuple[str, str], Json] = {}
    for level in (item, operation):
        listed = level.get("parameters")
        for raw in listed if isinstance(listed, list) else ():
            parameter = schemas.resolved(raw)
            if isinstance(parameter, dict) and isinstance(parameter.get("name"), str):
                found[parameter["name"], str(parameter.get("in"))] = parameter
    return [(name, where, parameter) for (name, where), parameter in found.items()]


def _parameter(name: str, where: str, raw: Json, argument: str, given: frozenset[str]) -> Parameter | None:
    """A parameter; None for one that is not needed or that others set. Raises `DocumentError`."""
    if where == "header" and name.lower() in _NOT_OURS | given:
        return None
    if where == "header" and not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
        raise DocumentError(f"{name!r} is no name of a header")
    style = raw.get("style", _STYLES.get(where))
    if where not in ("path", "query", "header") or style != _STYLES[where]:
        if raw.get("required") is True:
            raise DocumentError(f"the parameter {name!r} in {where} with style {style} is not supported")
        return None
    explode = raw.get("explode", where == "query") is True
    as_json = isinstance(raw.get("content"), dict)
    return Parameter(argument=argument, name=name, place=where, explode=explode, as_json=as_json)


def _described(schemas: Schemas, raw: Json) -> Json:
    """The schema of a parameter, with its description."""
    content = raw.get("content")
    inner = next(iter(content.values()), None) if isinstance(content, dict) and content else raw
    schema = schemas.read(inner.get("schema") if isinstance(inner, dict) else None)
    if isinstance(raw.get("description"), str) and "description" not in schema:
        schema = {**schema, "description": raw["description"]}
    return schema


def _body_of(schemas: Schemas, operation: Json, properties: Json, required: list[str]) -> dict[str, Any]:
    """How the body is made. Adds its arguments to the schema. Raises `DocumentError`."""
    body = schemas.resolved(operation.get("requestBody"))
    if not isinstance(body, dict):
        return {}
    needed = body.get("required") is True
    content = body.get("content")
    kinds = [kind for kind in content if _is_json(kind)] if isinstance(content, dict) else []
    if not kinds:
        if needed:
            raise DocumentError("the operation needs a body that is not JSON, which is not supported")
        return {}
    media = content[kinds[0]] if isinstance(content, dict) else None
    schema = schemas.read(media.get("schema") if isinstance(media, dict) else None)
    kind = kinds[0] if "*" not in kinds[0] else "application/json"
    members = schema.get("properties")
    if _is_plain(schema) and isinstance(members, dict) and not (members.keys() & properties.keys()):
        properties.update(members)
        required += [name for name in schema.get("required", []) if name in members] if needed else []
        return {"body": "members", "body_type": kind, "body_required": needed}
    if _BODY in properties:
        raise DocumentError("the operation has a parameter named 'body' besides its body, which is not supported")
    properties[_BODY] = schema
    required += [_BODY] if needed else []
    return {"body": "argument", "body_type": kind, "body_required": needed}


def _is_plain(schema: Json) -> bool:
    """Whether a body's members can be arguments."""
    said = schema.keys() - {"properties", "required", "description", "title"}
    return all((key, schema[key]) in (("type", "object"), ("additionalProperties", False)) for key in said)


def _is_json(kind: Any) -> bool:
    base = kind.partition(";")[0].strip().lower() if isinstance(kind, str) else ""
    return base in ("application/json", "*/*", "application/*") or base.endswith("+json")


def _in_query(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    """By the style `form`."""
    if parameter.as_json:
        return [(parameter.name, json.dumps(value))]
    if isinstance(value, list) and not parameter.explode:
        return [(parameter.name, ",".join(plain(parameter.argument, element) for element in value))]
    if isinstance(value, dict) and parameter.explode:
        return [pair for name, member in value.items() for pair in query_pairs(name, member)]
    if isinstance(value, dict):
        return [(parameter.name, _simple(parameter, value))]
    return query_pairs(parameter.name, value)


def _simple(parameter: Parameter, value: Any) -> str:
    """By the style `simple`."""
    if parameter.as_json:
        return json.dumps(value)
    argument = parameter.argument
    if isinstance(value, list):
        return ",".join(plain(argument, element) for element in value)
    if isinstance(value, Mapping):
        mark = "=" if parameter.explode else ","
        return ",".join(f"{name}{mark}{plain(argument, member)}" for name, member in value.items())
    return plain(argument, value)


def _header(parameter: Parameter, value: str) -> str:
    if not value.isascii() or (value and not value.isprintable()):
        raise ToolFailedError(f"The argument {parameter.argument!r} must be printable ASCII: it goes into a header.")
    return value


def _body(operation: Operation, rest: Json) -> bytes:
    if operation.body == "none":
        return b""
    if operation.body == "argument":
        return json.dumps(rest[_BODY], ensure_ascii=False).encode() if _BODY in rest else b""
    return json.dumps(rest, ensure_ascii=False).encode() if rest or operation.body_required else b""
