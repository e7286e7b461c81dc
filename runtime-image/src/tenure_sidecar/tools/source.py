"""What the toolbox knows of the kinds of tools."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from pydantic import ValidationError

from tenure_api.configuration import ToolConfig
from tenure_api.messages import Wire
from tenure_api.report import ToolHealth
from tenure_api.tools import Replay
from tenure_sidecar.errors import SidecarError
from tenure_sidecar.tools.failure import SourceError
from tenure_sidecar.tools.tool import Attempt, Function, Json, Outcome

Remember = Callable[[str, bytes], Awaitable[None]]
"""Keeps what was last known of the functions of a tool, by its name, for the next process. May raise `JournalError`."""
Remembered = Callable[[], Mapping[str, bytes]]
"""What was kept, by name of the tool."""

log = logging.getLogger(__name__)


class Source(Protocol):
    """One tool of the agent's spec."""

    tool: ToolConfig
    known: asyncio.Event
    """Set when its functions are known, or it was found that they cannot be known now."""

    def functions(self) -> list[Function]:
        """Its functions, as far as they are known."""

    def problem(self) -> ToolHealth | None:
        """Why they are not all known or cannot be called."""

    async def call(self, function: Function, arguments: Json, attempt: Attempt) -> Outcome:
        """Make a call, within the tool's time-out. Raises `ToolFailedError`."""

    async def run(self) -> None:
        """Keep the functions up to date until cancelled, or return at once if they never change."""


class Fixed:
    """The part of a source with one function, which its configuration tells all about."""

    def __init__(self, tool: ToolConfig, description: str, parameters: Json, replay: Replay) -> None:
        self.tool = tool
        self.known = asyncio.Event()
        self.known.set()
        self._function = Function(tool.name, tool, tool.description or description, parameters, tool.replay or replay)

    def functions(self) -> list[Function]:
        """The one function."""
        return [self._function]

    def problem(self) -> ToolHealth | None:
        """None: nothing needs to be found out."""
        return None

    async def run(self) -> None:
        """Nothing changes."""


class Learnt(Wire):
    """What was found out of a tool, as it is kept. `place` is where; of another place it says nothing."""

    place: str
    what: bytes


class Listed:
    """The part of a source whose functions are found out from somewhere, and may be kept for the next process."""

    def __init__(self, tool: ToolConfig, place: str, remember: Remember) -> None:
        self.tool = tool
        self.known = asyncio.Event()
        self._place = place
        self._remember = remember
        self._kept: bytes | None = None
        self._problem: ToolHealth | None = None

    def problem(self) -> ToolHealth | None:
        """Why the functions are not all known."""
        return self._problem

    def recalled(self, kept: bytes | None) -> bytes | None:
        """What an earlier process found out at the same place."""
        if kept is None:
            return None
        try:
            learnt = Learnt.model_validate_json(kept)
        except ValidationError:
            return None
        if learnt.place != self._place:
            return None
        self._kept = learnt.what
        self.known.set()
        return learnt.what

    async def learnt(self, what: bytes, problem: SourceError | None = None) -> None:
        """Something was found out, though perhaps not all."""
        self._set(problem)
        if what == self._kept:
            return
        try:
            await self._remember(self.tool.name, Learnt(place=self._place, what=what).model_dump_json().encode())
        except SidecarError as error:
            log.warning("the functions of the tool %s cannot be kept: %s", self.tool.name, error)
        else:
            self._kept = what

    def failed(self, error: SourceError) -> None:
        """Nothing could be found out now; what was known before stays."""
        if self._problem is None or self._problem.message != str(error):
            log.warning("tool %s: %s", self.tool.name, error)
        self._set(error)

    def _set(self, problem: SourceError | None) -> None:
        self._problem = (
            ToolHealth(name=self.tool.name, reason=problem.reason, message=str(problem))
            if problem is not None
            else None
        )
        self.known.set()
