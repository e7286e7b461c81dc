"""Stand-ins for what is around the gateway: here the API server, in `sidecars` the pods of sessions.

Small, and as honest as they can be: tokens are verified, versions count up, watches lag behind writes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from tenure_api.names import WAKE_ANNOTATION
from tenure_gateway.api_client import AGENTS, SESSIONS, Sink
from tenure_gateway.faults import ClusterUnavailable, NameTaken, Outdated, SessionGone
from tenure_gateway.ids import Key

Object = dict[str, Any]


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
        self.extra: dict[str, Object] = {}
        """What else is known of the user of a token."""
        self.grants: set[tuple[str, str, str, str]] = set()
        """User, resource, namespace, name; an empty namespace or name means all."""
        self.verbs: set[tuple[str, str, str]] = set()
        """User, verb and name of a session, empty for all, for what is done with bundles."""
        self.wakers: set[tuple[str, str]] = set()
        """Users and names of sessions that they may wake."""
        self.wakes: list[tuple[Key, int]] = []
        """Sessions that the gateway has had woken, and at which generation."""
        self.wake_troubles: list[Exception] = []
        """What the next wakes come to instead."""
        self.reviews: list[str] = []
        self.gets = 0
        self.lose_answers = False
        """Creates are done, and their answers lost."""
        self.deleting_seconds = 0.0
        self.on_create: Callable[[Object], None] = lambda _: None
        """What the operator would do."""
        self.on_wake: Callable[[Key], object] = lambda _: None
        """The same, when a session is to be woken."""
        self.objects: dict[str, dict[Key, Object]] = {AGENTS: {}, SESSIONS: {}}
        self.lag: Callable[[], float] = lambda: 0.0
        """By how many seconds watches are behind."""
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

    def agent(self, key: Key, ready: bool = True, message: str = "", calls: tuple[str, ...] = ()) -> Object:
        """Writes an Agent, which may call other agents."""
        condition = {"type": "Ready", "status": str(ready), "reason": "R", "message": message}
        metadata = {"namespace": key.namespace, "name": key.name, "uid": f"uid-{key.name}"}
        metadata["creationTimestamp"] = "2026-11-24T00:00:00Z"
        spec = {"tools": [{"name": name, "agent": {"name": name}} for name in calls] + [{"name": "code", "code": {}}]}
        return self.put(AGENTS, {"metadata": metadata, "spec": spec, "status": {"conditions": [condition]}})

    def set_status(self, key: Key, status: Object) -> None:
        """Writes the status of a session."""
        self.put(SESSIONS, {**self.objects[SESSIONS][key], "status": status})

    def generation(self, key: Key) -> int:
        """The lease generation of a session."""
        generation: int = self.objects[SESSIONS][key].get("status", {}).get("lease", {"generation": 0})["generation"]
        return generation

    def ready(self, key: Key, address: str, identity: str | None = None, pod: str | None = None) -> None:
        """Makes a session Ready at an address, in its next pod."""
        conditions = [{"type": "Ready", "status": "True", "reason": "Ready"}]
        status = {
            "podIP": address,
            "podName": pod or f"{key.name}-session",
            "identity": identity or f"claim-of-{key.name}",
            "lease": {"generation": self.generation(key) + 1},
            "effectiveMode": "Running",
        }
        self.set_status(key, {**status, "conditions": conditions})

    def asleep(self, key: Key, kept: bool = False) -> None:
        """Puts a session to sleep."""
        obj = self.objects[SESSIONS][key]
        spec = {**obj["spec"], "operatingMode": "Hibernated" if kept else "Running"}
        left = {name: obj["status"][name] for name in ("identity", "lease") if name in obj.get("status", {})}
        condition = {"type": "Ready", "status": "True", "reason": "Hibernated", "message": "The session sleeps."}
        status = {"effectiveMode": "Hibernated", "conditions": [condition], **left}
        self.put(SESSIONS, {**obj, "spec": spec, "status": status})

    def starting(self, key: Key, message: str = "its pod starts") -> None:
        """Makes a session not Ready."""
        condition = {"type": "Ready", "status": "False", "reason": "PodStarting", "message": message}
        self.set_status(key, {"lease": {"generation": self.generation(key)}, "conditions": [condition]})

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
            if lag := self.lag():
                await asyncio.sleep(lag)
            getattr(sink, what)(obj)

    async def get_session(self, key: Key) -> Object | None:
        self._up()
        self.gets += 1
        return self.objects[SESSIONS].get(key)

    async def create_session(self, manifest: Object) -> Object:
        self._up()
        key = _key(manifest)
        if key in self.objects[SESSIONS]:
            raise NameTaken("there is one")
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

    async def wake_session(self, key: Key, version: int, generation: int) -> Object:
        self._up()
        await asyncio.sleep(0)
        if self.wake_troubles:
            raise self.wake_troubles.pop(0)
        obj = self.objects[SESSIONS].get(key)
        if obj is None:
            raise SessionGone
        metadata = obj["metadata"]
        if metadata["resourceVersion"] != str(version):
            raise Outdated
        assert obj["status"]["effectiveMode"] == "Hibernated", "only who sleeps is woken"
        assert self.generation(key) == generation
        self.wakes.append((key, generation))
        annotations = {**metadata.get("annotations", {}), WAKE_ANNOTATION: str(generation)}
        woken = self.put(SESSIONS, {**obj, "metadata": {**metadata, "annotations": annotations}})
        self.on_wake(key)
        return woken

    async def review_token(self, token: str, audience: str) -> Object:
        self._up()
        self.reviews.append("token")
        user, intended = self.tokens.get(token, ("", ""))
        if intended != audience:
            return {"authenticated": False, "error": "unknown token"}
        known = {"username": user, "groups": ["g"], "extra": self.extra.get(token, {})}
        return {"authenticated": True, "user": known, "audiences": [audience]}

    def pod(self, session: Key) -> str:
        """A token of the ServiceAccount of a session's agent, bound to the session's pod."""
        agent = self.objects[SESSIONS][session]["spec"]["agentRef"]["name"]
        token = f"token-of-the-pod-of-{session}"
        self.tokens[token] = (f"system:serviceaccount:{session.namespace}:{agent}-agent", "tenure")
        named = self.objects[SESSIONS][session].get("status", {}).get("podName", f"{session.name}-session")
        self.extra[token] = {"authentication.kubernetes.io/pod-name": [named]}
        return token

    async def review_access(self, user: Object, attributes: Object) -> bool:
        self._up()
        self.reviews.append("access")
        namespace, name = attributes["namespace"], attributes["name"]
        if attributes["verb"] == "wake":
            assert (attributes["resource"], namespace) == (SESSIONS, "shop")
            return (user["user"], name) in self.wakers
        if attributes["verb"] in ("export", "import", "decrypt"):
            assert (attributes["resource"], namespace) == (SESSIONS, "shop")
            return bool({(user["user"], attributes["verb"], each) for each in ("", name)} & self.verbs)
        assert attributes["verb"] == "use"
        wanted = {("", ""), (namespace, ""), (namespace, name)}
        return any((user["user"], attributes["resource"], *where) in self.grants for where in wanted)


def _key(obj: Object) -> Key:
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
