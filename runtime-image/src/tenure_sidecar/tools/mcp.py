"""Tools of an MCP server over Streamable HTTP.

One session for each server, kept by a task of its own that makes a new one after a failure. The SDK is imported by that
task, in a thread: it costs most of a second and some 20 MB, which a session without such a tool should not pay.
"""

import asyncio
import json
import random
from collections.abc import Coroutine, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tenure_api.conditions import Reason
from tenure_api.configuration import McpConfig, ToolConfig
from tenure_api.messages import Wire
from tenure_api.tools import Replay
from tenure_sidecar.http_client import Client, Once
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.tools.attempts import settled
from tenure_sidecar.tools.failure import DownError, ForgottenError, SourceError
from tenure_sidecar.tools.naming import named
from tenure_sidecar.tools.source import Listed, Remember
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome

if TYPE_CHECKING:
    from tenure_sidecar.tools.mcp_session import McpSession

_CONNECT_SECONDS = 15.0
_LIST_SECONDS = 30.0
_END_SECONDS = 0.5
_MOST_CANCELLATIONS = 6
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_MOST_FUNCTIONS = 128
"""Functions that the OpenAI API takes in one request."""
_DESCRIPTION_LIMIT = 4_096


class ListedTool(Wire):
    """A tool as the server lists it."""

    name: str
    description: str = ""
    parameters: Json
    replay: Replay = Replay.NEVER


_LIST = TypeAdapter(list[ListedTool])


