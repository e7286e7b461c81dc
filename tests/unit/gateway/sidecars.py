"""Stand-ins for the sidecars of sessions: tokens are verified, a turn id runs once, and connections really break."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote

import aiohttp
from starlette.types import Receive, Scope, Send

from tenure_api.tokens import RefusedError, Verifier, new_private_key, public_key
from tenure_api.wire import Decisions, Failure, File, FileList, Item, TurnRequest, TurnStatus
from unit.gateway.courses import NOW, Course, Deed, Void

Object = dict[str, Any]

SIGNING_KEY = new_private_key()
CLOSED_PORT = 9
"""Discard: nothing listens there."""


def whole(text: str) -> list[str]:
    """The text in one piece."""
    return [text] if text else []


@dataclass
class Volume:
    """What survives a pod: the turns of a session, and its files."""

    turns: dict[str, Course] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def items(self) -> list[Item]:
        """The transcript."""
        found: list[Item] = []
        for course in self.completed():
            request = course.request
            found += [
                Item(id=f"msg_{request.turn}_{n}", turn=request.turn, role=said.role, text=said.text, created_at=NOW)
                for n, said in enumerate(request.input)
            ]
            found += course.output()
        return found

    def completed(self) -> list[Course]:
        """The turns that are part of the conversation."""
        return [
            course
            for course in self.turns.values()
            if course.ended is not None and course.ended.status is TurnStatus.COMPLETED
        ]


@dataclass
class Pod:
    """A session's pod. `speech` makes of the texts that were said so far what the agent does."""

    identity: str
    volume: Volume
    speech: Callable[[list[str]], list[Deed]]
    breaks: list[str] = field(default_factory=list)
    """What goes wrong, one for each request of a turn's events.

    The connection breaks `before` or `after` the turn is recorded, `late` after that, in the `middle` of the answer; or
    nothing more is heard, `silent` before and `mute` after it is recorded; or a model call is made again, `restart`,
    `restart first`; or the turn will `fail` or be `cut`.
    """
    failure: str = "model_error"
    """Code of turns that fail."""
    deaf: bool = False
    """Whether it says nothing when it is asked for items."""
    refusals: list[tuple[int, str]] = field(default_factory=list)
    """Status and code of refusals, one for each turn request."""
    gate: asyncio.Event | None = None
    """Answers wait for it after their first delta."""
    cut: Callable[[str], list[str]] = whole
    """How the text so far is cut for who comes late."""
    bytes_left: list[int] = field(default_factory=list)
    """After how many bytes streams break, one for each."""
    subjects: list[str | None] = field(default_factory=list)
    requests: list[TurnRequest] = field(default_factory=list)
    listed: int = 1000
    """Most files of a listing."""
    draining: bool = False
    """Whether it refuses all that would change something, because its session is about to fall asleep."""
    ongoing: int = 0
    """Requests on the way that such a session is not put to sleep for."""

    def idle(self) -> bool:
        """Whether nothing goes on."""
        courses = self.volume.turns.values()
        return self.ongoing == 0 and all(
            course.ended is not None or course.status is TurnStatus.AWAITING_APPROVAL for course in courses
        )


