"""Stand-ins for what is around the gateway: the API server, and the sidecars of sessions.

Small, and as honest as they can be: tokens are verified, versions count up, watches lag behind writes, a turn id runs
once, and connections really break.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from tenure_api.tokens import RefusedError, Verifier, new_private_key, public_key
from tenure_api.wire import Failure, Item, Role, Turn, TurnRequest, TurnStatus, Usage
from tenure_gateway.api_client import AGENTS, SESSIONS, Sink
from tenure_gateway.faults import ClusterUnavailable
from tenure_gateway.ids import Key

Object = dict[str, Any]

SIGNING_KEY = new_private_key()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
CLOSED_PORT = 9
"""Discard: nothing listens there."""


@asynccontextmanager
async def listening(app: ASGIApp, protocol: type | None = None) -> AsyncIterator[int]:
    """The port of an application that is served on the loopback."""
    config = uvicorn.Config(
        app, proxy_headers=False, http=protocol or "httptools", ws="none", lifespan="off", log_config=None
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: config.http_protocol_class(
            config=config, server_state=state, app_state={"connections": state.connections}
        ),  # type: ignore[call-arg]
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in state.tasks:
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class StandInCluster:
    """A stand-in for the API server: objects, watches that lag, tokens and grants."""

    def __init__(self) -> None:
        self.down = False
        self.tokens: dict[str, tuple[str, str]] = {}
        """User and audience by token."""
        self.grants: set[tuple[str, str, str, str]] = set()
        """User, resource, namespace, name; an empty namespace or name means all."""
        self.reviews: list[str] = []
        self.gets = 0
        self.lose_answers = False
        """Creates are done, and their answers lost."""
        self.deleting_seconds = 0.0
        self.on_create: Callable[[Object], None] = lambda _: None
        """What the operator would do."""
        self.objects: dict[str, dict[Key, Object]] = {AGENTS: {}, SESSIONS: {}}
        self._version = 100
        self._sinks: dict[str, list[asyncio.Queue[tuple[str, Object]]]] = {AGENTS: [], SESSIONS: []}

    def user(self, name: str, audience: str = "tenure", *, namespaces: tuple[str, ...] = ()) -> str:
        """A token of a user who may use all agents in these namespaces."""
        token = f"token-of-{name}-for-{audience}"
        self.tokens[token] = (name, audience)
        self.grants |= {(name, AGENTS, namespace, "") for namespace in namespaces}
        return token

    def put(self, resource: str, obj: Object) -> Object:
        """Writes an object, whole."""
        self._version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self.objects[resource][_key(obj)] = obj
        self._tell(resource, "put", obj)
        return obj

    def remove(self, resource: str, key: Key) -> None:
        """Deletes an object."""
        obj = self.objects[resource].pop(key)
        self._version += 1
        gone = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self._tell(resource, "forget", gone)

    def agent(self, key: Key, ready: bool = True, message: str = "") -> Object:
        """Writes an Agent."""
        condition = {"type": "Ready", "status": str(ready), "reason": "R", "message": message}
        metadata = {"namespace": key.namespace, "name": key.name, "uid": f"uid-{key.name}"}
        metadata["creationTimestamp"] = "2026-11-24T00:00:00Z"
        return self.put(AGENTS, {"metadata": metadata, "spec": {}, "status": {"conditions": [condition]}})

    def set_status(self, key: Key, status: Object) -> None:
        """Writes the status of a session."""
        self.put(SESSIONS, {**self.objects[SESSIONS][key], "status": status})

    def ready(self, key: Key, address: str) -> None:
        """Makes a session Ready at an address."""
        self.set_status(key, {"podIP": address, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]})

    def starting(self, key: Key, message: str = "its pod starts") -> None:
        """Makes a session not Ready."""
        condition = {"type": "Ready", "status": "False", "reason": "PodStarting", "message": message}
        self.set_status(key, {"conditions": [condition]})

    def _tell(self, resource: str, what: str, obj: Object) -> None:
        for queue in self._sinks[resource]:
            queue.put_nowait((what, obj))

    def _up(self) -> None:
        if self.down:
            raise ClusterUnavailable("the API server does not answer")

    # --- what the gateway calls --------------------------------------------------------------------------------

    async def follow(self, resource: str, sink: Sink) -> None:
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._sinks[resource].append(queue)
        sink.replace(list(self.objects[resource].values()), self._version)
        while True:
            what, obj = await queue.get()
            getattr(sink, what)(obj)

    async def get_session(self, key: Key) -> Object | None:
        self._up()
        self.gets += 1
        return self.objects[SESSIONS].get(key)

    async def create_session(self, manifest: Object) -> Object:
        self._up()
        key = _key(manifest)
        assert key not in self.objects[SESSIONS]
        made = {"uid": f"uid-{key.name}", "creationTimestamp": "2026-11-24T00:00:00Z"}
        obj = self.put(SESSIONS, {**manifest, "metadata": {**manifest["metadata"], **made}})
        if self.lose_answers:
            raise ClusterUnavailable("the API server does not answer")
        self.on_create(obj)
        return obj

    async def delete_session(self, key: Key, uid: str | None) -> None:
        self._up()
        await asyncio.sleep(self.deleting_seconds)
        known = self.objects[SESSIONS].get(key)
        if known is not None and uid in (None, known["metadata"]["uid"]):
            self.remove(SESSIONS, key)

    async def review_token(self, token: str, audience: str) -> Object:
        self._up()
        self.reviews.append("token")
        user, intended = self.tokens.get(token, ("", ""))
        if intended != audience:
            return {"authenticated": False, "error": "unknown token"}
        return {"authenticated": True, "user": {"username": user, "groups": ["g"]}, "audiences": [audience]}

    async def review_access(self, user: Object, attributes: Object) -> bool:
        self._up()
        self.reviews.append("access")
        assert attributes["verb"] == "use"
        namespace, name = attributes["namespace"], attributes["name"]
        wanted = {("", ""), (namespace, ""), (namespace, name)}
        return any((user["user"], attributes["resource"], *where) in self.grants for where in wanted)


def _key(obj: Object) -> Key:
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])


@dataclass
class Volume:
    """What survives a pod: the turns of a session."""

    turns: dict[str, tuple[TurnRequest, Turn]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    """Turn ids, once for each time that a turn was begun."""

    def items(self) -> list[Item]:
        """The transcript."""
        found: list[Item] = []
        for request, turn in self.turns.values():
            if turn.status is TurnStatus.COMPLETED:
                said = [_item(request, n, message.role, message.text) for n, message in enumerate(request.input)]
                found += [*said, *turn.output]
        return found


def _item(request: TurnRequest, n: int, role: Role, text: str) -> Item:
    return Item(id=f"msg_{request.turn}_{n}", turn=request.turn, role=role, text=text, created_at=NOW)


@dataclass
class Pod:
    """A stand-in for a session's pod. `speech` makes the deltas of an answer from the texts that were said so far."""

    uid: str
    volume: Volume
    speech: Callable[[list[str]], list[str]]
    breaks: list[str] = field(default_factory=list)
    """What goes wrong, one for each turn request.

    The connection breaks `before` or `after` the turn is recorded, `late` after that, in the `middle` of the answer; or
    nothing more is heard, `silent` before and `mute` after it is recorded; or the answer begins again, `restart`,
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
    subjects: list[str | None] = field(default_factory=list)
    requests: list[TurnRequest] = field(default_factory=list)


class StandInSidecars:
    """A stand-in for the network of pods: one application, which knows pods by their address."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.port = 0

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
        pod = self.pods[headers["x-pod"]]
        try:
            verifier = Verifier(pod.uid, {"gateway": public_key(SIGNING_KEY)})
            caller = verifier.caller(headers["authorization"].removeprefix("Bearer "), datetime.now(UTC).timestamp())
        except RefusedError as error:
            await _reply(send, 401, {"code": "unauthorized", "message": str(error)})
            return
        pod.subjects.append(caller.subject)
        path = scope["path"]
        if path == "/v1/items":
            if pod.deaf:
                await asyncio.Event().wait()
            await _items(pod, scope, send)
        elif found := re.fullmatch(r"/v1/turns/([0-9a-f]{32})", path):
            recorded = pod.volume.turns.get(found[1])
            if recorded is None:
                await _reply(send, 404, {"code": "turn_not_found", "message": "no such turn"})
            else:
                await _reply(send, 200, recorded[1].model_dump(mode="json", by_alias=True))
        else:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            trouble = pod.breaks.pop(0) if pod.breaks else ""
            if trouble == "before":
                _reset(scope)
                return
            if trouble == "silent":
                await asyncio.Event().wait()
            await _turn(pod, TurnRequest.model_validate_json(body), trouble, send)


