"""Sessions as bundles: fetched from the pods of sessions and signed, and brought to pods that wait for one."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlencode

import aiohttp

from tenure_api import bundle
from tenure_api.unpacking import Inspection
from tenure_gateway.access import Caller
from tenure_gateway.directory import Directory, SessionView
from tenure_gateway.faults import NotReady
from tenure_gateway.pods import Pods
from tenure_gateway.sidecar import BROKEN, BrokenError, Sidecars, Target, refusal
from tenure_gateway.spool import Spooled

_PART = 65_536
_SILENT_SECONDS = 60.0
"""For each bit of a bundle: the sidecar looks through all of its journal first."""
_CARRY_SECONDS = 3_600.0
"""For the way of a whole bundle into a session."""


class Bundles:
    """The bundles of all sessions."""

    def __init__(self, directory: Directory, pods: Pods, sidecars: Sidecars, signing_key: str) -> None:
        self._directory = directory
        self._pods = pods
        self._sidecars = sidecars
        self._signing_key = signing_key

    async def export(
        self, session: SessionView, caller: Caller, key: str | None, at: str | None
    ) -> AsyncGenerator[bytes, None]:
        """The signed bundle of a session; that there is one is known when this returns. Both raise a `Fault`.

        `key` is that of the header, which seals what the bundle holds.
        """
        query = {"end": "open", "subject": session.subject, **({} if at is None else {"at": at})}
        headers = {} if key is None else {bundle.KEY_HEADER: key}

        async def begin(target: Target) -> aiohttp.ClientResponse:
            response = await self._sidecars.open(target, f"/v1/bundle?{urlencode(query)}", headers, _SILENT_SECONDS)
            if response.status == 200:
                return response
            async with response:
                raise refusal(response.status, await response.read())

        return self._signed(await self._pods.read(session.key, caller, begin), session)

    async def _signed(self, response: aiohttp.ClientResponse, session: SessionView) -> AsyncGenerator[bytes, None]:
        """The bundle as the sidecar sends it, and at its end the signature, if it is what it should be."""
        inspection = Inspection()
        try:
            async with response:
                async for data in response.content.iter_chunked(_PART):
                    await asyncio.to_thread(_look, inspection, data)
                    yield data
            manifest = inspection.described()
        except BROKEN as error:
            raise NotReady(f"its pod broke while the bundle was sent ({type(error).__name__})") from None
        except bundle.InvalidBundleError as error:
            raise NotReady(f"its sidecar does not send a bundle ({error})") from None
        named = (manifest.session, manifest.subject) == (str(session.key), session.subject)
        if not (inspection.unpacker.unfinished and named):
            raise NotReady("its sidecar does not send the bundle of this session")
        yield bundle.sign(self._signing_key, inspection.manifest_digest, inspection.unpacker.digest)

    async def bring(self, session: SessionView, caller: Caller, spooled: Spooled, key: str | None) -> SessionView:
        """Has a session begin with a bundle; returns it when it is Ready. Raises a `Fault`.

        May be repeated: a session that began with this bundle is as it should be.
        """
        patience = self._pods.patience()
        brought = False
        while True:
            known = self._directory.working(session.key)
            if known.address is not None or known.asleep:
                return known
            if known.restoring is None or known.identity is None or brought:
                if patience.left == 0:
                    raise NotReady(known.waiting)
                await self._directory.sessions.changed(session.key, patience.left)
                continue
            target = Target(known.identity, known.restoring, caller.name, known.generation)
            try:
                await self._put(target, spooled, key)
                brought = True
                patience.renew()
            except BrokenError as error:
                await self._pods.wait(session.key, patience, recorded=False, error=error)

    async def _put(self, target: Target, spooled: Spooled, key: str | None) -> None:
        headers = {"content-type": bundle.MEDIA_TYPE, **({} if key is None else {bundle.KEY_HEADER: key})}
        status, data = await self._sidecars.call(
            target, "PUT", "/v1/bundle", body=spooled.parts(), seconds=_CARRY_SECONDS, headers=headers
        )
        if status != 200:
            raise refusal(status, data)


def _look(inspection: Inspection, data: bytes) -> None:
    for _ in inspection.feed(data):
        pass
