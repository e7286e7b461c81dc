"""The files of sessions."""

from collections.abc import AsyncGenerator
from urllib.parse import quote

import aiohttp

from tenure_api.wire import File, FileList
from tenure_gateway.access import Caller
from tenure_gateway.faults import NotReady
from tenure_gateway.ids import Key
from tenure_gateway.pods import Pods
from tenure_gateway.sidecar import BROKEN, BrokenError, Sidecars, Target, checked, refusal
from tenure_gateway.upload import Upload

_UPLOAD_SECONDS = 600.0
"""For the way of a whole file to the sidecar: as slowly as the client sends it."""
_PART = 65_536


class Workspaces:
    """The workspaces of all sessions."""

    def __init__(self, pods: Pods, sidecars: Sidecars) -> None:
        self._pods = pods
        self._sidecars = sidecars

    async def listing(self, session: Key, caller: Caller) -> FileList:
        """The files of a session. Raises a `Fault`."""

        async def read(target: Target) -> FileList:
            return checked(FileList, *await self._sidecars.call(target, "GET", "/v1/files"))

        return await self._pods.read(session, caller, read)

    async def put(self, session: Key, caller: Caller, path: str, upload: Upload) -> File:
        """Writes a file. Raises a `Fault`, or the upload's `ApiError`.

        Once something of the file is on its way, it cannot be sent to another pod: then the client must.
        """
        patience = self._pods.patience()
        while True:
            target = await self._pods.target(session, caller, patience, recorded=False)
            try:
                answer = await self._sidecars.call(
                    target, "PUT", _path(path), body=upload.chunks(), seconds=_UPLOAD_SECONDS
                )
                return checked(File, *answer)
            except BrokenError as error:
                if upload.failure is not None:
                    raise upload.failure from None
                if upload.begun:
                    raise NotReady(f"its pod broke while the file was sent ({error})") from None
                await self._pods.wait(session, patience, recorded=False, error=error)

    async def delete(self, session: Key, caller: Caller, path: str) -> None:
        """Deletes a file. Raises a `Fault`."""

        async def delete(target: Target) -> None:
            status, data = await self._sidecars.call(target, "DELETE", _path(path))
            if status != 204:
                raise refusal(status, data)

        await self._pods.read(session, caller, delete)

    async def content(self, session: Key, caller: Caller, path: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a file; that it is there is known when this returns. Both raise a `Fault`."""

        async def begin(target: Target) -> aiohttp.ClientResponse:
            response = await self._sidecars.open(target, _path(path))
            if response.status == 200:
                return response
            async with response:
                raise refusal(response.status, await response.read())

        return _bytes(await self._pods.read(session, caller, begin))


async def _bytes(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async with response:
            async for data in response.content.iter_chunked(_PART):
                yield data
    except BROKEN as error:
        raise NotReady(f"its pod broke while a file was read ({type(error).__name__})") from None


def _path(path: str) -> str:
    return f"/v1/files/{quote(path)}"
