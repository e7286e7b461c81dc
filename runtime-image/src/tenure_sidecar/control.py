"""The control API of the sidecar, for gateway, operator and kubelet. The calls are those of `tenure_api.wire`."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

from tenure_api.report import Binding, Drain
from tenure_api.tokens import LEEWAY_SECONDS, Caller, Issuer, Verifier
from tenure_api.tokens import RefusedError as TokenRefusedError
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.bundle.door import BundleDoor
from tenure_sidecar.config import parsed
from tenure_sidecar.errors import JournalError, RefusedError, unavailable
from tenure_sidecar.session import Session
from tenure_sidecar.session_door import SessionDoor

CONFIG_LIMIT = 1024 * 1024
SMALL_LIMIT = 16 * 1024
HOOK_SECONDS = 55.0
"""How long the hook before the agent's end is held: less than the pod's grace period of 60 s, which goes on in it."""
_CACHED_TOKENS = 256
ISSUERS: tuple[Issuer, ...] = ("operator", "gateway")


class Gate:
    """Says who is calling. A token that was verified once is not verified again until it expires."""

    def __init__(self, identity: str | None, directory: Path, now: Callable[[], float]) -> None:
        """`directory` holds the public keys; `now` is the wall time, which the callers' clocks follow too.

        Without an identity tokens for anybody are let in, and who asks looks at `Caller.identity`.
        """
        self._identity = identity
        self._directory = directory
        self._now = now
        self._pems: dict[Issuer, str] = {}
        self._verifier: Verifier | None = None
        self._known: dict[str, tuple[Caller, float]] = {}

    def admit(self, scope: Scope, *issuers: Issuer) -> Caller:
        """The caller, who must be of one of these issuers. 401 without a good token, 403 with another's."""
        token = asgi.bearer(scope)
        if not token:
            raise RefusedError(401, "unauthenticated", "a bearer token is needed")
        try:
            caller = self._caller(token)
        except TokenRefusedError as error:
            raise RefusedError(401, "unauthenticated", str(error)) from None
        if caller.issuer not in issuers:
            raise RefusedError(403, "forbidden", f"this is for the {issuers[0]}, not the {caller.issuer}")
        return caller

    def _caller(self, token: str) -> Caller:
        now = self._now()
        known = self._known.get(token)
        if known is not None and now <= known[1]:
            return known[0]
        caller = self._verified(token, now)
        if len(self._known) >= _CACHED_TOKENS:
            self._known.clear()
        self._known[token] = caller, _expiry(token) + LEEWAY_SECONDS
        return caller

    def _verified(self, token: str, now: float) -> Caller:
        """The keys are read again when a token is refused: they may have been made anew."""
        if self._verifier is not None:
            try:
                return self._verifier.caller(token, now)
            except TokenRefusedError:
                if not self._load():
                    raise
        else:
            self._load()
        if self._verifier is None:
            raise TokenRefusedError("the public keys of operator and gateway are not mounted")
        return self._verifier.caller(token, now)

    def _load(self) -> bool:
        """Read the public keys. False if nothing has changed."""
        try:
            pems = {issuer: (self._directory / f"{issuer}.pub").read_text() for issuer in ISSUERS}
            if pems == self._pems:
                return False
            self._verifier, self._pems = Verifier(self._identity, pems), pems
        except (OSError, ValueError):
            return False
        self._known.clear()
        return True


def _expiry(token: str) -> float:
    """When a token expires whose signature has been verified."""
    claims = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])


class Control:
    """The ASGI application, for a sidecar of one session."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session = session
        self._gate = gate
        self._door = SessionDoor(session)
        self._bundles = BundleDoor(session.beginning, session.bundle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._answer(scope, receive, send)
        except RefusedError as error:
            await asgi.refuse(send, error)
        except JournalError as error:
            await asgi.refuse(send, unavailable(error))
        except asgi.Gone:
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case method, path if SessionDoor.knows(path):
                caller = self._gate.admit(scope, "gateway")
                await self._door.answer(method, path, caller, scope, receive, send)
            case "GET", "/v1/report":
                self._gate.admit(scope, "operator")
                await self._report(send)
            case "PUT", "/v1/config":
                self._gate.admit(scope, "operator")
                await self._session.configure(parsed(await asgi.read_body(receive, CONFIG_LIMIT)))
                await self._report(send)
            case "GET", "/v1/bundle":
                self._gate.admit(scope, *ISSUERS)
                with self._session.activity.ongoing():
                    await self._bundles.send_bundle(scope, receive, send)
            case "PUT", "/v1/bundle":
                self._gate.admit(scope, *ISSUERS)
                await self._bundles.take_bundle(scope, receive)
                await self._report(send)
            case "PUT", "/v1/binding":
                self._gate.admit(scope, "operator")
                binding = asgi.parsed(Binding, await asgi.read_body(receive, SMALL_LIMIT), "invalid_binding")
                await self._session.bind(binding)
                await self._report(send)
            case "POST", "/v1/drain":
                self._gate.admit(scope, "operator")
                drain = asgi.parsed(Drain, await asgi.read_body(receive, SMALL_LIMIT), "invalid_drain")
                await self._session.drain(drain.idle_seconds)
                await self._report(send)
            case "GET", "/drained":
                await self._session.drained(HOOK_SECONDS)
                await probe(send, None)
            case "GET", "/healthz":
                await probe(send, self._session.unhealthy)
            case "GET", "/readyz":
                await probe(send, self._session.unready)
            case method, path:
                raise RefusedError(404, "not_found", f"the sidecar has no {method} {path[:200]}")

    async def _report(self, send: Send) -> None:
        report = await self._session.report()
        await asgi.respond(send, 200, report.model_dump_json(by_alias=True).encode())


async def probe(send: Send, problem: str | None) -> None:
    """The answer to a probe of the kubelet."""
    await asgi.respond(send, 503 if problem else 200, (problem or "ok").encode(), b"text/plain; charset=utf-8")
