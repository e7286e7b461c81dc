"""`/v1/tenure/sessions/{namespace}/{name}/bundle`: sessions carried away, and sessions made of what was carried away.

What RBAC must allow, on agentsessions: `export` to carry a session away, unless it is the caller's own; `decrypt`
besides, if what it holds is not sealed; `import` in the namespace, and `use` of the agent, to make a session of a
bundle. The new session is the caller's.
"""

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_api import bundle
from tenure_gateway import ids
from tenure_gateway.access import Access, Caller
from tenure_gateway.bundles import Bundles
from tenure_gateway.directory import AgentView, SessionView
from tenure_gateway.faults import KeyReused, TurnRefused
from tenure_gateway.front import Download, json_response
from tenure_gateway.ids import Key
from tenure_gateway.openai import conversations
from tenure_gateway.openai.errors import NO_RETRY, ApiError, invalid, model_not_found, not_found
from tenure_gateway.sessions import Sessions, Wish
from tenure_gateway.spool import Spool, Spooled
from tenure_gateway.visitors import Visitors

log = logging.getLogger(__name__)

_LONGEST_NUMBER = 15


class BundleRoutes:
    """The routes of bundles."""

    def __init__(self, visitors: Visitors, access: Access, sessions: Sessions, bundles: Bundles, spool: Spool) -> None:
        self._visitors = visitors
        self._access = access
        self._sessions = sessions
        self._bundles = bundles
        self._spool = spool

    def table(self) -> list[Route]:
        """The routes."""
        where = "/v1/tenure/sessions/{namespace}/{name}/bundle"
        return [
            Route(where, self.export, methods=["GET"]),
            Route(where, self.make, methods=["POST"]),
        ]

    async def export(self, request: Request) -> Response:
        """`GET`: the session as a bundle. Query `at`: the turns that had ended by this record."""
        caller = await self._visitors.caller(request)
        key = _sealing_key(request)
        at = request.query_params.get("at")
        if at is not None and not (at.isdecimal() and at.isascii() and len(at) <= _LONGEST_NUMBER):
            raise invalid("'at' must be the number of a record of the session's journal.", "at")
        session = await self._exportable(caller, _named(request))
        log.info("%s exports session %s, %s", caller.name, session.key, "in the clear" if key is None else "sealed")
        answer = Download(await self._bundles.export(session, caller, key, at))
        answer.headers["content-type"] = bundle.MEDIA_TYPE
        answer.headers["content-disposition"] = f'attachment; filename="{session.key.name}.tenure.tar.gz"'
        return answer

    async def make(self, request: Request) -> Response:
        """`POST`: a new session that begins with the bundle in the body. Query `agent`: which agent it is with."""
        caller = await self._visitors.caller(request)
        key = _sealing_key(request)
        named = _named(request)
        if named is None:
            message = "The path must be /v1/tenure/sessions/NAMESPACE/NAME/bundle, with the name of the new session."
            raise invalid(message, None)
        agent = await self._agent(caller, named, request.query_params.get("agent", ""))
        async with self._spool.keep(request.stream()) as spooled:
            wish = Wish(agent, caller.name, name=named.name, bundle=spooled.digest)
            try:
                session = await self._sessions.create_for_turn(wish)
            except KeyReused:
                message = f"There is another session '{named}' already: import the bundle under another name."
                raise ApiError(409, "session_exists", message, headers=NO_RETRY) from None
            log.info("%s imports session %s as %s", caller.name, spooled.manifest.session, session.key)
            return json_response(conversations.conversation(await self._filled(session, caller, spooled, key)))

    async def _filled(self, session: SessionView, caller: Caller, spooled: Spooled, key: str | None) -> SessionView:
        try:
            return await self._bundles.bring(session, caller, spooled, key)
        except TurnRefused as refused:
            if refused.status in (400, 413, 507):
                # It waits for this bundle only and does not take it: nobody can use it.
                await self._sessions.delete(session)
            raise

    async def _exportable(self, caller: Caller, named: Key | None) -> SessionView:
        """A session that the caller may carry away. Who gives the key of a bundle can open it, so both rights count."""
        session = await self._sessions.look_up(named)
        if session is None or named is None:
            raise not_found("Session", str(named or ""))
        if await self._access.may_use_as_subject(caller, session):
            return session
        if not await self._access.may(caller, "export", named):
            if await self._access.may_use_session(caller, session):
                raise _denied("export", str(named))
            raise not_found("Session", str(named))
        if not await self._access.may(caller, "decrypt", named):
            raise _denied("decrypt", str(named))
        return session

    async def _agent(self, caller: Caller, session: Key, name: str) -> AgentView:
        if not name:
            message = "Say with '?agent=' which agent the session is to be with."
            raise invalid(message, "agent", "missing_required_parameter")
        key = ids.parse_key(name if "/" in name else f"{session.namespace}/{name}")
        if key is not None and key.namespace != session.namespace:
            raise invalid("The agent must be in the namespace of the session.", "agent")
        agent = await self._sessions.agent(caller, key)
        if agent is None:
            raise model_not_found(name)
        if not await self._access.may(caller, "import", Key(session.namespace, "")):
            raise _denied("import", f"namespace {session.namespace}")
        return agent


def _named(request: Request) -> Key | None:
    return ids.parse_key(f"{request.path_params['namespace']}/{request.path_params['name']}")


def _sealing_key(request: Request) -> str | None:
    given = request.headers.get(bundle.KEY_HEADER)
    try:
        return None if bundle.parse_key(given) is None else given
    except ValueError as error:
        raise invalid(f"{error}.", None, "invalid_bundle_key") from None


def _denied(verb: str, where: str, advice: str = "") -> ApiError:
    message = f"You may not do this: RBAC must allow you the verb '{verb}' on agentsessions ({where}).{advice}"
    return ApiError(403, "permission_denied", message)
