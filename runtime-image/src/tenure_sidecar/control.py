"""The control API of the sidecar, for gateway, operator and kubelet. The calls are those of `tenure_api.wire`."""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from tenure_api.messages import Wire
from tenure_api.tokens import LEEWAY_SECONDS, Caller, Issuer, Verifier
from tenure_api.tokens import RefusedError as TokenRefusedError
from tenure_api.wire import TURN_ID, Binding, Decisions, Drain, TurnRequest
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.bundle.door import BundleDoor
from tenure_sidecar.config import parsed
from tenure_sidecar.errors import JournalError, RefusedError
from tenure_sidecar.session import Session
from tenure_sidecar.turn.live import Live
from tenure_sidecar.workspace.door import FileDoor

TURN_LIMIT = 48 * 1024 * 1024
"""Most bytes of a turn's request, with the files that come with it in base64."""
DECISIONS_LIMIT = 256 * 1024
CONFIG_LIMIT = 1024 * 1024
_SMALL_LIMIT = 16 * 1024
_HOOK_SECONDS = 55.0
"""How long the hook before the agent's end is held: less than the pod's grace period of 60 s, which goes on in it."""
_CACHED_TOKENS = 256
_ISSUERS: tuple[Issuer, ...] = ("operator", "gateway")
_TURN = re.compile(TURN_ID)


