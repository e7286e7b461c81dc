"""Sessions carried away and brought back through the gateway, between real sidecars."""

import asyncio
import base64
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from yarl import URL

from tenure_api import bundle
from tenure_api.bundle import digest_name, keys_in, sha256
from tenure_api.tokens import new_private_key, public_key
from tenure_api.unpacking import Inspection
from tenure_gateway.api_client import SESSIONS
from tenure_gateway.gateway import Gateway, assemble
from tenure_gateway.ids import Key
from tenure_gateway.settings import Settings
from tenure_sidecar.settings import Source
from unit.gateway.doubles import Object, StandInCluster, listening
from unit.gateway.world import http
from unit.sidecar.support import SESSION, until
from unit.sidecar.world import GATEWAY, World, a_world, says

AGENT, ONE, TWO = Key("shop", "helper"), Key("shop", "one"), Key("shop", "two")
SEALED = {bundle.KEY_HEADER: base64.b64encode(bytes(range(32))).decode()}
STRANGER = new_private_key()


@dataclass
class Carriage:
    """A gateway; the session `shop/one` of alice's; and what the operator would do with the sessions that are made."""

    directory: Path
    cluster: StandInCluster
    gateway: Gateway
    web: httpx2.AsyncClient
    source: World
    stack: AsyncExitStack
    worlds: dict[str, World]
    made: list[Key] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    """Of the next bundles that are brought: whether the connection breaks before or after they are taken."""

    def token(self, user: str) -> dict[str, str]:
        if user not in self.tokens:
            self.tokens[user] = self.cluster.user(user, namespaces=("shop",))
        return {"authorization": f"Bearer {self.tokens[user]}"}

    def allow(self, user: str, *verbs: str) -> None:
        self.cluster.verbs |= {(user, verb, "") for verb in verbs}

    async def export(
        self, user: str = "alice", query: str = "", headers: dict[str, str] | None = None, name: str = "one"
    ) -> httpx2.Response:
        path = f"/v1/tenure/sessions/shop/{name}/bundle{query}"
        return await self.web.get(path, headers=self.token(user) | (headers or {}))

    async def make(
        self,
        data: bytes,
        user: str = "alice",
        name: str = "two",
        query: str = "?agent=helper",
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        path = f"/v1/tenure/sessions/shop/{name}/bundle{query}"
        return await self.web.post(path, content=data, headers=self.token(user) | (headers or {}))

    async def start(self, key: Key) -> None:
        """What the operator does with a session that was made: a pod that waits, and a Ready session when it has it."""
        digest = self.cluster.objects[SESSIONS][key]["spec"]["source"]["importFrom"]["digest"]
        place = self.directory / f"{key.name}-{len(self.made)}"
        self.made.append(key)
        world = await self.stack.enter_async_context(a_world(place, source=Source(digest)))
        address = f"10.0.1.{len(self.made)}"
        self.worlds[address] = world
        waiting = {"type": "Ready", "status": "False", "reason": "Restoring", "message": "it waits for its bundle"}
        status = {"podIP": address, "identity": SESSION, "lease": {"generation": 1}, "conditions": [waiting]}
        self.cluster.set_status(key, status)
        await until(lambda: world.session.unready is None)
        if key in self.cluster.objects[SESSIONS]:
            self.cluster.set_status(
                key, status | {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]}
            )

    def at(self, key: Key) -> World:
        return self.worlds[self.cluster.objects[SESSIONS][key]["status"]["podIP"]]


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    return Settings(hold_seconds=5, spool_directory=tmp_path, access_cache_seconds=0)


@pytest.fixture
async def carriage(tmp_path: Path, settings: Settings) -> AsyncIterator[Carriage]:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(a_world(tmp_path / "one"))
        source.model.now(says("one"), says("two"))
        await source.turn("first")
        await source.turn("second")
        (source.settings.workspace / "notes.txt").write_text("noted")
        worlds = {"10.0.0.1": source}

        troubles: list[str] = []

        async def reroute(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            world = worlds[request.url.host or ""]
            request.url = URL(
                str(request.url).replace(f"{request.url.host}:8081", f"127.0.0.1:{world.http.base_url.port}")
            )
            trouble = troubles.pop() if troubles and request.method == "PUT" else ""
            answer = await handler(request) if trouble != "before" else None
            if answer is None or trouble == "after":
                raise aiohttp.ServerDisconnectedError
            return answer

        client = aiohttp.ClientSession(middlewares=(reroute,), cookie_jar=aiohttp.DummyCookieJar())
        await stack.enter_async_context(client)
        cluster = StandInCluster()
        cluster.agent(AGENT)
        metadata = {"namespace": "shop", "name": "one", "uid": "u-one", "creationTimestamp": "2026-11-24T00:00:00Z"}
        cluster.put(SESSIONS, {"metadata": metadata, "spec": {"agentRef": {"name": "helper"}, "subject": "alice"}})
        cluster.ready(ONE, "10.0.0.1", identity=SESSION)
        gateway = assemble(settings, GATEWAY, cluster, client)
        url = f"http://127.0.0.1:{await stack.enter_async_context(listening(gateway.front))}"
        following = asyncio.create_task(gateway.follow())
        stack.callback(following.cancel)
        web = await stack.enter_async_context(http(base_url=url))
        found = Carriage(tmp_path, cluster, gateway, web, source, stack, worlds, troubles=troubles)
        starting: list[asyncio.Task[None]] = []

        def on_create(obj: Object) -> None:
            key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
            starting.append(asyncio.create_task(found.start(key)))

        cluster.on_create = on_create
        found.allow("alice", "import")
        yield found
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)


def inspected(data: bytes) -> Inspection:
    inspection = Inspection()
    for _ in inspection.feed(data):
        pass
    inspection.finish()
    return inspection


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_session_goes_on_where_it_was_carried_to(carriage: Carriage) -> None:
    exported = await carriage.export()
    assert exported.status_code == 200, exported.text
    assert exported.headers["content-type"] == "application/gzip"
    assert 'filename="one.tenure.tar.gz"' in exported.headers["content-disposition"]
    before = await carriage.source.texts()
    answer = await carriage.make(exported.content)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["object"], made["metadata"]["agent"]) == ("conversation", "shop/helper")
    assert made["id"] == f"conv_{b'shop/two'.hex()}"
    target = carriage.at(TWO)
    assert await target.texts() == before
    assert (target.settings.workspace / "notes.txt").read_text() == "noted"
    await target.turn("third")
    said = [message["content"] for message in target.model.requests[-1]["messages"]]
    assert said[-5:] == ["first", "one", "second", "two", "third"]
    spec = carriage.cluster.objects[SESSIONS][TWO]["spec"]
    assert spec["subject"] == "alice"
    assert spec["source"] == {"importFrom": {"digest": digest_name(sha256(exported.content))}}


async def test_what_is_exported_is_signed_by_the_gateway_and_says_whose_it_was(carriage: Carriage) -> None:
    inspection = inspected((await carriage.export()).content)
    manifest, signature = inspection.manifest, inspection.signature
    assert manifest is not None
    assert signature is not None
    assert (manifest.session, manifest.subject, manifest.turns) == ("shop/one", "alice", 2)
    before = inspection.unpacker.digest_before_member
    bundle.check_signature(signature, inspection.manifest_digest, before, keys_in(public_key(GATEWAY)))


async def test_a_sealed_bundle_needs_its_key_again(carriage: Carriage) -> None:
    data = (await carriage.export(headers=SEALED)).content
    assert b"first" not in gzip.decompress(data)
    assert refusal(await carriage.make(data)) == (400, "bundle_key_missing")
    assert TWO not in carriage.cluster.objects[SESSIONS]
    wrong = {bundle.KEY_HEADER: base64.b64encode(bytes(32)).decode()}
    assert refusal(await carriage.make(data, headers=wrong)) == (400, "bundle_key_refused")
    assert TWO not in carriage.cluster.objects[SESSIONS]
    assert refusal(await carriage.make(data, headers={bundle.KEY_HEADER: "x"})) == (400, "invalid_bundle_key")
    assert (await carriage.make(data, headers=SEALED)).status_code == 200
    assert await carriage.at(TWO).texts() == ["first", "one", "second", "two"]


