"""Tools that do what a test says."""

import asyncio
from collections.abc import Awaitable, Callable

from tenure_api.configuration import ToolConfig, WaitConfig
from tenure_api.report import ToolHealth
from tenure_api.tools import Replay
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome
from tenure_sidecar.turn import waiting

Deed = Callable[[str, Attempt], Awaitable[Outcome]]
ANYTHING: Json = {"type": "object"}


async def echo(arguments: str, attempt: Attempt) -> Outcome:
    return Outcome(f"did {arguments}")


class FakeTools:
    """A toolbox whose calls are deeds of the test, and which remembers them."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._deeds: dict[str, Deed] = {}
        self.calls: list[tuple[str, str, Attempt]] = []

    def add(self, name: str, deed: Deed = echo, replay: Replay = Replay.NEVER, approval: bool = False) -> None:
        self._functions[name] = Function(
            name, ToolConfig(name=name, approval=approval, max_result_bytes=1024), "A tool.", ANYTHING, replay
        )
        self._deeds[name] = deed

    def add_wait(self, name: str = "wait_until", most: int = 3600) -> None:
        tool = ToolConfig(name=name, wait=WaitConfig(max_seconds=most))
        self._functions[name] = Function(name, tool, waiting.DESCRIPTION, waiting.PARAMETERS, Replay.SAFE)

    def made(self, name: str) -> list[str]:
        """The arguments of all calls of a function."""
        return [arguments for called, arguments, _ in self.calls if called == name]

    # --- Toolbox ---

    def functions(self) -> list[Function]:
        return list(self._functions.values())

    def find(self, name: str) -> Function | None:
        return self._functions.get(name)

    async def call(self, function: Function, arguments: str, attempt: Attempt) -> Outcome:
        self.calls.append((function.name, arguments, attempt))
        return await self._deeds[function.name](arguments, attempt)

    def health(self) -> list[ToolHealth]:
        return []

    async def ready(self) -> None:
        pass

    def wake(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()