class Gate:
    """Says who is calling. A token that was verified once is not verified again until it expires."""

    def __init__(self, identity: str, directory: Path, now: Callable[[], float]) -> None:
        """`directory` holds the public keys; `now` is the wall time, which the callers' clocks follow too."""
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
            pems = {issuer: (self._directory / f"{issuer}.pub").read_text() for issuer in _ISSUERS}
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
    """The ASGI application."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session = session
        self._gate = gate
        self._files = FileDoor(session.files)
        self._bundles = BundleDoor(session.beginning, session.bundle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._answer(scope, receive, send)
        except RefusedError as error:
            await asgi.refuse(send, error)
        except JournalError as error:
            await asgi.refuse(send, RefusedError(503, "journal_unavailable", str(error)))
        except asgi.Gone:
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "POST", "/v1/turns":
                self._gate.admit(scope, "gateway")
                await self._take_turn(receive, send)
            case "GET", "/v1/items":
                self._gate.admit(scope, "gateway")
                await self._items(scope, send)
            case method, path if path.startswith("/v1/turns/"):
                caller = self._gate.admit(scope, "gateway")
                await self._turn(method, path.removeprefix("/v1/turns/"), caller, receive, send)
            case method, path if path == "/v1/files" or path.startswith("/v1/files/"):
                self._gate.admit(scope, "gateway")
                await self._file(method, path.removeprefix("/v1/files").removeprefix("/"), receive, send)
            case "GET", "/v1/report":
                self._gate.admit(scope, "operator")
                await self._report(send)
            case "PUT", "/v1/config":
                self._gate.admit(scope, "operator")
                await self._session.configure(parsed(await asgi.read_body(receive, CONFIG_LIMIT)))
                await self._report(send)
            case "GET", "/v1/bundle":
                self._gate.admit(scope, *_ISSUERS)
                with self._session.activity.ongoing():
                    await self._bundles.send_bundle(scope, receive, send)
            case "PUT", "/v1/bundle":
                self._gate.admit(scope, *_ISSUERS)
                await self._bundles.take_bundle(scope, receive)
                await self._report(send)
            case "PUT", "/v1/binding":
                self._gate.admit(scope, "operator")
                binding = asgi.parsed(Binding, await asgi.read_body(receive, _SMALL_LIMIT), "invalid_binding")
                await self._session.bind(binding)
                await self._report(send)
            case "POST", "/v1/drain":
                self._gate.admit(scope, "operator")
                drain = asgi.parsed(Drain, await asgi.read_body(receive, _SMALL_LIMIT), "invalid_drain")
                await self._session.drain(drain.idle_seconds)
                await self._report(send)
            case "GET", "/drained":
                await self._session.drained(_HOOK_SECONDS)
                await _probe(send, None)
            case "GET", "/healthz":
                await _probe(send, self._session.unhealthy)
            case "GET", "/readyz":
                await _probe(send, self._session.unready)
            case method, path:
                raise RefusedError(404, "not_found", f"the sidecar has no {method} {path[:200]}")

    async def _take_turn(self, receive: Receive, send: Send) -> None:
        request = asgi.parsed(TurnRequest, await asgi.read_body(receive, TURN_LIMIT), "invalid_turn")
        await self._follow(self._session.turns.submit(request), receive, send)

    async def _follow(self, live: Live, receive: Receive, send: Send) -> None:
        with live.listening(), self._session.activity.ongoing():
            await _begun(live, receive)
            await asgi.begin(send, 200, asgi.NDJSON)
            async for lines in live.events():
                await asgi.more(send, lines)
            await asgi.end(send)

    async def _file(self, method: str, path: str, receive: Receive, send: Send) -> None:
        if method in ("PUT", "DELETE"):
            self._session.admit()
        if not path:
            await self._files.answer(method, path, receive, send)
            return
        with self._session.activity.ongoing():
            await self._files.answer(method, path, receive, send)

    async def _items(self, scope: Scope, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        limit, order, after = (query.get(name, [""])[-1] for name in ("limit", "order", "after"))
        if limit and not (limit.isdecimal() and limit.isascii() and 1 <= int(limit[:9]) <= 100):
            raise RefusedError(400, "invalid_query", "limit must be a number from 1 to 100")
        if order not in ("", "asc", "desc"):
            raise RefusedError(400, "invalid_query", "order must be asc or desc")
        page = self._session.transcript.page(int(limit or 20), order != "asc", after or None)
        await asgi.respond(send, 200, page.model_dump_json(by_alias=True).encode())

    async def _turn(self, method: str, rest: str, caller: Caller, receive: Receive, send: Send) -> None:
        turn, _, what = rest.partition("/")
        if not _TURN.match(turn):
            raise _no_turn()
        turns = self._session.turns
        match method, what:
            case "GET", "":
                await self._state(turns.find(turn), send)
            case "GET", "events":
                live = turns.find(turn)
                if live is None:
                    raise _no_turn()
                await self._follow(live, receive, send)
            case "POST", "approvals":
                body = await asgi.read_body(receive, DECISIONS_LIMIT)
                decisions = asgi.parsed(Decisions, body, "invalid_decisions").decisions
                with self._session.activity.ongoing():
                    await _respond(send, await turns.decide(turn, decisions, caller.subject or ""))
            case "POST", "cancel":
                with self._session.activity.ongoing():
                    state = await turns.cancel(turn)
                if state is None:
                    raise _no_turn()
                await _respond(send, state)
            case _:
                raise RefusedError(404, "not_found", f"the sidecar has no {method} /v1/turns/{{turn}}/{what[:100]}")

    async def _state(self, live: Live | None, send: Send) -> None:
        if live is None or not live.is_begun:
            raise _no_turn()
        await _respond(send, live.state())

    async def _report(self, send: Send) -> None:
        report = await self._session.report()
        await asgi.respond(send, 200, report.model_dump_json(by_alias=True).encode())


def _no_turn() -> RefusedError:
    return RefusedError(404, "turn_not_found", "there is no such turn in this session")


async def _respond(send: Send, message: Wire) -> None:
    await asgi.respond(send, 200, message.model_dump_json(by_alias=True).encode())


async def _begun(live: Live, receive: Receive) -> None:
    """Wait for the turn to begin, as long as the client does. Raises `RefusedError` and `Gone`."""
    begun, gone = asyncio.ensure_future(live.begun()), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((begun, gone), return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            raise asgi.Gone
        begun.result()
    finally:
        begun.cancel()
        gone.cancel()


async def _probe(send: Send, problem: str | None) -> None:
    await asgi.respond(send, 503 if problem else 200, (problem or "ok").encode(), b"text/plain; charset=utf-8")