async def test_an_export_up_to_a_record_has_the_turns_that_had_ended_by_then(carriage: Carriage) -> None:
    second = list(carriage.source.session.transcript)[1]
    exported = await carriage.export(query=f"?at={second.sequence}")
    manifest = inspected(exported.content).manifest
    assert manifest is not None
    assert manifest.turns == 1
    assert refusal(await carriage.export(query="?at=99999")) == (400, "no_such_record")
    assert refusal(await carriage.export(query="?at=x")) == (400, "invalid_value")


async def test_a_session_that_sleeps_is_woken_to_be_exported(carriage: Carriage) -> None:
    carriage.cluster.asleep(ONE)
    carriage.cluster.on_wake = lambda key: carriage.cluster.ready(key, "10.0.0.1", identity=SESSION)
    assert (await carriage.export()).status_code == 200
    assert len(carriage.cluster.wakes) == 1


async def test_who_may_export_and_what(carriage: Carriage) -> None:
    assert refusal(await carriage.export("bob")) == (404, "session_not_found")
    assert refusal(await carriage.export(name="none")) == (404, "session_not_found")
    carriage.cluster.grants.add(("bob", SESSIONS, "shop", ""))
    assert refusal(await carriage.export("bob")) == (403, "permission_denied")
    carriage.allow("bob", "export")
    plain = await carriage.export("bob")
    assert refusal(plain) == (403, "permission_denied")
    assert "'decrypt'" in plain.json()["error"]["message"]
    assert refusal(await carriage.export("bob", headers=SEALED)) == (403, "permission_denied")
    carriage.allow("bob", "decrypt")
    assert (await carriage.export("bob")).status_code == 200
    carriage.cluster.grants.clear()
    assert refusal(await carriage.export("alice")) == (404, "session_not_found")
    assert (await carriage.web.get("/v1/tenure/sessions/shop/one/bundle")).status_code == 401


async def test_who_may_import(carriage: Carriage) -> None:
    data = (await carriage.export()).content
    assert refusal(await carriage.make(data, "bob")) == (403, "permission_denied")
    carriage.allow("bob", "import")
    assert refusal(await carriage.make(data, "bob", query="")) == (400, "missing_required_parameter")
    assert refusal(await carriage.make(data, "bob", query="?agent=none")) == (404, "model_not_found")
    assert refusal(await carriage.make(data, "bob", query="?agent=other/helper")) == (400, "invalid_value")
    assert refusal(await carriage.make(data, "bob", name="Two")) == (400, "invalid_value")
    assert carriage.made == []
    assert (await carriage.make(data, "bob", query="?agent=shop/helper")).status_code == 200
    assert carriage.cluster.objects[SESSIONS][TWO]["spec"]["subject"] == "bob"


def resigned(data: bytes, key: str) -> bytes:
    """The bundle as another gateway would have signed it."""
    inspection = inspected(data)
    body = data[: inspection.unpacker.member_at]
    return body + bundle.sign(key, inspection.manifest_digest, sha256(body))


def repacked(data: bytes, signed: bool) -> bytes:
    """The same members in one gzip member, so that the signature is not where it must be."""
    plain = gzip.decompress(data)
    if not signed:
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            plain = plain[: tar.getmember(bundle.SIGNATURE).offset] + bundle.end()
    return gzip.compress(plain)


SPOILS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("cut", lambda data: data[:-1], "cut off"),
    ("longer", lambda data: data + b"x", "goes on"),
    ("flipped", lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:], "bundle"),
    ("a stranger's", lambda data: resigned(data, STRANGER), "not trusted here"),
    ("unsigned", lambda data: repacked(data, signed=False), "not signed"),
    ("repacked", lambda data: repacked(data, signed=True), "has been changed"),
    ("nothing", lambda _: b"", "cut off"),
    ("something else", lambda _: json.dumps({"input": "hello"}).encode(), "damaged"),
]


@pytest.mark.parametrize(("what", "spoil", "message"), SPOILS, ids=[what for what, *_ in SPOILS])
async def test_a_bundle_that_was_changed_makes_no_session(
    carriage: Carriage, what: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    data = (await carriage.export()).content
    answer = await carriage.make(spoil(data))
    assert refusal(answer) == (400, "invalid_bundle")
    assert message in answer.json()["error"]["message"]
    assert carriage.made == []
    assert set(carriage.cluster.objects[SESSIONS]) == {ONE}


class TestWithAStrangersKey:
    @pytest.fixture
    async def settings(self, tmp_path: Path) -> Settings:
        (tmp_path / "trusted.pem").write_text(public_key(new_private_key()) + public_key(STRANGER))
        return Settings(hold_seconds=5, spool_directory=tmp_path, trusted_keys_file=tmp_path / "trusted.pem")

    async def test_a_bundle_of_a_trusted_gateway_is_taken(self, carriage: Carriage) -> None:
        data = (await carriage.export()).content
        assert (await carriage.make(resigned(data, STRANGER))).status_code == 200
        assert (await carriage.make(data, name="three")).status_code == 200


class TestWithLittleRoom:
    @pytest.fixture
    async def settings(self, tmp_path: Path) -> Settings:
        return Settings(hold_seconds=5, spool_directory=tmp_path, max_bundle_bytes=1024)

    async def test_a_bundle_that_is_too_long_is_refused(self, carriage: Carriage) -> None:
        data = (await carriage.export()).content
        assert refusal(await carriage.make(data)) == (413, "bundle_too_large")
        assert carriage.made == []


async def test_the_same_import_again_is_the_same_session(carriage: Carriage) -> None:
    data = (await carriage.export()).content
    first, second = await asyncio.gather(carriage.make(data), carriage.make(data))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json() == (await carriage.make(data)).json()
    assert carriage.made == [TWO]
    carriage.allow("bob", "import")
    assert refusal(await carriage.make(data, "bob")) == (409, "session_exists")
    other = (await carriage.export()).content
    assert refusal(await carriage.make(other)) == (409, "session_exists")
    assert refusal(await carriage.make(data, name="one")) == (409, "session_exists")


async def test_an_import_whose_pod_does_not_start_is_gone_on_with_by_the_next_request(carriage: Carriage) -> None:
    data = (await carriage.export()).content
    start, carriage.cluster.on_create = carriage.cluster.on_create, lambda _: None
    assert refusal(await carriage.make(data)) == (503, "session_not_ready")
    start(carriage.cluster.objects[SESSIONS][TWO])
    assert (await carriage.make(data)).status_code == 200


@pytest.mark.parametrize("trouble", ["before", "after"])
async def test_a_bundle_is_brought_again_when_the_pod_breaks(carriage: Carriage, trouble: str) -> None:
    data = (await carriage.export()).content
    carriage.troubles.append(trouble)
    assert (await carriage.make(data)).status_code == 200
    assert carriage.troubles == []
    assert await carriage.at(TWO).texts() == ["first", "one", "second", "two"]


async def test_nothing_of_a_bundle_is_left_in_the_spool(carriage: Carriage) -> None:
    before = set(carriage.directory.iterdir())
    data = (await carriage.export()).content
    await carriage.make(data[:-5])
    await carriage.make(data)
    assert {path.name for path in set(carriage.directory.iterdir()) - before} == {"two-0"}


def test_a_file_of_keys_that_holds_none_is_named(tmp_path: Path) -> None:
    path: Any = tmp_path / "keys.pem"
    path.write_text("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    with pytest.raises(Exception, match="TENURE_TRUSTED_KEYS_FILE"):
        Settings(trusted_keys_file=path).trusted_keys()
