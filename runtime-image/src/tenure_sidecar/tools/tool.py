"""What the turn engine knows of tools."""

from dataclasses import dataclass
from typing import Any, Protocol

from tenure_api.configuration import ToolConfig
from tenure_api.report import ToolHealth
from tenure_api.tools import Replay

Json = dict[str, Any]


@dataclass(frozen=True)
class Function:
    """A function that the model may call."""

    name: str
    """As the model knows it, unique within the agent."""
    tool: ToolConfig
    """The tool that it belongs to."""
    description: str
    parameters: Json
    """JSON schema of its arguments, of the type object."""
    replay: Replay
    """What may happen to a call that was interrupted."""
    target: str = ""
    """The tool's own name for it, where that differs."""

    @property
    def definition(self) -> Json:
        """As an entry of `tools` in a chat completion request."""
        described = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": described}


@dataclass(frozen=True)
class Outcome:
    """What came of a call. `text` is what the model is told, not yet cut to the tool's limit."""

    text: str
    is_error: bool = False
    unknown: bool = False
    """Nobody knows whether the call took effect. Then it is an error too."""


@dataclass(frozen=True)
class Attempt:
    """Which call it is that is made."""

    key: str
    """The same whenever this call is made again, and of no other call."""
    turn: str
    step: int
    again: bool = False
    """It was begun before, and nobody knows how far it came."""


class Toolbox(Protocol):
    """All tools of the session."""

    def functions(self) -> list[Function]:
        """The functions that can be offered now, in the order of the agent's spec. Asks nobody."""

    def find(self, name: str) -> Function | None:
        """The function of this name."""

    async def call(self, function: Function, arguments: str, attempt: Attempt) -> Outcome:
        """Make a call; `arguments` is JSON as the model wrote it.

        Raises nothing: whatever goes wrong is an outcome. Takes no longer than the tool's time-out.
        """

    def health(self) -> list[ToolHealth]:
        """The tools with a problem."""

    async def ready(self) -> None:
        """Wait until every tool has been asked for its functions once, or has had some seconds to answer.

        Before the first model call of a turn, so that the first turn of a session is not answered without tools.
        """

    def wake(self) -> None:
        """The configuration may have changed."""

    async def run(self) -> None:
        """Keep the lists of functions up to date until cancelled."""
