"""What is known of the model endpoint: the outcome of the last contact.

While it is not well it is asked for its list of models every `PROBE_SECONDS`, so that a mended endpoint is noticed
without a turn; and once at start, so that an unreachable one is.
"""

import asyncio
import json
from collections.abc import Callable

from tenure_api.conditions import Reason
from tenure_api.configuration import ModelTarget, SessionConfig
from tenure_api.report import ModelHealth
from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import GarbageError, HttpError
from tenure_sidecar.http_client import Client
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.proxy.failure import ModelFailedError, invalid, refused, unreachable

PROBE_SECONDS = 10
_PROBE_TIMEOUT_SECONDS = 5
_PROBE_LIMIT = 4 * 1024 * 1024
_DOUBT_SECONDS = 60
"""How long a failed answer outweighs a good list of models, which says nothing of answers and which many endpoints give
to anybody."""
_WELL = (Reason.ANSWERING, Reason.NOT_YET_CALLED)
_SHOWN_BY_A_PROBE = (Reason.UNREACHABLE, Reason.CREDENTIAL_MISSING)


class HealthOfModel:
    """The health of a route, as calls and probes show it."""

    def __init__(self, clock: Clock, metric: Callable[[str], None]) -> None:
        """`metric` is told the reason of every outcome of a call."""
        self._clock = clock
        self._metric = metric
        self._reason = Reason.NOT_YET_CALLED
        self._message = "The model has not been called yet"
        self._doubt_until = 0.0

    def report(self) -> ModelHealth:
        """As the operator is told, and as the session's status says it: in a sentence."""
        return ModelHealth(reason=self._reason.value, message=f"{self._message}.")

    @property
    def well(self) -> bool:
        """Whether nothing is known against the endpoint."""
        return self._reason in _WELL

    def answered(self, target: ModelTarget, before: ModelFailedError | None) -> None:
        """A target has begun to answer; `before` is the failure of the first one, if it is a fallback that answers."""
        self._doubt_until = 0.0
        self._metric(Reason.ANSWERING.value)
        fallback = f"; it is a fallback, since {before.public}" if before is not None else ""
        self._set(Reason.ANSWERING, f"Model {target.name} at {target.base_url} answers{fallback}")

    def failed(self, target: ModelTarget, failure: ModelFailedError) -> None:
        """A call of a target has failed."""
        self._metric(failure.reason.value)
        self._set(failure.reason, failure.public)
        self._doubt_until = 0.0 if failure.reason in _SHOWN_BY_A_PROBE else self._clock.now() + _DOUBT_SECONDS

    def forget(self) -> None:
        """The route leads elsewhere now."""
        self._doubt_until = 0.0
        self._set(Reason.NOT_YET_CALLED, "The model has not been called yet")

    def probed(self, target: ModelTarget, failure: ModelFailedError | None) -> None:
        """A probe has succeeded, or failed."""
        if failure is not None:
            self._set(failure.reason, failure.public)
            self._doubt_until = 0.0
        elif self._doubt_until:
            if self._clock.now() >= self._doubt_until:
                self._doubt_until = 0.0
                self._set(Reason.NOT_YET_CALLED, f"{target.base_url} can be reached; the last call failed")
        elif self._reason is not Reason.ANSWERING:
            self._set(Reason.ANSWERING, f"{target.base_url} can be reached")

    def _set(self, reason: Reason, message: str) -> None:
        self._reason, self._message = reason, message[:1_000]


class Prober:
    """Asks the first target of the route for its models."""

    def __init__(
        self,
        client: Client,
        credentials: Credentials,
        health: HealthOfModel,
        config: Callable[[], SessionConfig | None],
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._health = health
        self._config = config
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ask at once: the configuration has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Ask at start and while the endpoint is not well, until cancelled."""
        asked: ModelTarget | None = None
        while True:
            self._woken.clear()
            config = self._config()
            if config is not None and (not self._health.well or asked != config.model.targets[0]):
                if asked is not None and asked != config.model.targets[0]:
                    self._health.forget()
                asked = config.model.targets[0]
                await self.probe(asked)
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def probe(self, target: ModelTarget) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                await self._ask(target)
        except TimeoutError:
            message = f"{target.base_url} does not answer within {_PROBE_TIMEOUT_SECONDS} s"
            self._health.probed(target, unreachable(message))
        except GarbageError as error:
            self._health.probed(target, invalid(f"{target.base_url}: {error}"))
        except HttpError as error:
            self._health.probed(target, unreachable(f"{target.base_url}: {error}"))
        except ModelFailedError as failure:
            self._health.probed(target, failure)
        else:
            self._health.probed(target, None)

    async def _ask(self, target: ModelTarget) -> None:
        """Raises if the endpoint is not well. One that has no list of models is well: it can be reached."""
        credential = self._credentials.of(target)
        headers = [(b"accept", b"application/json")]
        if credential is not None:
            headers.append((b"authorization", b"Bearer " + credential.encode()))
        response = await self._client.send("GET", target.base_url.rstrip("/") + "/models", headers)
        try:
            body = await response.read_all(_PROBE_LIMIT)
        finally:
            response.close()
        if response.status in (401, 403) or response.status >= 500:
            raise refused(response.status, body, target.base_url, credential)
        if response.status == 200:
            try:
                json.loads(body)
            except ValueError:
                raise GarbageError("its list of models is not JSON") from None
