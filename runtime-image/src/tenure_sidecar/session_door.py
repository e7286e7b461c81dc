"""What the gateway asks of a session: turns, items and files. The calls are those of `tenure_api.wire`."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Protocol
from urllib.parse import parse_qs

from tenure_api.messages import Wire
from tenure_api.tokens import Caller
from tenure_api.wire import TURN_ID, Decisions, TurnRequest
from tenure_sidecar import asgi
from tenure_sidecar.activity import Activity
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.turn.engine import Turns
from tenure_sidecar.turn.live import Live
from tenure_sidecar.turn.transcript import Transcript
from tenure_sidecar.workspace.door import FileDoor
from tenure_sidecar.workspace.files import Files

TURN_LIMIT = 48 * 1024 * 1024
"""Most bytes of a turn's request, with the files that come with it in base64."""
DECISIONS_LIMIT = 256 * 1024
_TURN = re.compile(TURN_ID)


class Served(Protocol):
    """A session that can be asked."""

    files: Files
    activity: Activity

    @property
    def turns(self) -> Turns:
        """The turn engine. Raises `JournalError` or `RefusedError` while there is none."""

    @property
    def transcript(self) -> Transcript:
        """The transcript. Raises `JournalError` while there is none."""

    def admit(self) -> None:
        """The workspace is about to be changed. Raises `RefusedError` or `JournalError` if it may not be."""


class SessionDoor:
    """Answers for one session."""

    def __init__(self, session: Served) -> None:
        self._session = session
        self._files = FileDoor(session.files)

    @staticmethod
    def knows(path: str) -> bool:
        """Whether this is a path of these calls."""
        return path in ("/v1/turns", "/v1/items", "/v1/files") or path.startswith(("/v1/turns/", "/v1/files/"))

    async def answer(self, method: str, path: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `RefusedError`, `JournalError` or `Gone`."""
        match method, path:
            case "POST", "/v1/turns":
                await self._take_turn(receive, send)
            case "GET", "/v1/items":
                await self._items(scope, send)
            case _, path if path.startswith("/v1/turns/"):
                await self._turn(method, path.removeprefix("/v1/turns/"), caller, receive, send)
            case _, path if path == "/v1/files" or path.startswith("/v1/files/"):
                await self._file(method, path.removeprefix("/v1/files").removeprefix("/"), receive, send)
            case _:
                raise RefusedError(404, "not_found", f"the sidecar has no {method} {path[:200]}")

    async def _take_turn(self, receive: Receive, send: Send) -> None:
        request = asgi.parsed(TurnRequest, await asgi.read_body(receive, TURN_LIMIT), "invalid_turn")
        await self._follow(self._session.turns.submit(request), receive, send)

    async def _follow(self, live: Live, receive: Receive, send: Send) -> None:
        with live.listening(), self._session.activity.ongoing():
            await _while_heard(live.begun(), receive)
            await _while_heard(_tell(live, send), receive)

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


def _no_turn() -> RefusedError:
    return RefusedError(404, "turn_not_found", "there is no such turn in this session")


async def _respond(send: Send, message: Wire) -> None:
    await asgi.respond(send, 200, message.model_dump_json(by_alias=True).encode())


async def _tell(live: Live, send: Send) -> None:
    await asgi.begin(send, 200, asgi.NDJSON)
    async for lines in live.events():
        await asgi.more(send, lines)
    await asgi.end(send)


async def _while_heard(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do this as long as the client waits for it. Raises `Gone` when that leaves."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise asgi.Gone
        working.result()
    finally:
        working.cancel()
        gone.cancel()
