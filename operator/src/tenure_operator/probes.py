"""Whether Secrets exist that agents refer to, remembered for a while: nothing tells when one appears or goes."""

import random
import time
from collections.abc import Callable

from tenure_operator.api_client import Api
from tenure_operator.cache import Name

MISSING_SECONDS = 10.0
PRESENT_SECONDS = 300.0


class SecretProbes:
    """Asks the API server at most once in a while for each Secret."""

    def __init__(
        self,
        api: Api,
        clock: Callable[[], float] = time.monotonic,
        random_: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._clock = clock
        self._random = random_
        self._known: dict[Name, tuple[bool, float]] = {}

    async def exists(self, namespace: str, name: str) -> bool:
        """Whether the Secret exists, as of now or of a while ago."""
        exists, until = self._known.get((namespace, name), (False, 0.0))
        if until > self._clock():
            return exists
        exists = await self._api.secret_exists(namespace, name)
        lasts = PRESENT_SECONDS * (1 - self._random() / 2) if exists else MISSING_SECONDS - 1  # so that a re-ask asks
        self._known[namespace, name] = (exists, self._clock() + lasts)
        return exists