async def _reply(send: Send, status: int, body: Object) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _items(pod: Pod, scope: Scope, send: Send) -> None:
    query = dict(part.split("=") for part in scope["query_string"].decode().split("&"))
    items = pod.volume.items()
    if query["order"] == "desc":
        items.reverse()
    if "after" in query:
        ids = [item.id for item in items]
        if query["after"] not in ids:
            await _reply(send, 404, {"code": "item_not_found", "message": "no such item"})
            return
        items = items[ids.index(query["after"]) + 1 :]
    limit = int(query["limit"])
    page = [item.model_dump(mode="json", by_alias=True) for item in items[:limit]]
    await _reply(send, 200, {"data": page, "hasMore": len(items) > limit})


def _reset(scope: Scope) -> None:
    """Breaks the connection of a request that has no answer yet."""
    for connection in scope["state"]["connections"]:
        if connection.cycle is not None and connection.cycle.scope is scope:
            connection.transport.abort()


async def _turn(pod: Pod, request: TurnRequest, trouble: str, send: Send) -> None:
    if pod.refusals:
        status, code = pod.refusals.pop(0)
        await _reply(send, status, {"code": code, "message": f"refused: {code}"})
        return
    ended = [turn for turn, (_, recorded) in pod.volume.turns.items() if recorded.status is TurnStatus.COMPLETED]
    known = pod.volume.turns.get(request.turn)
    if known is None and request.previous_turn is not None and request.previous_turn != (ended[-1] if ended else None):
        await _reply(send, 409, {"code": "previous_turn_not_last", "message": "not the last"})
        return
    pod.requests.append(request)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await _event(send, {"type": "started"})
    if known is None:
        pod.volume.runs.append(request.turn)
    if trouble == "after":
        raise ConnectionResetError
    if trouble == "mute":
        await asyncio.Event().wait()
    if trouble == "late":
        await asyncio.sleep(0.5)
        raise ConnectionResetError
    turn = await _run(pod, request, trouble, send)
    pod.volume.turns[request.turn] = (request, turn)
    await _event(send, {"type": "ended", "turn": turn.model_dump(mode="json", by_alias=True)}, last=True)