class McpTool(Listed):
    """An MCP server."""

    def __init__(
        self,
        tool: ToolConfig,
        config: McpConfig,
        client: Client,
        credentials: Credentials,
        remember: Remember,
        kept: bytes | None,
    ) -> None:
        super().__init__(tool, " ".join((config.url, *sorted(config.include))), remember)
        self._config = config
        self._client = client
        self._credentials = credentials
        self._tools: list[ListedTool] = []
        self._session: McpSession | None = None
        self._tried: asyncio.Future[SourceError | None] | None = None
        self._wanted = asyncio.Event()
        self._failures = 0
        if (learnt := self.recalled(kept)) is not None:
            try:
                self._tools = _LIST.validate_json(learnt)
            except ValidationError:
                self.known.clear()

    def functions(self) -> list[Function]:
        """The functions of the server's tools that are to be offered and can be named."""
        found = {tool.name: tool for tool in self._tools}
        names, _ = named(self.tool.name, found)
        return [
            Function(
                function,
                self.tool,
                found[name].description,
                found[name].parameters,
                self.tool.replay or found[name].replay,
                name,
            )
            for name, function in names.items()
        ]

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Make a call. Raises `ToolFailedError`."""

        async def made(once: Once) -> Outcome:
            session = await self._connected()
            once.sent = True
            try:
                return await session.call(function.target, arguments, attempt.key)
            finally:
                if session.lost.is_set() and self._session is session:
                    self._session = None

        async def once_more(once: Once) -> Outcome:
            try:
                return await made(once)
            except ForgottenError:
                once.sent = False
                return await made(once)

        return await settled(function.replay, attempt, function.tool.timeout_seconds, once_more)

    async def run(self) -> None:
        """Keep a session with the server until cancelled."""
        module = await asyncio.to_thread(import_module, "tenure_sidecar.tools.mcp_session")
        while True:
            self._tried = asyncio.get_running_loop().create_future()
            problem = await _apart(self._serve(module, self._tried))
            if problem is not None:
                self.failed(problem)
            if not self._tried.done():
                self._tried.set_result(problem)
            self._wanted.clear()
            await self._pause(_RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)])
            self._failures += 1

    async def _serve(self, module: ModuleType, tried: "asyncio.Future[SourceError | None]") -> SourceError | None:
        """One session from its beginning to its end; why it ended, if that was a failure."""
        try:
            async with module.connected(self._config, self._client, self._credentials, _CONNECT_SECONDS) as session:
                self._session = session
                tried.set_result(None)
                await self._refresh(session)
                self._failures = 0
                await self._attend(session)
        except SourceError as error:
            return error
        finally:
            self._session = None
        return None

    async def _attend(self, session: "McpSession") -> None:
        """Refresh the list when it is time or the server says so, until the session is lost. Raises `SourceError`."""
        while True:
            seconds = self._config.refresh_seconds * random.uniform(0.8, 1.0)  # noqa: S311 - not all at once
            if await _any_of(seconds, session.lost, session.changed) and session.lost.is_set():
                return
            session.changed.clear()
            await self._refresh(session)

    async def _refresh(self, session: "McpSession") -> None:
        """Raises `SourceError`, and then the session is made anew."""
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                listed = {tool.name: tool for tool in await session.tools()}
        except TimeoutError:
            raise SourceError(Reason.UNREACHABLE, f"{self._config.url} does not list its tools in time") from None
        include = self._config.include
        offered = [name for name in listed if not include or name in include][:_MOST_FUNCTIONS]
        self._tools = [_described(listed[name]) for name in offered]
        await self.learnt(_LIST.dump_json(self._tools), self._shortcoming(list(listed), offered))

    def _shortcoming(self, names: list[str], offered: list[str]) -> SourceError | None:
        """What is wrong with the list."""
        if unclear := named(self.tool.name, offered)[1]:
            return SourceError(Reason.NAME_CONFLICT, f"left out, for they cannot be told apart: {_some(unclear)}")
        if missing := [name for name in self._config.include if name not in names]:
            return SourceError(Reason.INVALID_RESPONSE, f"the server has no tool of these names: {_some(missing)}")
        if not self._config.include and len(names) > _MOST_FUNCTIONS:
            told = f"the server has {len(names)} tools; the first {_MOST_FUNCTIONS} are offered. Use `include`"
            return SourceError(Reason.INVALID_RESPONSE, told)
        return None

    async def _connected(self) -> "McpSession":
        """The session, after one more attempt to make it if there is none. Raises `DownError`."""
        while self._session is None:
            tried = self._tried
            if tried is None or tried.done():
                self._wanted.set()
                await asyncio.sleep(0.01)  # until the task has begun the next attempt
                continue
            problem = await asyncio.shield(tried)
            if problem is not None:
                raise DownError(f"The tool is down: {problem}.")
        return self._session

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, but not while a call waits for it."""
        try:
            async with asyncio.timeout(seconds * random.uniform(0.8, 1.2)):  # noqa: S311 - as above
                await self._wanted.wait()
        except TimeoutError:
            pass


async def _apart(serving: Coroutine[Any, Any, SourceError | None]) -> SourceError | None:
    """Run in a task of its own.

    The SDK's cancel scopes can take a cancellation of the task that they are in for their own, and then it goes on. So
    that task is cancelled again until it has ended.
    """
    task = asyncio.create_task(serving)
    try:
        await asyncio.wait([task])
    finally:
        for _ in range(_MOST_CANCELLATIONS):
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task], timeout=_END_SECONDS)
    return SourceError(Reason.UNREACHABLE, "the connection broke") if task.cancelled() else task.result()


def _described(tool: Any) -> ListedTool:
    """A tool of the SDK as we keep it."""
    hints = tool.annotations
    replay = Replay.NEVER
    if hints is not None and hints.read_only_hint:
        replay = Replay.SAFE
    elif hints is not None and hints.idempotent_hint:
        replay = Replay.IDEMPOTENCY_KEY
    parameters = json.loads(json.dumps(tool.input_schema))
    if parameters.get("type") != "object":
        parameters = {"type": "object", "properties": {}}
    description = (tool.description or tool.title or tool.name)[:_DESCRIPTION_LIMIT]
    return ListedTool(name=tool.name, description=description, parameters=parameters, replay=replay)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:64] for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


async def _any_of(seconds: float, *events: asyncio.Event) -> bool:
    """Wait for any of the events; False if the time is up."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for wait in waits:
            wait.cancel()
