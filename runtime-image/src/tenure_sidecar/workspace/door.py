"""The workspace over the control API: list, read, write and delete its files; and the files that come with a turn."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from tenure_api.wire import InputFile, TurnRequest
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Send
from tenure_sidecar.errors import RefusedError, VolumeFullError, unavailable
from tenure_sidecar.workspace.files import (
    Files,
    FullError,
    InvalidPathError,
    NoFileError,
    TooLargeError,
    WorkspaceError,
)

FILE_LIMIT = 32 * 1024 * 1024
"""Most bytes of a file that is written over the API."""
LISTED = 1_000
"""Most files of a listing."""
_PART = 256 * 1024
_BINARY = b"application/octet-stream"


def refusal(error: WorkspaceError) -> RefusedError:
    """What a failure means to a caller."""
    match error:
        case InvalidPathError():
            return RefusedError(400, "invalid_path", str(error))
        case NoFileError():
            return RefusedError(404, "file_not_found", str(error))
        case TooLargeError():
            return RefusedError(413, "file_too_large", str(error))
        case FullError():
            return RefusedError(507, "volume_full", str(error))
    return RefusedError(503, "workspace_unavailable", str(error))


class FileDoor:
    """`/v1/files`."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def answer(self, method: str, encoded: str, receive: Receive, send: Send) -> None:
        """Answer one request about the file of this path, or about all of them. Raises `RefusedError`."""
        path = unquote(encoded)
        try:
            match method, path:
                case "GET", "":
                    found = await asyncio.to_thread(self._files.listing, LISTED)
                    await asgi.respond(send, 200, found.model_dump_json(by_alias=True).encode())
                case "GET", _:
                    await self._read(path, send)
                case "PUT", _ if path:
                    body = await asgi.read_body(receive, FILE_LIMIT)
                    file = await asyncio.to_thread(self._files.write, path, body)
                    await asgi.respond(send, 200, file.model_dump_json(by_alias=True).encode())
                case "DELETE", _ if path:
                    await asyncio.to_thread(self._files.delete, path)
                    await asgi.respond(send, 204, b"")
                case _:
                    raise RefusedError(404, "not_found", f"the sidecar has no {method} for files")
        except WorkspaceError as error:
            raise refusal(error) from None

    async def _read(self, path: str, send: Send) -> None:
        opened = await asyncio.to_thread(self._files.open, path)
        try:
            await asgi.begin(send, 200, _BINARY)
            while part := await asyncio.to_thread(opened.read, _PART):
                await asgi.more(send, part)
            await asgi.end(send)
        finally:
            opened.close()


def receiving(files: Files, has_room: Callable[[], Awaitable[bool]]) -> Callable[[TurnRequest], Awaitable[None]]:
    """What is done with a turn before it begins: its files are received, if the volume is not full.

    A turn that began on a full volume could come to where nothing can be recorded, and would have to wait there.
    """

    async def receive(request: TurnRequest) -> None:
        if not await has_room():
            raise unavailable(VolumeFullError())
        if request.files:
            await asyncio.to_thread(receive_files, files, request.files)

    return receive


def receive_files(files: Files, given: list[InputFile]) -> None:
    """Put the files that come with a turn into the workspace; blocks. Raises `RefusedError`.

    A turn that is sent again, after a crash before it was recorded, writes the same files again.
    """
    for file in given:
        try:
            data = base64.b64decode(file.data, validate=True)
        except binascii.Error:
            raise RefusedError(400, "invalid_file", f"{file.path}: the data is not base64") from None
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise RefusedError(400, "invalid_file", f"{file.path}: the data is not what its size and digest say")
        try:
            files.write(file.path, data)
        except WorkspaceError as error:
            raise refusal(error) from None
