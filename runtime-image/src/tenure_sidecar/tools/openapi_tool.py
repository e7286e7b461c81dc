"""A tool that is an operation of an OpenAPI document, which is read again from time to time."""

import asyncio
import json
import random
from typing import Any

from pydantic import ValidationError

from tenure_api.conditions import Reason
from tenure_api.configuration import HttpConfig, ToolConfig
from tenure_sidecar.http_client import Client
from tenure_sidecar.proxy.credentials import CredentialError, Credentials
from tenure_sidecar.tools.arguments import valid
from tenure_sidecar.tools.exchange import Secrets, fetched, secrets_for_call
from tenure_sidecar.tools.failure import SourceError, ToolFailedError
from tenure_sidecar.tools.http import default_replay, requested
from tenure_sidecar.tools.openapi import DocumentError, Operation, operation_of, request_of
from tenure_sidecar.tools.source import Listed, Remember
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome

_REFRESH_SECONDS = 300.0
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_FETCH_SECONDS = 20.0
_DOCUMENT_LIMIT = 8 * 1024 * 1024
_MOST_DEPTH = 100


class OpenApiTool(Listed):
    """The tool."""

    def __init__(
        self,
        tool: ToolConfig,
        config: HttpConfig,
        client: Client,
        credentials: Credentials,
        remember: Remember,
        kept: bytes | None,
    ) -> None:
        super().__init__(tool, f"{config.document} {config.operation}", remember)
        self._config = config
        self._client = client
        self._credentials = credentials
        self._operation: Operation | None = None
        if (learnt := self.recalled(kept)) is not None:
            try:
                self._operation = Operation.model_validate_json(learnt)
            except ValidationError:
                self.known.clear()

    def functions(self) -> list[Function]:
        """The one function, once the document was read."""
        operation, tool = self._operation, self.tool
        if operation is None:
            return []
        replay = tool.replay or default_replay(operation.method)
        return [Function(tool.name, tool, tool.description or operation.description, operation.arguments, replay)]

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Make the request. Raises `ToolFailedError`."""
        if self._operation is None:
            raise ToolFailedError("The tool cannot be called: its OpenAPI document was not read yet.")
        request = request_of(self._operation, arguments)
        secrets = secrets_for_call(self._config.headers, self._credentials)
        return await requested(self._client, request, secrets, function, attempt)

    async def run(self) -> None:
        """Read the document again and again."""
        failures = 0
        while True:
            try:
                self._operation = await self._read()
            except SourceError as error:
                self.failed(error)
                seconds = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
            else:
                await self.learnt(self._operation.model_dump_json().encode())
                seconds, failures = _REFRESH_SECONDS, 0
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all ask at once

    async def _read(self) -> Operation:
        """Raises `SourceError`."""
        config = self._config
        try:
            secrets = Secrets.of(config.headers, self._credentials)
            text = await fetched(self._client, config.document, secrets, _DOCUMENT_LIMIT, _FETCH_SECONDS)
            given = frozenset(header.name.lower() for header in config.headers)
            return await asyncio.to_thread(_parsed, text, config, given)
        except CredentialError as error:
            raise SourceError(Reason.CREDENTIAL_MISSING, str(error)) from error
        except ToolFailedError as error:
            raise SourceError(Reason.UNREACHABLE, f"the OpenAPI document cannot be read: {error}") from error
        except DocumentError as error:
            raise SourceError(Reason.INVALID_RESPONSE, f"{config.document}: {error}") from error


def _parsed(text: bytes, config: HttpConfig, given: frozenset[str]) -> Operation:
    """Blocks. Raises `DocumentError`."""
    operation = operation_of(loaded(text), config.document, config.operation, given)
    if not valid(operation.arguments):
        raise DocumentError(f"the schema of the operation {config.operation!r} is not valid")
    return operation


def loaded(text: bytes) -> Any:
    """A document in JSON or YAML. Raises `DocumentError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    import yaml  # here, for only some of the sessions need it

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Leaves dates as they are written: JSON has none."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    depth = 0
    try:
        for event in yaml.parse(text, Loader):  # the C part recurses without a limit, to the end of its stack
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_DEPTH:
                raise DocumentError("the document is nested too deeply")
        return yaml.load(text, Loader)  # noqa: S506 - it is a safe loader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise DocumentError("the document is neither JSON nor YAML") from None
