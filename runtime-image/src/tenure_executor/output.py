"""What a call writes: bounded in memory, in the answer and on the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHOWN_BYTES = 1 << 20
"""Output up to this is in the answer: the most that a model can be shown, whatever its tool's `maxResultBytes`."""
HEAD_BYTES, TAIL_BYTES = 16 << 10, 8 << 10
"""What is shown of a longer one."""
KEPT_BYTES = 64 << 20
"""What is kept of it in a file."""


class Output:
    """What a call has written: all of it up to `SHOWN_BYTES`; else its beginning and end, and a file with the whole."""

    def __init__(self, path: Path) -> None:
        """`path` is where a long output is kept."""
        self._path = path
        self._first = bytearray()
        self._last = b""
        self._size = self._kept = 0
        self._file: Any = None
        self._problem = ""

    def add(self, data: bytes) -> None:
        """Takes what was read."""
        self._size += len(data)
        if self._size <= SHOWN_BYTES:
            self._first += data
            return
        if not self._last:
            self._keep(bytes(self._first))
            self._last = bytes(self._first[-TAIL_BYTES:])
            del self._first[HEAD_BYTES:]
        self._keep(data)
        self._last = (self._last + data)[-TAIL_BYTES:]

    def _keep(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._path.parent.mkdir(exist_ok=True)
                self._file = self._path.open("wb", buffering=0)
            while data and not self._problem and self._kept < KEPT_BYTES:
                written = self._file.write(data[: KEPT_BYTES - self._kept])
                self._kept, data = self._kept + written, data[written:]
        except OSError as error:
            self._problem = str(error.strerror)

    def text(self) -> str:
        """What to show. Closes the file."""
        if self._file:
            self._file.close()
        if not self._last:
            return self._first.decode(errors="replace")
        left_out = self._size - len(self._first) - len(self._last)
        note = f"\n[... {left_out} bytes left out; {self._where()} ...]\n"
        return self._first.decode(errors="replace") + note + self._last.decode(errors="replace")

    def _where(self) -> str:
        if self._kept == self._size:
            return f"{self._path} has all {self._size} bytes"
        if self._problem:
            return f"not all could be kept in {self._path}: {self._problem}"
        return f"{self._path} has the first {self._kept} of all {self._size} bytes"