async def _run(pod: Pod, request: TurnRequest, trouble: str, send: Send) -> Turn:
    heard = [item.text for item in pod.volume.items()] + [message.text for message in request.input]
    deltas = pod.speech(heard)
    if trouble == "fail":
        error = Failure(code=pod.failure, message="the model said no")
        return Turn(turn=request.turn, status=TurnStatus.FAILED, created_at=NOW, error=error)
    if trouble == "restart first":
        await _event(send, {"type": "restarted"})
    for n, delta in enumerate(deltas):
        await _event(send, {"type": "delta", "text": delta})
        if n == 0 and pod.gate is not None:
            await pod.gate.wait()
        if n == 0 and trouble == "middle":
            await asyncio.sleep(0.01)
            raise ConnectionResetError
        if n == 0 and trouble == "restart":
            await asyncio.sleep(0.01)
            await _event(send, {"type": "restarted"})
            await _event(send, {"type": "delta", "text": delta})
    output = _item(request, len(request.input), Role.ASSISTANT, "".join(deltas))
    return Turn(
        turn=request.turn,
        status=TurnStatus.COMPLETED,
        created_at=NOW,
        output=[output],
        usage=Usage(input_tokens=7, output_tokens=len(deltas)),
        finish_reason="length" if trouble == "cut" else "stop",
    )


async def _event(send: Send, event: Object, last: bool = False) -> None:
    message: Message = {"type": "http.response.body", "body": json.dumps(event).encode() + b"\n", "more_body": not last}
    await send(message)
