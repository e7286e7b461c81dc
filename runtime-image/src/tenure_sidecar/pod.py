"""What belongs to the pod, however many sessions are in it."""

import asyncio
from collections.abc import Awaitable, Callable

from tenure_api.configuration import SessionConfig
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.errors import JournalError
from tenure_sidecar.http_client import Client
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.model_health import HealthOfModel, Prober
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.settings import Settings
from tenure_sidecar.turn.runtime_client import RuntimeClient
from tenure_sidecar.workspace.ballast import Ballast

_BALLAST_SECONDS = 30.0


class Pod:
    """The agent container, the model endpoint, the credentials and the volume's reserve."""

    def __init__(
        self,
        settings: Settings,
        clock: SteadyClock,
        metrics: Metrics,
        client: Client,
        config: Callable[[], SessionConfig | None],
    ) -> None:
        """`config` is the configuration that holds."""
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.credentials = Credentials(settings.credentials)
        self.health = HealthOfModel(clock, metrics.model_called)
        self.prober = Prober(client, self.credentials, self.health, config)
        self.runtime = RuntimeClient(client, settings.runtime_port, self.token)
        self.ballast = Ballast(settings.state)
        self.shrink: Callable[[], Awaitable[bool]] | None = None
        """Gives back room that a journal does not need any more, and says whether there may be more."""
        self._one = asyncio.Lock()
        self._token: str | None = None

    def token(self) -> str | None:
        """The token between the two containers of this pod; None while it is not mounted."""
        if self._token is None:
            try:
                self._token = (self.settings.key / "pod-token").read_text().strip() or None
            except OSError:
                return None
        return self._token

    async def has_room(self) -> bool:
        """Whether the volume has room for what is about to begin: the reserve is there."""
        return not self.ballast.spent or await self._regain()

    async def keep_ballast(self) -> None:
        """Make the reserve again whenever there is room for it."""
        while True:
            await self._regain()
            await asyncio.sleep(_BALLAST_SECONDS)

    async def _regain(self) -> bool:
        async with self._one:
            more = True
            while not await asyncio.to_thread(self.ballast.hold):
                if not more or self.shrink is None:
                    return False
                try:
                    more = await self.shrink()
                except JournalError:
                    more = False
        return True
