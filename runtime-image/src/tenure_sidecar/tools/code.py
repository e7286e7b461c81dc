"""The `code` tool: Python and shell in the workspace container.

The executor there (see `tenure_executor`) says `started` before it runs anything, so that what surely was not run is
told from what may have been. Whoever runs code in that container can also speak in the executor's name: what comes from
there is bounded and believed for nothing but the result of the call.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tenure_api.configuration import ToolConfig
from tenure_sidecar.tools.failure import DownError, ToolFailedError, UnansweredError
from tenure_sidecar.tools.tool import Attempt, Json, Outcome
from tenure_sidecar.workspace.files import RESULTS

PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "language": {"type": "string", "enum": ["python", "shell"], "description": "What the code is written in."},
        "code": {"type": "string", "description": "The whole program. What it prints is the result."},
    },
    "required": ["language", "code"],
    "additionalProperties": False,
}

_RESTART_SECONDS = 15.0
"""How long a container that restarts is waited for."""
_PAUSE_SECONDS = 0.1
_GRACE_SECONDS = 3.0
"""How much longer than the code may run its end is waited for, which tells what it printed."""
_LONGEST_LINE = 8 << 20
"""More than the executor ever sends: 1 MiB of output, at most six bytes for one."""
_KILL = 9


def description(tool: ToolConfig) -> str:
    """What the model is told of the tool."""
    memory = f" and {tool.code.memory} of memory" if tool.code and tool.code.memory else ""
    return (
        "Runs a program and returns what it prints (stdout and stderr). It starts in /workspace. Files there are kept "
        "for later calls and later turns. Nothing else is: every call is a new process, without the variables, "
        f"processes and files in /tmp of the one before. A call has {tool.timeout_seconds} seconds{memory}; it may "
        "have no network."
    )


class CodeRunner:
    """The client of the executor. One call runs at a time; others wait, and that is part of their time."""

    def __init__(self, socket: Path, memory: str = "") -> None:
        """`memory` is the container's limit as a quantity, for messages."""
        self._socket = socket
        self._limit = f" of {memory}" if memory else ""
        self._turn = asyncio.Lock()

    async def run(self, arguments: Json, timeout: float, attempt: Attempt) -> Outcome:
        """Run a program for `timeout` seconds at most; `arguments` fit `PARAMETERS`. Raises nothing."""
        end = asyncio.get_running_loop().time() + timeout
        call = _Call(self._socket, arguments, attempt, end)
        try:
            async with asyncio.timeout_at(end + _GRACE_SECONDS), self._turn, call.begun() as answers:
                return self._outcome(await _line(answers))
        except TimeoutError:
            if call.sent:
                return Outcome(f"No answer came within {timeout:g} seconds.", is_error=True, unknown=True)
            return Outcome("The code was not run: its time went by before its turn came.", is_error=True)
        except (OSError, EOFError, ValueError, TypeError, LookupError, RecursionError, UnansweredError):
            lost = "The container ended while the code ran, most likely because it reached its memory limit"
            text = f"{lost}{self._limit}. What the code had done until then is done."
            return Outcome(text, is_error=True, unknown=True)
        except ToolFailedError as error:
            return Outcome(str(error), is_error=True)

    def _outcome(self, ended: Json) -> Outcome:
        """Raises `LookupError`, `TypeError` or `ValueError` for what no executor says."""
        if "error" in ended:
            return Outcome(f"The code could not be run: {ended['error']}.", is_error=True)
        output, remark = str(ended["output"]), self._remark(ended)
        if remark or not output:
            gap = "\n" if output and not output.endswith("\n") else ""
            # One that was killed from outside may have done all or nothing of what it was to do.
            killed = ended["stopped"] is None and ended["signal"] == _KILL
            return Outcome(f"{output}{gap}[{remark or 'No output.'}]", is_error=bool(remark), unknown=killed)
        return Outcome(output)

    def _remark(self, ended: Json) -> str:
        """What else is to be said; nothing if all went well."""
        seconds, killer = float(ended["seconds"]), ended["signal"]
        if ended["stopped"] == "timeout":
            return f"Stopped after {seconds:.1f} seconds, which is as long as a call may take."
        if ended["stopped"] == "disk":
            return "Stopped: the disk is full. Delete files in /workspace before anything else."
        if killer is not None and int(killer) == _KILL:
            why = f"because the memory limit{self._limit} was reached, or because the pod was ended"
            return f"Killed, {why}. How far it came is unknown."
        if killer is not None:
            return f"Ended by signal {int(killer)}."
        return f"Exit status {int(ended['status'])}." if int(ended["status"]) else ""


class _Call:
    """One call on its way."""

    def __init__(self, socket: Path, arguments: Json, attempt: Attempt, end: float) -> None:
        self._socket, self._end = socket, end
        keep = f"{RESULTS}/{attempt.turn}-{attempt.step}-output.txt"  # goes with the turn, see `Files.erase_turn`
        self._request = {"language": arguments["language"], "code": arguments["code"], "keep": keep}
        self.sent = False
        """The executor may have begun to run it."""

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[asyncio.StreamReader]:
        """A connection on which the executor has said that it begins. Raises `DownError` if it surely did not."""
        clock = asyncio.get_running_loop().time
        patience = clock() + _RESTART_SECONDS
        while clock() < patience:
            async with self._connected() as reader:
                if reader is not None:
                    yield reader
                    return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise DownError("The code was not run: its container does not answer. It may be starting; try again later.")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncio.StreamReader | None]:
        """A connection on which the executor has said that it begins, or None."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LONGEST_LINE)
        except OSError:
            yield None
            return
        try:
            yield reader if await self._accepted(reader, writer) else None
        finally:
            writer.transport.abort()  # the executor kills what runs for nobody

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        timeout = self._end - asyncio.get_running_loop().time()
        if timeout <= 0:
            raise DownError("The code was not run: its time went by before its turn came.")
        self.sent = True
        with contextlib.suppress(OSError, EOFError):
            writer.write(json.dumps({**self._request, "timeout": timeout}).encode() + b"\n")
            await writer.drain()
            first = await _line(reader)
            if "error" in first:
                raise ToolFailedError(f"The code was not run: {first['error']}.")
            return bool(first["event"] == "started")
        self.sent = False  # it says so before it begins
        return False


async def _line(reader: asyncio.StreamReader) -> Json:
    """The next line. Raises `OSError`, `EOFError`, `UnansweredError` or `ValueError`."""
    try:
        found: Any = json.loads(await reader.readuntil(b"\n"))
    except asyncio.LimitOverrunError as error:
        raise UnansweredError("the line has no end") from error
    if not isinstance(found, dict):
        raise UnansweredError("the line is no object")
    return found
