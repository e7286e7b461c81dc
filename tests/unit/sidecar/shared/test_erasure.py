"""What is deleted is gone: by policy, and with the session."""

import asyncio
from pathlib import Path

import pytest

from tenure_sidecar.errors import KeyMismatchError
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.shared.places import Places
from unit.sidecar.shared.world import HostWorld
from unit.sidecar.support import KEY, a_config, a_policy, files_of, until


async def test_an_erased_session_leaves_nothing_behind(world: HostWorld) -> None:
    ada, bob = await world.register("ada"), await world.register("bob")
    for uid in (ada, bob):
        await world.turn(uid)
        await world.http.put("/v1/files/a.txt", content=b"x", headers=world.token(uid))
    assert world.files(ada)
    assert await world.erase(ada) == 204
    assert world.files(ada) == []
    assert (await world.report())["sessions"] == [bob]
    assert (await world.get(ada, "/v1/items")).status_code == 401
    assert len(await world.texts(bob)) == 2
    assert await world.erase(ada) == 204, "asked again, it is still gone"
    await world.again()
    assert (await world.report())["sessions"] == [bob]


async def test_a_session_is_erased_in_the_middle_of_a_turn_and_who_listens_is_let_go(world: HostWorld) -> None:
    uid = await world.register()
    world.agent.hold = asyncio.Event()
    slow = asyncio.create_task(world.send(uid, "slowly"))
    await until(lambda: world.agent.requests)
    assert await world.erase(uid) == 204
    (failed,) = await asyncio.gather(slow, return_exceptions=True)
    assert isinstance(failed, Exception)
    assert world.files(uid) == []
    again = await world.keep(uid)
    assert again.status_code == 200
    assert (await world.turn(uid, "new"))["text"] == "new (0 before: )"


async def test_a_removal_that_was_killed_is_completed_at_the_next_start(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid)
    await world.closed(uid)
    await world.stop()
    (key,) = (path for path in world.files(uid) if path.name == "key")
    key.unlink()
    await world.start()
    await world.ready()
    assert world.files(uid) == []
    assert (await world.report())["sessions"] == []


async def test_retention_reaches_closed_sessions_as_soon_as_the_policy_says_so(world: HostWorld) -> None:
    uids = [await world.register(f"s{n}") for n in range(3)]
    for uid in uids:
        for n in range(3):
            await world.turn(uid, f"said-{n}")
    await world.closed(*uids)
    await world.push(a_config(world.config.model, generation=2, policy=a_policy(count=1)))
    await until(lambda: all(world.of(uid).known().completed == 1 for uid in uids))
    for uid in uids:
        assert (await world.texts(uid))[::2] == ["said-2"]
        assert (await world.report(uid))["policy"]["generation"] == 1


async def test_retention_is_enforced_after_a_restart_without_anybody_calling(world: HostWorld) -> None:
    uid = await world.register()
    await world.turn(uid, "said-once")
    await world.closed(uid)
    await world.push(a_config(world.config.model, generation=2, policy=a_policy(age=3600)))
    assert world.of(uid).known().completed == 1
    await world.stop()
    config = a_config(world.config.model, generation=3, policy=a_policy(age=1, generation=2))
    (world.directory / "config/config.json").write_text(config.model_dump_json(by_alias=True))
    await asyncio.sleep(1)  # what is to be forgotten has a second to live
    await world.start()
    await world.ready()
    await until(lambda: world.of(uid).known().completed == 0)
    assert await world.texts(uid) == []


async def test_nothing_that_is_said_or_named_is_on_the_volume_in_the_clear(world: HostWorld) -> None:
    world.tools.add("secret_function", approval=True)
    uid = await world.register("a-secret-name")
    await world.send(uid, "call:secret_function a-secret-word")
    await world.closed(uid)
    await world.push(a_config(world.config.model, generation=2, instructions="a-secret-instruction"))
    for path, content in files_of(world.directory / "data").items():
        for secret in (b"a-secret-word", b"secret_function", b"a-secret-name", b"a-secret-instruction"):
            assert secret not in content, path


def test_every_session_has_a_key_of_its_own_which_only_the_pods_key_opens(tmp_path: Path) -> None:
    for name in ("state", "workspace"):
        (tmp_path / name).mkdir()
    places = Places(tmp_path / "state", tmp_path / "workspace", KEY, "host")
    places.prepare()
    made = {uid: places.make(uid, b"{}") for uid in ("a", "b")}
    found = {place.uid: place for place in places.found()}
    assert {uid: place.sealer.fingerprint for uid, place in found.items()} == {
        uid: place.sealer.fingerprint for uid, place in made.items()
    }
    assert len({place.sealer.fingerprint for place in made.values()} | {Sealer(KEY, "x").fingerprint}) == 3
    for other in (
        Places(tmp_path / "state", tmp_path / "workspace", bytes(32), "host"),
        Places(tmp_path / "state", tmp_path / "workspace", KEY, "another"),
    ):
        with pytest.raises(KeyMismatchError):
            list(other.found())
    key, another = (tmp_path / "state/sessions" / uid / "key" for uid in ("a", "b"))
    key.write_bytes(another.read_bytes())
    with pytest.raises(KeyMismatchError):
        list(places.found())
