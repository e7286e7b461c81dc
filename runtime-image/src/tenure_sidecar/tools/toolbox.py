"""All tools of the session: follows the configuration, and gives each call to the tool that it is for."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from tenure_api.conditions import Reason
from tenure_api.configuration import CodeConfig, HeaderSource, SessionConfig, ToolConfig
from tenure_api.report import ToolHealth
from tenure_api.tools import Replay
from tenure_sidecar.http_client import Client
from tenure_sidecar.proxy.credentials import CredentialError, Credentials
from tenure_sidecar.tools import code
from tenure_sidecar.tools.agent import AgentTool
from tenure_sidecar.tools.arguments import check, parsed
from tenure_sidecar.tools.attempts import unknown
from tenure_sidecar.tools.exchange import Secrets
from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.http import HttpTool
from tenure_sidecar.tools.mcp import McpTool
from tenure_sidecar.tools.openapi_tool import OpenApiTool
from tenure_sidecar.tools.source import Fixed, Remember, Remembered, Source
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome
from tenure_sidecar.turn import waiting

_READY_SECONDS = 20.0
"""How long a turn waits for a tool that has not been asked for its functions yet: longer than connecting may take."""
_GRACE_SECONDS = 5.0
"""What a call may take beyond its time-out, to say what came of it."""
_BUG_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What the tools need of the session."""

    config: Callable[[], SessionConfig | None]
    credentials: Credentials
    client: Client
    executor: Path
    """Socket of the executor in the workspace container."""
    gateway_token: Path
    """File of the token by which the gateway knows this pod."""
    remember: Remember
    remembered: Remembered


class CodeTool(Fixed):
    """A tool that runs programs."""

    def __init__(self, tool: ToolConfig, config: CodeConfig, executor: Path) -> None:
        super().__init__(tool, code.description(tool), code.PARAMETERS, Replay.NEVER)
        self._runner = code.CodeRunner(executor, config.memory)

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Run a program."""
        return await self._runner.run(arguments, self.tool.timeout_seconds, attempt)


class WaitTool(Fixed):
    """A tool that the turn engine itself is."""

    def __init__(self, tool: ToolConfig) -> None:
        super().__init__(tool, waiting.DESCRIPTION, waiting.PARAMETERS, Replay.SAFE)

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Raises `ToolFailedError`: the engine never asks."""
        raise ToolFailedError("Waiting is no call.")


