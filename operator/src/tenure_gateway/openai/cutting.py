"""Cuts text into deltas, wherever it was cut before: the deltas are a function of the text alone.

A delta ends after a run of whitespace, or after 16 characters that have none. So what is not yet a whole one is held
back, and the numbers of a streamed response's events are the same for everybody who asks, at any time, of any replica.
"""

import re

_MOST = 16
"""Characters of text, and of whitespace after it, in one delta at most."""
_DELTA = re.compile(rf"\S{{{_MOST}}}|\S{{0,{_MOST - 1}}}\s{{1,{_MOST}}}")


class Cutter:
    """Cuts one text, which comes bit by bit."""

    def __init__(self) -> None:
        self._rest = ""

    def more(self, text: str) -> list[str]:
        """The deltas that are whole now."""
        rest = self._rest + text
        # Matches follow one another without a gap: what no match begins with has no whitespace up to its end.
        deltas: list[str] = _DELTA.findall(rest)
        used = sum(map(len, deltas))
        if deltas and used == len(rest) and rest[-1].isspace():
            used -= len(deltas.pop())  # its whitespace may go on
        self._rest = rest[used:]
        return deltas

    def end(self) -> list[str]:
        """The last delta, if there is something left. The text is over."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []
