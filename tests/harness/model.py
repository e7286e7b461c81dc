"""What the scripted model has seen."""

import json
from typing import Any

from harness.control import Control


class ScriptedModel(Control):
    """The control side of the scripted model (see `tests/doubles/scripted_model`).

    A call with `tag:TAG` in its last user message comes to the holds `TAG/ROUND/before` and `TAG/ROUND/after`.
    """

    def calls(self, tag: str) -> int:
        """How many model calls carried `tag:<tag>` in their last user message.

        Since the model started, which may be many runs ago: no two runs may use the same tag.
        """
        count: int = self._get("calls", tag=tag)["count"]
        return count

    def refused(self, tag: str | None = None) -> int:
        """How many conversations it refused because their tool calls and results did not fit; with a tag, or all."""
        count: int = self._get("refused", **({} if tag is None else {"tag": tag}))["count"]
        return count


def program(*rounds: Any, final: str | dict[str, Any] = "Done.", tag: str = "") -> str:
    """A user message that makes the scripted model play a program (see `tests/doubles/scripted_model/program.py`).

    Each round is the list of its calls, or `{"say": …, "calls": […], "delay": seconds}`.
    """
    plan = json.dumps({"rounds": list(rounds), "final": final})
    return f"tag:{tag} plan: {plan}" if tag else f"plan: {plan}"


def call(function: str, arguments: dict[str, Any] | str | None = None) -> dict[str, Any]:
    """A call in a program; `arguments` as text need not be JSON."""
    return {"name": function, "arguments": {} if arguments is None else arguments}
