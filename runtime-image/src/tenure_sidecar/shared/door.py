"""The control API of a host. The audience of a token says for whom a call is: a session, or the host itself."""

from tenure_api.report import Binding, Drain, Report
from tenure_api.tokens import Caller
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.bundle.door import BundleDoor
from tenure_sidecar.config import parsed
from tenure_sidecar.control import CONFIG_LIMIT, HOOK_SECONDS, ISSUERS, SMALL_LIMIT, Gate, probe
from tenure_sidecar.errors import JournalError, RefusedError, unavailable
from tenure_sidecar.session_door import SessionDoor
from tenure_sidecar.shared.host import Host
from tenure_sidecar.shared.resident import Resident

_SESSIONS = "/v1/sessions/"


class HostDoor:
    """The ASGI application, for a sidecar of many sessions."""

    def __init__(self, host: Host, gate: Gate) -> None:
        """`gate` lets in tokens for anybody."""
        self._host = host
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        noted = asgi.Noted(send)
        try:
            await self._answer(scope, receive, noted)
        except RefusedError as error:
            await asgi.refuse(send, error)
        except JournalError as error:
            await asgi.refuse(send, unavailable(error))
        except asgi.Gone:
            if not noted.begun:  # it may be the session that is gone, and not the client
                await asgi.refuse(send, RefusedError(503, "session_closed", "the session was closed; ask again"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "GET", "/healthz":
                await probe(send, self._host.unhealthy)
            case "GET", "/readyz":
                await probe(send, self._host.unready)
            case "GET", "/drained":
                await self._host.drained(HOOK_SECONDS)
                await probe(send, None)
            case method, path:
                caller = self._gate.admit(scope, *ISSUERS)
                if caller.identity == self._host.identity:
                    _only(caller, "operator")
                    await self._for_host(method, path, receive, send)
                    return
                resident = self._host.find(caller.identity)
                if resident is None:
                    self._host.check_open()
                    raise RefusedError(401, "unauthenticated", "the token is not for a session that is here")
                await self._for_session(method, path, caller, resident, scope, receive, send)

    async def _for_host(self, method: str, path: str, receive: Receive, send: Send) -> None:
        match method, path:
            case "GET", "/v1/report":
                await _report(send, await self._host.report())
            case "PUT", "/v1/config":
                await self._host.configure(parsed(await asgi.read_body(receive, CONFIG_LIMIT)))
                await _report(send, await self._host.report())
            case "POST", "/v1/drain":
                drain = asgi.parsed(Drain, await asgi.read_body(receive, SMALL_LIMIT), "invalid_drain")
                self._host.drain(drain.idle_seconds)
                await _report(send, await self._host.report())
            case "GET", "/v1/sessions":
                self._host.check_open()
                await asgi.respond(send, 200, self._host.reports().model_dump_json(by_alias=True).encode())
            case "PUT", path if path.startswith(_SESSIONS):
                binding = asgi.parsed(Binding, await asgi.read_body(receive, SMALL_LIMIT), "invalid_binding")
                resident = await self._host.keep(path.removeprefix(_SESSIONS), binding)
                await _report(send, self._host.report_of(resident))
            case "DELETE", path if path.startswith(_SESSIONS):
                await self._host.erase(path.removeprefix(_SESSIONS))
                await asgi.respond(send, 204, b"")
            case _:
                raise RefusedError(404, "not_found", f"a host has no {method} {path[:200]}")

    async def _for_session(
        self, method: str, path: str, caller: Caller, resident: Resident, scope: Scope, receive: Receive, send: Send
    ) -> None:
        match method, path:
            case "GET", "/v1/report":
                _only(caller, "operator")
                await _report(send, self._host.report_of(resident))
            case "PUT", "/v1/config":
                _only(caller, "operator")
                await self._host.configure(parsed(await asgi.read_body(receive, CONFIG_LIMIT)))
                await _report(send, self._host.report_of(resident))
            case "GET", "/v1/bundle":
                async with resident.open() as work:
                    await BundleDoor(None, work.bundle).send_bundle(scope, receive, send)
            case _ if SessionDoor.knows(path):
                _only(caller, "gateway")
                self._host.check_open()
                if (method, path) == ("POST", "/v1/turns"):
                    self._host.check_taking()
                async with resident.open() as work:
                    await SessionDoor(work).answer(method, path, caller, scope, receive, send)
            case _:
                raise RefusedError(404, "not_found", f"a session of a host has no {method} {path[:200]}")


def _only(caller: Caller, issuer: str) -> None:
    if caller.issuer != issuer:
        raise RefusedError(403, "forbidden", f"this is for the {issuer}, not the {caller.issuer}")


async def _report(send: Send, report: Report) -> None:
    await asgi.respond(send, 200, report.model_dump_json(by_alias=True).encode())
