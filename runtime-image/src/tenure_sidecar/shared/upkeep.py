"""What is done with the sessions of a host without anybody asking for it: opening what is due, closing what is idle."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from tenure_api.configuration import SessionConfig
from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import JournalError
from tenure_sidecar.shared.aside import Aside
from tenure_sidecar.shared.resident import Resident
from tenure_sidecar.shared.seats import Seats

_LOOK_SECONDS = 1.0
_SOON_SECONDS = 0.05
"""How often it is looked for idle sessions while others wait for their place."""
_AT_ONCE = 4
"""Sessions that are opened at once by themselves, so that those who call do not wait for all of them."""
_WITHOUT_POLICY_SECONDS = 3_600

log = logging.getLogger(__name__)


class Upkeep:
    """Looks after all sessions of a host."""

    def __init__(
        self,
        residents: Mapping[str, Resident],
        seats: Seats,
        config: Callable[[], SessionConfig | None],
        clock: Clock,
        aside: Aside,
        idle_seconds: float,
    ) -> None:
        """`idle_seconds` is how long a session stays open after its last use."""
        self._residents = residents
        self._seats = seats
        self._config = config
        self._clock = clock
        self._aside = aside
        self._idle_seconds = idle_seconds
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self._swept_at: float | None = None
        self._woken = asyncio.Event()
        self.closing = False
        """Whether nothing is to be opened any more."""
        seats.on_wanted = self._woken.set

    def sweep_soon(self) -> None:
        """The policy may have changed."""
        self._swept_at = None
        self._woken.set()

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            self._woken.clear()
            if not self.closing:
                self._wake_due()
                self._sweep_due()
            self._close_idle()
            try:
                async with asyncio.timeout(_SOON_SECONDS if self._seats.wanted else _LOOK_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _wake_due(self) -> None:
        now = self._clock.now()
        for resident in self._residents.values():
            if resident.wake_at is not None and resident.wake_at <= now and resident.work is None:
                resident.wake_at = None
                self._aside(self._awake(resident))

    async def _awake(self, resident: Resident) -> None:
        """Open a session that goes on by itself."""
        async with self._opening, resident.open() as work:
            if work.unclean:
                await work.sweep()

    def _sweep_due(self) -> None:
        """Have retention enforced where it is due, as often as the policy says."""
        config, now = self._config(), self._clock.now()
        policy = config.policy if config is not None else None
        interval = policy.interval_seconds if policy is not None else _WITHOUT_POLICY_SECONDS
        if self._swept_at is not None and now < self._swept_at + interval:
            return
        self._swept_at = now
        for resident in self._residents.values():
            if resident.is_due:
                self._aside(self._swept(resident))

    async def _swept(self, resident: Resident) -> None:
        try:
            async with self._opening, resident.open() as work:
                await work.sweep()
        except JournalError:
            log.exception("retention could not be enforced; it is tried again at the next interval")

    def _close_idle(self) -> None:
        """Close what has been idle for long; while others wait, what has been so for longest."""
        idle = sorted((r for r in self._residents.values() if r.work is not None and not r.busy), key=_used_at)
        long_ago = asyncio.get_running_loop().time() - self._idle_seconds
        for number, resident in enumerate(idle):
            if number < self._seats.wanted or resident.used_at <= long_ago:
                self._aside(resident.close_if_idle())


def _used_at(resident: Resident) -> float:
    return resident.used_at
