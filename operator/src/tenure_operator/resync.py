"""Our own lists: they fill the cache before anything is decided, and find what no watch has told.

kopf tells nothing of objects that vanish while it lists anew (after 410 Gone), and a watch can be dead without an
error. So all kinds are listed now and then. What a list knows better is learned from it, which heals; if the watch has
still not told of it a while later, the watch is stale, and the liveness probe says so.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tenure_api.names import MANAGED_BY, MANAGER
from tenure_operator.api_client import Api
from tenure_operator.cache import Cache, Change, Name, name_of, version
from tenure_operator.errors import NotFoundError, OperatorError, UnavailableError
from tenure_operator.kinds import CHILDREN, WATCHED, Kind, Manifest

SELECTOR = f"{MANAGED_BY}={MANAGER}"
INTERVAL_SECONDS = 300.0
SETTLE_SECONDS = 10.0
"""After a watch has listed anew, as at the start: long enough for all its watches to run, so that our list, coming
after theirs, finds what was deleted before they ran."""
GRACE_SECONDS = 60.0
"""How long a watch may lag behind a list. A reconnect of kopf takes up to 70 s only if the stream is dead."""

logger = logging.getLogger(__name__)


class _Debt(NamedTuple):
    resource_version: int
    name: Name
    since: float


class Watches:
    """What the watches have told, and whether they lag."""

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._told: dict[Kind, int] = dict.fromkeys(WATCHED, -1)
        self._owed: dict[Kind, _Debt] = {}

    def told(self, kind: Kind, resource_version: int) -> None:
        """A watch has told of a change."""
        self._told[kind] = max(self._told[kind], resource_version)
        if kind in self._owed and self._owed[kind].resource_version <= resource_version:
            del self._owed[kind]

    def owes(self, kind: Kind, manifest: Manifest) -> None:
        """A list has shown an object that the watch has not told of."""
        if version(manifest) > self._told[kind]:
            self._owed.setdefault(kind, _Debt(version(manifest), name_of(manifest), self._clock()))

    def stale(self) -> str | None:
        """A sentence if a watch has lagged for too long. It need not tell of what is gone since."""
        late = [
            kind.plural
            for kind, debt in self._owed.items()
            if self._clock() - debt.since > GRACE_SECONDS and self._cache.get(kind, *debt.name) is not None
        ]
        return f"no news by watch of: {', '.join(late)}" if late else None


class Resync:
    """Lists all watched kinds."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        watches: Watches,
        learned: Callable[[Change], None],
        missed: Callable[[Kind, int], None] = lambda *_: None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._watches = watches
        self._learned = learned
        self._missed = missed
        self._soon = asyncio.Event()
        self._soon.set()

    def relisted(self) -> None:
        """A watch has listed anew, and tells nothing of what has vanished meanwhile."""
        self._soon.set()

    async def run(self) -> None:
        """Lists again and again until cancelled; the first list is the caller's."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._soon.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._soon.clear()
            try:
                await self.all()
            except OperatorError as error:
                logger.warning("a resync failed: %s", error)

    async def all(self) -> None:
        """Lists every kind once. Raises `UnavailableError` if the definitions of ours are not installed."""
        for kind in WATCHED:
            try:
                await self.one(kind)
            except NotFoundError:
                raise UnavailableError(f"the API server does not serve {kind.plural}; install the CRDs") from None

    async def one(self, kind: Kind) -> None:
        """Lists one kind: learns what is newer and forgets what is gone."""
        found: set[Name] = set()
        listed_at, missed = 0, 0
        async for items, resource_version in self._api.pages(kind, selector=SELECTOR if kind in CHILDREN else ""):
            listed_at = resource_version
            for manifest in items:
                found.add(name_of(manifest))
                if change := self._cache.put(kind, manifest):
                    missed += 1
                    self._watches.owes(kind, manifest)
                    self._learned(change)
        for manifest in self._cache.all(kind):
            # One that was created after the list has a higher version than the list, and stays.
            if name_of(manifest) not in found and (change := self._cache.forget(kind, name_of(manifest), listed_at)):
                missed += 1
                self._learned(change)
        self._missed(kind, missed)
