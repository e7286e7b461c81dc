"""Shows a turn of an agent to a person."""

from collections.abc import Iterable
from typing import Any

from tenure_cli.console import Console, safe

_SHOWN = 200
"""Characters of arguments and results that are shown of a call."""

Json = dict[str, Any]


class Screen:
    """Shows a turn. On a terminal as it comes; else only messages that are complete, since one may become void."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.stdout.isatty() and not console.as_json
        self._open = False

    def text(self, delta: str) -> None:
        """See `View`."""
        if self._live:
            self._open = not delta.endswith("\n")
            self._console.write(safe(delta))

    def message(self, text: str) -> None:
        """See `View`."""
        if not self._live and not self._console.as_json:
            self._console.line(text)
        self.finish()

    def void(self) -> None:
        """See `View`."""
        self._aside("(interrupted: the text above is void, the model is asked again)")

    def call(self, item: Json) -> None:
        """See `View`."""
        self._aside(f"→ {described(item['server_label'], item['name'], item['arguments'])}")
        if item["status"] == "incomplete":
            self._aside("  ? interrupted: nobody knows whether it took effect")
        elif item["status"] == "failed":
            self._aside(f"  ✗ {_short(_error_text(item.get('error')))}")
        else:
            self._aside(f"  ← {_short(item.get('output') or '')}")

    def broken(self, why: str) -> None:
        """See `View`."""
        self.finish()
        self._console.note(f"{why} The turn goes on; trying again.")

    def finish(self) -> None:
        """Ends a line that is open."""
        if self._open:
            self._console.write("\n")
            self._open = False

    def _aside(self, text: str) -> None:
        self.finish()
        if self._live:
            self._console.line(self._console.dim(safe(text)))


def message_text(item: Json) -> str:
    """All text of a message."""
    parts: Iterable[Json] = item.get("content") or []
    return "".join(part.get("text", "") for part in parts)


def described(tool: str, function: str, arguments: str, whole: bool = False) -> str:
    """A call for people: whoever is to approve it sees all of it."""
    return f"{tool}.{function}({arguments if whole else _short(arguments)})"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _error_text(error: Any) -> str:
    content = error.get("content") if isinstance(error, dict) else None
    return " ".join(part.get("text", "") for part in content) if content else str(error or "failed")
