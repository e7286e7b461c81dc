"""Tools that are one HTTP request: what the model's arguments make of a URL template."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tenure_api.configuration import HttpConfig, ToolConfig
from tenure_api.tools import Replay
from tenure_sidecar.http_client import Client, Once
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.tools.attempts import settled
from tenure_sidecar.tools.exchange import Request, Secrets, exchange, secrets_for_call
from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.source import Fixed
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_WITHOUT_BODY = frozenset({"GET", "DELETE", "HEAD"})
_JSON_BODY = ("content-type", "application/json")


class HttpTool(Fixed):
    """A tool by URL template."""

    def __init__(self, tool: ToolConfig, config: HttpConfig, client: Client, credentials: Credentials) -> None:
        super().__init__(tool, "", config.parameters, default_replay(config.method))
        self._config = config
        self._client = client
        self._credentials = credentials

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Make the request. Raises `ToolFailedError`."""
        request = from_template(self._config, arguments)
        secrets = secrets_for_call(self._config.headers, self._credentials)
        return await requested(self._client, request, secrets, function, attempt)


async def requested(
    client: Client, request: Request, secrets: Secrets, function: Function, attempt: Attempt
) -> Outcome:
    """Make a request as the function's replay class allows. Raises nothing."""
    if function.replay is Replay.IDEMPOTENCY_KEY:
        request = request.with_headers([("idempotency-key", attempt.key)])

    async def once_more(once: Once) -> Outcome:
        if function.replay is Replay.NEVER:
            return await exchange(client, request, secrets, once)
        once.sent = True
        return await exchange(client, request, secrets, None)

    return await settled(function.replay, attempt, function.tool.timeout_seconds, once_more)


def default_replay(method: str) -> Replay:
    """The class of requests of this method, if the agent's spec says none."""
    return Replay.SAFE if method.upper() in ("GET", "HEAD") else Replay.NEVER


def from_template(config: HttpConfig, arguments: Json) -> Request:
    """The request of a call. Raises `ToolFailedError` if an argument cannot be put where it belongs."""
    rest = dict(arguments)
    url = filled(config.url, rest)
    for name in set(_PARAMETER.findall(config.url)):
        rest.pop(name)
    method = config.method.upper()
    if method in _WITHOUT_BODY:
        pairs = [pair for name, value in rest.items() for pair in query_pairs(name, value)]
        return Request(method, with_query(url, pairs))
    return Request(method, url, (_JSON_BODY,), json.dumps(rest, ensure_ascii=False).encode())


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with each `{parameter}` replaced. Raises `ToolFailedError`.

    No value can leave its segment: all that means something in a URL is encoded, and the two names that do so anyway
    are refused.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise ToolFailedError(f"The argument {name!r} is missing.")
        text = plain(name, values[name])
        if text in ("", ".", ".."):
            raise ToolFailedError(f"The argument {name!r} must not be {text!r}: it is a part of the URL's path.")
        return quote(text, safe="")

    return _PARAMETER.sub(value_of, template)


def query_pairs(name: str, value: Any) -> list[tuple[str, str]]:
    """Parameters of a query: none for null, one for each element of an array, the JSON of an object."""
    if isinstance(value, list):
        return [(name, _in_query(name, element)) for element in value if element is not None]
    return [] if value is None else [(name, _in_query(name, value))]


def _in_query(name: str, value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else plain(name, value)


def with_query(url: str, pairs: list[tuple[str, str]]) -> str:
    """The URL with a query."""
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def plain(name: str, value: Any) -> str:
    """A value that is no structure, as text. Raises `ToolFailedError`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    raise ToolFailedError(f"The argument {name!r} must be a string, a number or a boolean.")