class Tools:
    """Satisfies `Toolbox`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._seen: list[ToolConfig] | None = None
        self._sources: dict[str, Source] = {}
        self._tasks: dict[Source, asyncio.Task[None]] = {}
        self._calls: Counter[Source] = Counter()
        self._changed = asyncio.Event()

    def functions(self) -> list[Function]:
        """The functions that can be offered now, in the order of the agent's spec. Asks nobody."""
        self._follow()
        return [function for source in self._sources.values() for function in source.functions()]

    def find(self, name: str) -> Function | None:
        """The function of this name."""
        return next((function for function in self.functions() if function.name == name), None)

    async def ready(self) -> None:
        """Wait until every tool has been asked for its functions once, or has had some seconds to answer."""
        self._follow()
        waiting_for = [source.known for source in self._sources.values() if not source.known.is_set()]
        if not waiting_for:
            return
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await asyncio.gather(*(known.wait() for known in waiting_for))
        except TimeoutError:
            for known in waiting_for:
                known.set()  # the next turn does not wait for it again

    async def call(self, function: Function, arguments: str, attempt: Attempt) -> Outcome:
        """Make a call; whatever goes wrong is an outcome."""
        self._follow()
        source = self._sources.get(function.tool.name)
        if source is None:
            return _failed(f"There is no tool {function.tool.name!r} any more.", function, attempt.again)
        self._calls[source] += 1
        try:
            values = parsed(arguments)
            if function.tool.mcp is None:
                check(values, function.parameters)
            async with asyncio.timeout(function.tool.timeout_seconds + _GRACE_SECONDS):
                outcome = await source.call(function, values, attempt)
            return replace(outcome, text=outcome.text.encode(errors="replace").decode())
        except ToolFailedError as error:
            return _failed(str(error), function, attempt.again)
        except Exception:
            log.exception("a bug ended a call of the tool %s", function.tool.name)
            return _failed("The call failed because of an internal error.", function, begun=True)
        finally:
            self._calls[source] -= 1
            self._changed.set()

    def health(self) -> list[ToolHealth]:
        """The tools with a problem."""
        self._follow()
        problems = (self._uncredentialed(source.tool) or source.problem() for source in self._sources.values())
        return [problem for problem in problems if problem is not None]

    def wake(self) -> None:
        """The configuration may have changed."""
        self._follow()

    async def run(self) -> None:
        """Keep the lists of functions up to date until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    self._follow()
                    self._attend(group)
                    if self._sources:
                        await asyncio.to_thread(import_module, "jsonschema")  # before a call waits for it
                    await self._changed.wait()
        finally:
            self._tasks.clear()

    def _follow(self) -> None:
        """Have a source for each tool of the configuration; one whose tool has not changed stays."""
        config = self._around.config()
        tools = config.tools if config is not None else []
        if tools is self._seen:
            return
        self._seen = tools
        before, self._sources = self._sources, {}
        kept = self._around.remembered()
        for tool in tools:
            old = before.get(tool.name)
            unchanged = old is not None and old.tool == tool
            self._sources[tool.name] = old if old is not None and unchanged else self._made(tool, kept.get(tool.name))
        self._changed.set()

    def _attend(self, group: asyncio.TaskGroup) -> None:
        """Let every source run; end those that are gone, once their last call has ended."""
        present = set(self._sources.values())
        for source in present - self._tasks.keys():
            self._tasks[source] = group.create_task(_run(source))
        for source in self._tasks.keys() - present:
            if not self._calls[source]:
                self._tasks.pop(source).cancel()
                del self._calls[source]

    def _made(self, tool: ToolConfig, kept: bytes | None) -> Source:
        around = self._around
        if tool.mcp is not None:
            return McpTool(tool, tool.mcp, around.client, around.credentials, around.remember, kept)
        if tool.http is not None and tool.http.document:
            return OpenApiTool(tool, tool.http, around.client, around.credentials, around.remember, kept)
        if tool.http is not None:
            return HttpTool(tool, tool.http, around.client, around.credentials)
        if tool.agent is not None:
            return AgentTool(tool, tool.agent, around.client, self._gateway_url, around.gateway_token)
        return CodeTool(tool, tool.code, around.executor) if tool.code is not None else WaitTool(tool)

    def _gateway_url(self) -> str:
        config = self._around.config()
        return config.gateway_url if config is not None else ""

    def _uncredentialed(self, tool: ToolConfig) -> ToolHealth | None:
        try:
            Secrets.of(_headers(tool), self._around.credentials)
        except CredentialError as error:
            return ToolHealth(name=tool.name, reason=Reason.CREDENTIAL_MISSING, message=str(error))
        return None


def _headers(tool: ToolConfig) -> list[HeaderSource]:
    if tool.mcp is not None:
        return tool.mcp.headers
    return tool.http.headers if tool.http is not None else []


def _failed(why: str, function: Function, begun: bool) -> Outcome:
    """What a call came to that has no answer. `begun` says that it, or an attempt before, may have had effect."""
    return unknown(why) if begun and function.replay is not Replay.SAFE else Outcome(why, is_error=True)


async def _run(source: Source) -> None:
    """Let a source run. A bug in one must end neither the others nor the session."""
    while True:
        try:
            await source.run()
        except Exception:
            log.exception("a bug ended the upkeep of the tool %s", source.tool.name)
            source.known.set()
            await asyncio.sleep(_BUG_SECONDS)
        else:
            return
