"""`/v1/bundle`: sessions that are written, and sessions that begin with what was written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tenure_api.bundle import digest_name, sha256
from tenure_api.unpacking import Inspection
from tenure_sidecar.settings import Source
from unit.sidecar.bundle.histories import HEADER
from unit.sidecar.support import until
from unit.sidecar.world import Json, World, a_world, says


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[World]:
    """A session with two turns and a file."""
    async with a_world(tmp_path / "source") as world:
        world.model.now(says("one"), says("two"))
        await world.turn("first")
        await world.turn("second")
        (world.settings.workspace / "notes.txt").write_text("noted")
        yield world


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[World]:
    """A session that is to begin as a fork."""
    async with a_world(tmp_path / "target", source=Source()) as world:
        await until(lambda: "waits for the state" in (world.session.unready or ""))
        yield world


async def export(world: World, query: str = "", headers: dict[str, str] | None = None) -> bytes:
    answer = await world.http.get(f"/v1/bundle{query}", headers=world.token("operator") | (headers or {}))
    assert answer.status_code == 200, answer.text
    return answer.content


async def put(
    world: World, data: bytes, issuer: str = "operator", headers: dict[str, str] | None = None
) -> httpx.Response:
    return await world.http.put("/v1/bundle", content=data, headers=world.token(issuer) | (headers or {}), timeout=20)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def state(world: World) -> str:
    found: str = (await world.report())["journal"]
    return found


async def test_a_fork_goes_on_where_its_source_was(source: World, target: World) -> None:
    assert await state(target) == "AwaitingBundle"
    assert (await target.http.get("/healthz")).status_code == 200
    ready = await target.http.get("/readyz")
    assert (ready.status_code, "waits for the state" in ready.text) == (503, True)
    assert (await target.http.get("/v1/items", headers=target.token())).status_code == 503
    answer = await put(target, await export(source))
    assert answer.status_code == 200
    report: Json = answer.json()
    last = (await source.report())["sequence"]
    assert (report["journal"], report["turns"]) == ("Open", 2)
    assert report["origin"]["session"] == "shop/one"
    assert report["origin"]["sequence"] <= last
    assert await target.texts() == await source.texts() == ["first", "one", "second", "two"]
    assert (target.settings.workspace / "notes.txt").read_text() == "noted"
    target.model.now(says("three"))
    await target.turn("third")
    await target.stop()
    await target.start()
    await target.ready()
    assert (await target.texts())[-2:] == ["third", "three"]
    assert (await target.report())["origin"] == report["origin"]
    assert (await source.texts())[-1] == "two"


async def test_the_model_is_told_the_history_of_the_source(source: World, target: World) -> None:
    await put(target, await export(source))
    await target.turn("third")
    said = [message["content"] for message in target.model.requests[-1]["messages"]]
    assert said[-5:] == ["first", "one", "second", "two", "third"]


async def test_a_fork_at_a_record_has_the_turns_that_had_ended_by_then(source: World, target: World) -> None:
    turns = list(source.session.transcript)
    await put(target, await export(source, f"?at={turns[1].sequence}"))
    assert await target.texts() == ["first", "one"]


async def test_an_import_takes_the_bundle_of_its_digest_and_no_other(source: World, tmp_path: Path) -> None:
    data, sealed = await export(source), await export(source, headers=HEADER)
    async with a_world(tmp_path / "import", source=Source(digest_name(sha256(sealed)))) as target:
        assert await state(target) == "AwaitingBundle"
        assert refusal(await put(target, sealed, "gateway")) == (400, "bundle_key_missing")
        assert refusal(await put(target, data, "gateway")) == (400, "bundle_digest_differs")
        assert refusal(await put(target, sealed[:-9], "gateway", HEADER)) == (400, "invalid_bundle")
        assert await state(target) == "AwaitingBundle"
        assert (await put(target, sealed, "gateway", HEADER)).status_code == 200
        assert await target.texts() == await source.texts()
        assert (await put(target, sealed, "gateway", HEADER)).status_code == 200
        assert refusal(await put(target, data, "gateway")) == (409, "already_begun")
        assert (await target.report())["origin"]["digest"] == digest_name(sha256(sealed))


async def test_the_same_state_again_changes_nothing_and_another_is_refused(source: World, target: World) -> None:
    first = await export(source)
    await put(target, first)
    before = await target.report()
    assert (await put(target, await export(source))).json()["sequence"] == before["sequence"]
    await source.turn("third")
    assert refusal(await put(target, await export(source))) == (409, "already_begun")
    assert refusal(await put(target, b"nonsense")) == (400, "invalid_bundle")
    assert refusal(await put(source, first)) == (409, "not_awaiting_bundle")


async def test_two_at_once_are_taken_one_after_the_other(source: World, target: World) -> None:
    data = await export(source)
    assert await state(target) == "AwaitingBundle"
    answers = await asyncio.gather(*(put(target, data) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_a_sender_that_goes_away_leaves_nothing(source: World, target: World) -> None:
    data = await export(source)

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await target.http.put("/v1/bundle", content=half(), headers=target.token("operator"))
    assert await state(target) == "AwaitingBundle"
    await until(lambda: not (target.settings.state / "incoming").exists())
    assert (await put(target, data)).status_code == 200


async def test_a_restart_while_it_waits_changes_nothing(source: World, target: World) -> None:
    assert await state(target) == "AwaitingBundle"
    await target.stop()
    await target.start()
    assert await state(target) == "AwaitingBundle"
    assert (await put(target, await export(source))).status_code == 200


async def test_nothing_is_put_to_sleep_while_it_is_written(source: World) -> None:
    (source.settings.workspace / "big").write_bytes(bytes(3_000_000))
    async with AsyncExitStack() as stack:
        headers = source.token("operator")
        answer = await stack.enter_async_context(source.http.stream("GET", "/v1/bundle", headers=headers))
        assert answer.status_code == 200
        assert source.session.activity.idle_seconds is None or await answer.aread()
    await until(lambda: source.session.activity.idle_seconds is not None)


async def test_who_signs_is_left_the_end(source: World) -> None:
    data = await export(source, "?end=open&subject=alice%20%C3%A9")
    inspection = Inspection()
    for _ in inspection.feed(data):
        pass
    assert inspection.unpacker.unfinished
    manifest = inspection.described()
    assert (manifest.session, manifest.agent, manifest.subject) == ("shop/one", "bot", "alice é")
    assert (manifest.turns, manifest.lineage) == (2, [])


async def test_the_lineage_grows_with_every_fork(source: World, target: World) -> None:
    await put(target, await export(source))
    inspection = Inspection()
    for _ in inspection.feed(await export(target)):
        pass
    (first,) = inspection.finish().lineage
    assert first.session == "shop/one"


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?at=x", {}, "invalid_query"),
        ("?at=-1", {}, "invalid_query"),
        ("?at=999999", {}, "no_such_record"),
        ("?end=closed", {}, "invalid_query"),
        ("", {"X-Tenure-Bundle-Key": "c2hvcnQ="}, "invalid_bundle_key"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    source: World, query: str, headers: dict[str, str], code: str
) -> None:
    answer = await source.http.get(f"/v1/bundle{query}", headers=source.token("gateway") | headers)
    assert refusal(answer) == (400, code)


async def test_nobody_else_gets_or_gives_a_bundle(source: World) -> None:
    for method in ("GET", "PUT"):
        assert (await source.http.request(method, "/v1/bundle")).status_code == 401
        other = source.token("gateway", uid="another session")
        assert (await source.http.request(method, "/v1/bundle", headers=other)).status_code == 401
