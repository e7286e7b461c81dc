"""Where the command writes: results to stdout, all that is said about the work to stderr."""

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

_PROGRESS_SECONDS = 0.5
"""Between two lines of progress."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_UNSEEN = ("Cc", "Cf", "Co", "Cs")
"""Control characters, invisible ones and those that turn the direction of writing."""
_DIM, _BOLD, _PLAIN = "\033[2m", "\033[1m", "\033[0m"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def safe(text: str) -> str:
    """The text without what a terminal would obey: it comes from a model, and a person decides by what they see."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _UNSEEN)


@dataclass
class Console:
    """The three streams. `as_json`: results are JSON, one document for a command."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    as_json: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a person is there who reads what is written and can answer."""
        return self.stdin.isatty() and self.stdout.isatty()

    def write(self, text: str) -> None:
        """A part of the result, at once."""
        self.stdout.write(text)
        self.stdout.flush()

    def line(self, text: str) -> None:
        """A line of the result."""
        self.write(f"{text}\n")

    def result(self, document: Any, text: str) -> None:
        """The result: the document as JSON, or the text."""
        shown = safe(text) if self.stdout.isatty() else text
        self.line(json.dumps(document, indent=2, ensure_ascii=False) if self.as_json else shown)

    def note(self, text: str) -> None:
        """Something about the work, which is no part of the result."""
        self.stderr.write(f"{safe(text)}\n")
        self.stderr.flush()

    def dim(self, text: str) -> str:
        """The text, set back, where that can be shown."""
        return f"{_DIM}{text}{_PLAIN}" if self.stdout.isatty() else text

    def bold(self, text: str) -> str:
        """The text, set forth, where that can be shown."""
        return f"{_BOLD}{text}{_PLAIN}" if self.stdout.isatty() else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, as kubectl shows them."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


class Progress:
    """Says on stderr how much of long work is done: on a terminal in one line that changes, else in a new one."""

    def __init__(
        self, console: Console, what: str, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stderr = console.stderr
        self._rewrites = console.stderr.isatty()
        self._what = what
        self._total = total
        self._clock = clock
        self._every = _PROGRESS_SECONDS if self._rewrites else 10 * _PROGRESS_SECONDS
        self._next = clock() + self._every
        self._done = 0
        self._shown = False

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self._done += count
        if self._clock() >= self._next:
            self._next = self._clock() + self._every
            self._show()

    def end(self) -> None:
        """The work is over, well or not."""
        if self._shown and self._rewrites:
            self._stderr.write("\n")
            self._stderr.flush()

    def _show(self) -> None:
        self._shown = True
        of_all = f" of {size(self._total)}" if self._total else ""
        text = f"{self._what}: {size(self._done)}{of_all}"
        self._stderr.write(f"\r\033[K{text}" if self._rewrites else f"{text}\n")
        self._stderr.flush()