class StandInSidecars:
    """A stand-in for the network of pods: one application, which knows pods by their address."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.port = 0
        self.calls: list[str] = []
        """Methods and paths of all calls."""

    def client(self) -> aiohttp.ClientSession:
        """A client whose connections to pods come here; those to addresses without a pod are refused."""
        pods, port = self.pods, self.port

        async def reroute(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            address = request.url.host or ""
            assert request.url.port == 8081
            where = request.url.with_host("127.0.0.1").with_port(port if address in pods else CLOSED_PORT)
            request.url = where
            request.headers["x-pod"] = address
            return await handler(request)

        return aiohttp.ClientSession(middlewares=(reroute,), cookie_jar=aiohttp.DummyCookieJar())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        pod = self.pods.get(headers["x-pod"])
        if pod is None:  # it ended while the connection was made
            _reset(scope)
            return
        try:
            verifier = Verifier(pod.identity, {"gateway": public_key(SIGNING_KEY)})
            caller = verifier.caller(headers["authorization"].removeprefix("Bearer "), datetime.now(UTC).timestamp())
        except RefusedError as error:
            await _refuse(send, 401, "unauthorized", str(error))
            return
        pod.subjects.append(caller.subject)
        self.calls.append(f"{scope['method']} {scope['path']}")
        if pod.draining and scope["method"] != "GET":
            await _refuse(send, 503, "draining")
            return
        pod.ongoing += 1
        try:
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body, more = body + message.get("body", b""), message.get("more_body", False)
            await _answer(pod, scope, body, send, caller.subject)
        finally:
            pod.ongoing -= 1


async def _answer(pod: Pod, scope: Scope, body: bytes, send: Send, subject: str | None) -> None:
    method, path = scope["method"], scope["raw_path"].decode().partition("?")[0]
    found = re.fullmatch(r"/v1/turns(?:/([0-9a-f]{32})(/events|/approvals|/cancel)?)?", path)
    if path == "/v1/items":
        if pod.deaf:
            await asyncio.Event().wait()
        await _items(pod, scope, send)
    elif path.startswith("/v1/files"):
        await _files(pod, method, path.removeprefix("/v1/files").removeprefix("/"), body, send)
    elif found is None:
        await _refuse(send, 404, "not_found")
    elif found[1] is None or found[2] == "/events":
        await _events(pod, scope, found[1], body, send)
    elif (course := pod.volume.turns.get(found[1])) is None:
        await _refuse(send, 404, "turn_not_found")
    elif found[2] == "/approvals":
        decisions = Decisions.model_validate_json(body).decisions
        asked = {item.id for item in course.output()}
        if not asked.issuperset(decision.approval for decision in decisions):
            await _refuse(send, 404, "approval_not_found")
        elif not course.decide(decisions, subject):
            await _refuse(send, 409, "already_decided")
        else:
            await _reply(send, 200, course.turn().model_dump(mode="json", by_alias=True))
    else:
        if found[2] == "/cancel" and course.ended is None:
            if course.task is not None:
                course.task.cancel()
            course.end(TurnStatus.CANCELLED)
        await _reply(send, 200, course.turn().model_dump(mode="json", by_alias=True))


async def _reply(send: Send, status: int, body: Object) -> None:
    await _send(send, status, json.dumps(body).encode())


async def _send(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, status: int, code: str, message: str = "") -> None:
    await _reply(send, status, {"code": code, "message": message or f"refused: {code}"})


async def _items(pod: Pod, scope: Scope, send: Send) -> None:
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    items = pod.volume.items()
    if query["order"] == "desc":
        items.reverse()
    if "after" in query:
        ids = [item.id for item in items]
        if query["after"] not in ids:
            await _refuse(send, 404, "item_not_found")
            return
        items = items[ids.index(query["after"]) + 1 :]
    limit = int(query["limit"])
    page = [item.model_dump(mode="json", by_alias=True) for item in items[:limit]]
    await _reply(send, 200, {"data": page, "hasMore": len(items) > limit})


async def _files(pod: Pod, method: str, encoded: str, body: bytes, send: Send) -> None:
    files, path = pod.volume.files, unquote(encoded)
    if not path:
        data = [File(path=name, size=len(files[name]), modified_at=NOW) for name in sorted(files)[: pod.listed]]
        listing = FileList(data=data, has_more=len(files) > pod.listed)
        await _reply(send, 200, listing.model_dump(mode="json", by_alias=True))
    elif any(name in ("", ".", "..") for name in path.split("/")):
        await _refuse(send, 400, "invalid_path")
    elif method == "PUT":
        if b"too much" in body:
            await _refuse(send, 507, "volume_full")
            return
        files[path] = body
        await _reply(send, 200, File(path=path, size=len(body), modified_at=NOW).model_dump(mode="json", by_alias=True))
    elif path not in files:
        await _refuse(send, 404, "file_not_found")
    elif method == "DELETE":
        del files[path]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif pod.bytes_left:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": files[path][: pod.bytes_left.pop(0)], "more_body": True})
        await asyncio.sleep(0.01)
        raise ConnectionResetError
    else:
        await _send(send, 200, files[path])


def _reset(scope: Scope) -> None:
    """Breaks the connection of a request that has no answer yet."""
    for connection in scope["state"]["connections"]:
        if connection.cycle is not None and connection.cycle.scope is scope:
            connection.transport.abort()


async def _events(pod: Pod, scope: Scope, turn: str | None, body: bytes, send: Send) -> None:
    trouble = pod.breaks.pop(0) if pod.breaks else ""
    if trouble == "before":
        _reset(scope)
        return
    if trouble == "silent":
        await asyncio.Event().wait()
    if turn is None:
        refusal, course = _taken(pod, TurnRequest.model_validate_json(body), trouble)
    else:
        refusal, course = (404, "turn_not_found"), pod.volume.turns.get(turn)
    if course is None:
        await _refuse(send, *refusal)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    left = pod.bytes_left.pop(0) if pod.bytes_left else None
    deltas = 0
    async for event in course.events(pod.cut):
        line = json.dumps(event).encode() + b"\n"
        if left is not None:
            line, left = line[:left], left - len(line)
        await send({"type": "http.response.body", "body": line, "more_body": True})
        if left is not None and left < 0:
            await asyncio.sleep(0.001)
            raise ConnectionResetError
        await _stumble(trouble, event, deltas)
        deltas += event["type"] == "delta"
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _stumble(trouble: str, event: Object, deltas: int) -> None:
    started = event["type"] == "started"
    if started and trouble == "after":
        raise ConnectionResetError
    if started and trouble == "mute":
        await asyncio.Event().wait()
    if started and trouble == "late":
        await asyncio.sleep(0.5)
        raise ConnectionResetError
    if trouble == "middle" and event["type"] == "delta" and deltas == 0:
        await asyncio.sleep(0.01)
        raise ConnectionResetError


def _taken(pod: Pod, request: TurnRequest, trouble: str) -> tuple[tuple[int, str], Course | None]:
    """The turn of a request, or why there is none."""
    if pod.refusals:
        return pod.refusals.pop(0), None
    known = pod.volume.turns.get(request.turn)
    if known is not None and known.request != request:
        return (409, "turn_conflict"), None
    if known is None:
        if any(course.turn().status is TurnStatus.AWAITING_APPROVAL for course in pod.volume.turns.values()):
            return (409, "approval_pending"), None
        last = [course.request.turn for course in pod.volume.completed()][-1:]
        if request.previous_turn is not None and [request.previous_turn] != last:
            return (409, "previous_turn_not_last"), None
    pod.requests.append(request)
    if known is not None:
        return (0, ""), known
    for file in request.files:
        pod.volume.files[file.path] = file.data.encode()
    heard = [item.text for item in pod.volume.items()] + [message.text for message in request.input]
    deeds = pod.speech(heard)
    if trouble == "restart first":
        deeds = [Void(""), *deeds]
    if trouble == "restart":
        deeds = [Void(str(deeds[0])), *deeds]
    course = pod.volume.turns[request.turn] = Course(request)
    course.finish = "length" if trouble == "cut" else "stop"
    course.failure = Failure(code=pod.failure, message="the model said no") if trouble == "fail" else None
    course.task = asyncio.create_task(course.run(deeds, pod.gate))
    return (0, ""), course
