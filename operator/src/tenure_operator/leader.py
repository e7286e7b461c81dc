"""One operator at a time: a Lease in the release namespace, held and renewed.

As in client-go: a holder is taken for dead when its record has not changed for the lease's duration by *our* clock, so
clocks of nodes need not agree; a holder that cannot renew for the (shorter) renew deadline stops by itself before that.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from tenure_operator.api_client import Api
from tenure_operator.errors import (
    ConflictError,
    ExistsError,
    LostLeaseError,
    NotFoundError,
    OperatorError,
    UnavailableError,
)
from tenure_operator.kinds import LEASES, Manifest
from tenure_operator.rbac import LEASE

DURATION_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 2.0

logger = logging.getLogger(__name__)


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Leader:
    """Holds the Lease for one identity. An identity is a pod's name, so a restarted container may resume at once."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._now = now
        self._seen: tuple[Manifest, float] | None = None

    async def acquire(self) -> None:
        """Returns when the Lease is ours."""
        while True:
            if await self._survive(self.attempt()):
                break
            await asyncio.sleep(RETRY_SECONDS)
        logger.info("%s holds the lease %s/%s", self._identity, self._namespace, LEASE)

    async def keep(self) -> None:
        """Renews for ever. Raises `LostLeaseError` when another holds it or it could not be renewed in time."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            began = self._clock()
            try:
                async with asyncio.timeout(max(renewed + RENEW_DEADLINE_SECONDS - began, 0)):
                    held = await self._survive(self.attempt())
            except TimeoutError:
                held = False
            if held:
                renewed = began
            elif self._other() or self._clock() - renewed >= RENEW_DEADLINE_SECONDS:
                raise LostLeaseError(f"the lease {self._namespace}/{LEASE} is lost to {self._other() or 'a time-out'}")

    async def release(self) -> None:
        """Gives the Lease back, so that a standby need not wait for it to expire. Best effort."""
        if self._seen is None or self._other():
            return
        lease, _ = self._seen
        spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(self._now())}
        try:
            await self._api.replace(LEASES, lease | {"spec": spec})
        except OperatorError as error:
            logger.info("the lease was not given back: %s", error)

    async def attempt(self) -> bool:
        """Takes or renews the Lease if that is allowed; whether it is ours now."""
        try:
            lease = await self._api.get(LEASES, self._namespace, LEASE)
        except NotFoundError:
            self._see(await self._api.create(LEASES, self._manifest({}, {"namespace": self._namespace, "name": LEASE})))
            return True
        self._see(lease)
        if self._other() and not self._expired():
            return False
        self._see(await self._api.replace(LEASES, self._manifest(lease.get("spec", {}), lease["metadata"])))
        return True

    def _manifest(self, before: Manifest, metadata: Manifest) -> Manifest:
        now = _micro_time(self._now())
        kept = before.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": before["acquireTime"] if kept and before.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if kept or not before else 1),
        }
        return {"apiVersion": LEASES.api_version, "kind": LEASES.name, "metadata": metadata, "spec": spec}

    def _see(self, lease: Manifest) -> None:
        if self._seen is None or self._seen[0].get("spec") != lease.get("spec"):
            self._seen = (lease, self._clock())
        else:
            self._seen = (lease, self._seen[1])

    def _other(self) -> str | None:
        holder = self._seen[0].get("spec", {}).get("holderIdentity") if self._seen else None
        return holder if holder != self._identity and holder else None

    def _expired(self) -> bool:
        if self._seen is None:
            return False
        lease, since = self._seen
        duration: int = lease["spec"].get("leaseDurationSeconds", DURATION_SECONDS)
        return self._clock() >= since + duration

    @staticmethod
    async def _survive(attempt: Awaitable[bool]) -> bool:
        try:
            return await attempt
        except (UnavailableError, ConflictError, ExistsError) as error:
            logger.info("no lease yet: %s", error)
            return False
