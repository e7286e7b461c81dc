"""What the model is shown of a result: all of it, or its head and where all of it is."""

import asyncio
from collections.abc import Awaitable, Callable

from tenure_sidecar.workspace.files import RESULTS, Files, FullError, WorkspaceError


def result_path(turn: str, step: int) -> str:
    """Where a result that is too long is kept, relative to the workspace."""
    return f"{RESULTS}/{turn}-{step}.txt"


def shown(files: Files, text: str, turn: str, step: int, limit: int) -> str:
    """What the model is told of a result, in at most `limit` bytes of UTF-8 (256 or more); blocks. Raises nothing.

    The same result of the same call gives the same file and the same text.
    """
    whole = text.encode(errors="replace")
    if len(whole) <= limit:
        return whole.decode()
    path = result_path(turn, step)
    try:
        files.write(path, whole)
        where = f"the whole is in /workspace/{path}"
    except FullError:
        where = "the rest is lost: the volume is full. Delete files in /workspace"
    except WorkspaceError:
        where = f"the rest is lost: {RESULTS} in /workspace cannot be written to"
    note = f"\n[Cut: the result has {len(whole)} bytes; {where}.]"
    return whole[: limit - len(note.encode())].decode(errors="ignore") + note


def fitting(files: Files) -> Callable[[str, int, str, int], Awaitable[str]]:
    """What cuts the results of tools, keeping the whole in the workspace; see `shown`."""

    async def fit(text: str, limit: int, turn: str, step: int) -> str:
        if len(text) * 4 <= limit:  # no character has more than four bytes
            return text
        return await asyncio.to_thread(shown, files, text, turn, step, limit)

    return fit
