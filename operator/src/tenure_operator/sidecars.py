"""HTTP to the sidecars: their report, and what they are to do."""

import time
from collections.abc import Callable
from typing import NamedTuple

import httpx
from pydantic import ValidationError

from tenure_api.configuration import SessionConfig
from tenure_api.report import Binding, Drain, Report, Reports
from tenure_api.tokens import LIFETIME_SECONDS, Signer
from tenure_api.wire import Failure, sidecar_url
from tenure_operator.errors import BusyError, TakenError, UnavailableError, UnfitError

TIMEOUT = httpx.Timeout(5.0, connect=2.0)
TOKEN_SECONDS = LIFETIME_SECONDS - 15.0
"""For how long a token is used again."""
CARRY_TIMEOUT = httpx.Timeout(60.0, connect=2.0)
"""For each bit of a bundle: the receiver checks all of it and makes it durable before it answers."""


class Address(NamedTuple):
    """Where the sidecar of a session listens."""

    identity: str
    """The audience of its tokens: UID of the volume's claim."""
    ip: str

    def url(self, path: str) -> str:
        """The URL of one of its resources."""
        return sidecar_url(self.ip, path)


class Sidecars:
    """A client of all sidecars. All failures are `UnavailableError`: a sidecar that does not answer is no bug."""

    def __init__(self, client: httpx.AsyncClient, signer: Signer, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._signer = signer
        self._now = now
        self._tokens: dict[str, tuple[str, float]] = {}

    async def report(self, address: Address) -> Report:
        """What the sidecar says of itself."""
        return await self._ask(address, "GET", "/v1/report", None)

    async def configure(self, address: Address, config: SessionConfig) -> Report:
        """Gives the sidecar a configuration; the report says what it made of it."""
        return await self._ask(address, "PUT", "/v1/config", config.model_dump(mode="json", by_alias=True))

    async def drain(self, address: Address, idle_seconds: float) -> Report:
        """Has the sidecar take no more turns. Raises `BusyError` unless nothing has happened for so long."""
        body = Drain(idle_seconds=idle_seconds).model_dump(mode="json", by_alias=True)
        return await self._ask(address, "POST", "/v1/drain", body)

    async def bind(self, address: Address, binding: Binding, seconds: float | None = None) -> Report:
        """Gives a sidecar that was started ahead to a session. Raises `TakenError` if it is another's.

        `seconds` is how long it may take, if that is less than any other answer may take.
        """
        body = binding.model_dump(mode="json", by_alias=True)
        return await self._ask(address, "PUT", "/v1/binding", body, seconds)

    async def keep(self, host: Address, binding: Binding) -> Report:
        """Has a host keep a session; the report is the session's."""
        body, path = binding.model_dump(mode="json", by_alias=True), f"/v1/sessions/{binding.uid}"
        return _report(Address(binding.uid, host.ip), await self._send(host, "PUT", path, body))

    async def reports(self, host: Address) -> list[Report]:
        """What a host says of each session that it keeps."""
        answer = await self._send(host, "GET", "/v1/sessions", None)
        if answer.status_code != 200:
            raise UnavailableError(_refusal(answer))
        try:
            return Reports.model_validate_json(answer.content).data
        except ValidationError:
            raise UnavailableError("it answers with something else than reports") from None

    async def erase(self, host: Address, uid: str) -> None:
        """Has a host destroy all that it has of a session."""
        answer = await self._send(host, "DELETE", f"/v1/sessions/{uid}", None)
        if answer.status_code != 204:
            raise UnavailableError(_refusal(answer))

    async def carry(self, source: Address, target: Address, at: int | None) -> Report:
        """Brings the state of one session, as a bundle, to another that waits for it; as a stream, never kept here.

        Raises `UnfitError` if the source has no such record.
        """
        path = "/v1/bundle" + ("" if at is None else f"?at={at}")
        try:
            async with self._client.stream(
                "GET", source.url(path), headers=self._proof(source), timeout=CARRY_TIMEOUT
            ) as bundle:
                if bundle.status_code != 200:
                    await bundle.aread()
                    if bundle.status_code == 400:
                        raise UnfitError(_refusal(bundle))
                    raise UnavailableError(_refusal(bundle))
                answer = await self._client.put(
                    target.url("/v1/bundle"),
                    headers=self._proof(target),
                    content=bundle.aiter_raw(),
                    timeout=CARRY_TIMEOUT,
                )
        except httpx.HTTPError as error:
            raise UnavailableError(f"it does not answer ({type(error).__name__})") from None
        return _report(target, answer)

    def _proof(self, address: Address) -> dict[str, str]:
        """A token that has most of its life before it. The same for a while: a sidecar verifies each but once."""
        now = self._now()
        token, until = self._tokens.get(address.identity, ("", 0.0))
        if until <= now:
            self._tokens.pop(address.identity, None)  # put back at the end, so that the oldest stay first
            while self._tokens and self._tokens[oldest := next(iter(self._tokens))][1] <= now:
                del self._tokens[oldest]
            token = self._signer.token(address.identity, now)
            self._tokens[address.identity] = token, now + TOKEN_SECONDS
        return {"Authorization": f"Bearer {token}"}

    async def _ask(
        self, address: Address, method: str, path: str, body: object, seconds: float | None = None
    ) -> Report:
        answer = await self._send(address, method, path, body, seconds)
        if answer.status_code == 409:
            raise (TakenError if path == "/v1/binding" else BusyError)(_refusal(answer))
        return _report(address, answer)

    async def _send(
        self, address: Address, method: str, path: str, body: object, seconds: float | None = None
    ) -> httpx.Response:
        headers, timeout = self._proof(address), seconds or TIMEOUT
        try:
            return await self._client.request(method, address.url(path), headers=headers, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise UnavailableError(f"it does not answer ({type(error).__name__})") from None


def _report(address: Address, answer: httpx.Response) -> Report:
    if answer.status_code != 200:
        raise UnavailableError(_refusal(answer))
    try:
        report = Report.model_validate_json(answer.content)
    except ValidationError:
        raise UnavailableError("it answers with something else than a report") from None
    if report.identity != address.identity:
        raise UnavailableError("another session's sidecar answers at its address")
    return report


def _refusal(answer: httpx.Response) -> str:
    try:
        return f"it refuses the operator: {Failure.model_validate_json(answer.content).message}"
    except ValidationError:
        return f"it refuses the operator with HTTP status {answer.status_code}"
