"""The control API: who may call what, what is told to whom, and what a sidecar without its journal says."""

import json
import time
from pathlib import Path

import pytest

from tenure_api.tokens import LEEWAY_SECONDS, LIFETIME_SECONDS, Signer, new_private_key, public_key
from tenure_sidecar import session_door
from tenure_sidecar.config import CONFIG_FILE
from tenure_sidecar.control import Gate
from tenure_sidecar.errors import RefusedError
from unit.sidecar.support import NOON, SESSION, a_config, a_policy, a_turn, open_journal, until
from unit.sidecar.world import CREDENTIAL, GATEWAY, OPERATOR, World

CALLS = [
    ("POST", "/v1/turns", "gateway"),
    ("GET", "/v1/turns/" + "0" * 32, "gateway"),
    ("GET", "/v1/items", "gateway"),
    ("GET", "/v1/report", "operator"),
    ("PUT", "/v1/config", "operator"),
    ("PUT", "/v1/binding", "operator"),
    ("POST", "/v1/drain", "operator"),
]


@pytest.mark.parametrize(("method", "path", "issuer"), CALLS)
async def test_each_call_is_for_its_caller_only(world: World, method: str, path: str, issuer: str) -> None:
    other = "operator" if issuer == "gateway" else "gateway"

    async def status(headers: dict[str, str]) -> int:
        return (await world.http.request(method, path, headers=headers, content=b"{}")).status_code

    assert await status({}) == 401
    assert await status({"authorization": "Bearer x.y.z"}) == 401
    assert await status({"authorization": "Basic eDp5"}) == 401
    assert await status(world.token(issuer, uid="another session")) == 401
    assert await status(world.token(other)) == 403
    assert await status(world.token(issuer)) not in (401, 403)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/drained"])
async def test_what_kubelet_asks_needs_no_token(world: World, path: str) -> None:
    assert (await world.http.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/turns", "/metrics"])
async def test_what_is_not_there_is_not_found(world: World, path: str) -> None:
    assert (await world.get(path)).status_code == 404


def gate(directory: Path, clock: list[float]) -> Gate:
    (directory / "operator.pub").write_text(public_key(OPERATOR))
    (directory / "gateway.pub").write_text(public_key(GATEWAY))
    return Gate(SESSION, directory, lambda: clock[0])


def scope(token: str) -> dict[str, list[tuple[bytes, bytes]]]:
    return {"headers": [(b"authorization", f"Bearer {token}".encode())]}


def test_a_verified_token_is_not_admitted_after_its_time(tmp_path: Path) -> None:
    clock = [NOON]
    door = gate(tmp_path, clock)
    token = Signer("gateway", GATEWAY).token(SESSION, NOON, "alice")
    assert door.admit(scope(token), "gateway").subject == "alice"
    clock[0] += LIFETIME_SECONDS + LEEWAY_SECONDS
    door.admit(scope(token), "gateway")
    clock[0] += 1
    with pytest.raises(RefusedError):
        door.admit(scope(token), "gateway")


def test_keys_that_were_made_anew_are_taken_up(tmp_path: Path) -> None:
    door = gate(tmp_path, [NOON])
    old = Signer("gateway", GATEWAY).token(SESSION, NOON)
    door.admit(scope(old), "gateway")
    fresh = new_private_key()
    (tmp_path / "gateway.pub").write_text(public_key(fresh))
    door.admit(scope(Signer("gateway", fresh).token(SESSION, NOON)), "gateway")
    with pytest.raises(RefusedError):
        door.admit(scope(old), "gateway")


def test_without_keys_nobody_is_admitted(tmp_path: Path) -> None:
    door = Gate(SESSION, tmp_path, lambda: NOON)
    with pytest.raises(RefusedError, match="not mounted"):
        door.admit(scope(Signer("gateway", GATEWAY).token(SESSION, NOON)), "gateway")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"turn": "x", "input": [{"role": "user", "text": "secret words"}]}',
        b'{"turn": "00000000000000000000000000000000", "input": []}',
    ],
)
async def test_a_turn_that_is_not_valid_is_refused_by_name(world: World, body: bytes) -> None:
    answer = await world.http.post("/v1/turns", content=body, headers=world.token())
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_turn")
    assert "secret" not in answer.text


async def test_a_turn_that_is_too_long_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_door, "TURN_LIMIT", 100)
    assert await world.refused(a_turn("x" * 100)) == (413, "request_too_large")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=-1", "order=up", "limit=1e1"])
async def test_a_page_that_makes_no_sense_is_refused(world: World, query: str) -> None:
    answer = await world.get(f"/v1/items?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")


async def test_items_come_in_pages_newest_first(world: World) -> None:
    await world.turn("1")
    await world.turn("2")
    page = (await world.get("/v1/items?limit=2")).json()
    assert [item["text"] for item in page["data"]] == ["Hello there friend", "2"]
    assert page["hasMore"]
    rest = (await world.get(f"/v1/items?limit=2&after={page['data'][-1]['id']}")).json()
    assert [item["text"] for item in rest["data"]] == ["Hello there friend", "1"]
    assert not rest["hasMore"]


async def test_a_turn_that_is_not_there_is_not_found(world: World) -> None:
    for name in ("0" * 32, "nonsense", "%2e%2e/report"):
        assert (await world.get(f"/v1/turns/{name}")).status_code == 404


async def test_the_report_tells_all_that_the_operator_needs(world: World) -> None:
    await world.turn("1")
    report = await world.report()
    assert report["identity"] == SESSION
    assert report["journal"] == "Open"
    assert (report["turns"], report["activeTurn"]) == (1, None)
    assert report["sequence"] >= 4
    assert report["configDigest"] == world.config.digest()
    assert report["agentGeneration"] == 1
    assert report["model"]["reason"] == "Answering"
    assert report["lastActivity"]


async def test_a_pushed_configuration_holds_at_once_and_after_a_restart(world: World) -> None:
    pushed = world.config.model_copy(
        update={"agent_generation": 2, "instructions": "Rhyme.", "policy": a_policy(count=9)}
    )
    answer = await world.push(pushed)
    assert answer.json()["configDigest"] == pushed.digest()
    assert answer.json()["policy"]["generation"] == 1
    await world.turn()
    assert world.container.requests[-1]["messages"][0]["content"] == "Rhyme."
    await world.stop()
    await world.start()
    await world.ready()
    assert (await world.report())["configDigest"] == pushed.digest()


async def test_a_stale_push_changes_nothing(world: World) -> None:
    newest = world.config.model_copy(update={"agent_generation": 5})
    await world.push(newest)
    answer = await world.push(world.config)
    assert answer.json()["configDigest"] == newest.digest()


async def test_a_push_that_is_not_valid_changes_nothing(world: World) -> None:
    answer = await world.http.put("/v1/config", content=b'{"agent": 1}', headers=world.token("operator"))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_config")
    assert (await world.report())["configDigest"] == world.config.digest()


async def test_a_policy_acts_seconds_after_it_is_pushed(world: World) -> None:
    await world.turn("a canary")
    await world.push(world.config.model_copy(update={"agent_generation": 2, "policy": a_policy(count=1)}))
    await world.turn("newer")
    await world.push(world.config.model_copy(update={"agent_generation": 3, "policy": a_policy(count=1, generation=2)}))
    await until(lambda: len(world.session.transcript) == 1)
    assert await world.texts() == ["newer", "Hello there friend"]
    await world.turn("again")
    assert "a canary" not in [m["content"] for m in world.container.requests[-1]["messages"]]


# --- a journal that cannot be opened ----------------------------------------------------------------------------------


async def test_a_locked_journal_is_told_and_opened_when_it_is_free(world: World) -> None:
    await world.stop()
    other = open_journal(world.settings.state)
    await world.start()
    report = await world.report()
    assert (report["journal"], report["activeTurn"]) == ("Locked", None)
    assert (await world.http.get("/healthz")).status_code == 200
    unready = await world.http.get("/readyz")
    assert (unready.status_code, "another process" in unready.text) == (503, True)
    assert await world.refused(a_turn()) == (503, "journal_unavailable")
    answer = await world.push(world.config)
    assert (answer.status_code, answer.json()["code"]) == (503, "journal_unavailable")
    await other.close()
    await world.ready()
    await world.turn()


@pytest.mark.parametrize("lost", [b"another key of the same length!!", b"short", None])
async def test_a_lost_key_is_told_and_the_session_goes_on_when_it_is_restored(world: World, lost: bytes | None) -> None:
    await world.turn("kept")
    await world.stop()
    file = world.settings.key / "data-key"
    key = file.read_bytes()
    file.unlink() if lost is None else file.write_bytes(lost)
    await world.start()
    report = await world.report()
    assert report["journal"] == "KeyMismatch"
    assert "restore" in report["journalMessage"]
    assert (await world.http.get("/readyz")).status_code == 503
    file.write_bytes(key)
    await world.ready()
    assert await world.texts() == ["kept", "Hello there friend"]


async def test_a_damaged_journal_is_told_and_left_alone(world: World) -> None:
    await world.turn()
    await world.stop()
    file = world.settings.state / "journal.db"
    content = b"\0" * 512 + file.read_bytes()[512:]
    file.write_bytes(content)
    await world.start()
    assert (await world.report())["journal"] == "Unreadable"
    assert (await world.http.get("/healthz")).status_code == 200
    assert (await world.http.get("/readyz")).status_code == 503
    assert file.read_bytes() == content


async def test_another_session_s_volume_is_not_used(world: World) -> None:
    await world.stop()
    await world.start(identity="another")
    token = Signer("operator", OPERATOR).token("another", time.time())
    report = (await world.http.get("/v1/report", headers={"authorization": f"Bearer {token}"})).json()
    assert report["journal"] == "Unreadable"
    assert "another session" in report["journalMessage"]


async def test_a_volume_that_cannot_be_used_is_no_health(world: World) -> None:
    await world.stop()
    state = world.settings.state
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    state.write_text("in the way")
    await world.start()
    report = await world.report()
    assert report["journal"] == "Unreadable"
    unhealthy = await world.http.get("/healthz")
    assert (unhealthy.status_code, "the volume" in unhealthy.text) == (503, True)


async def test_without_configuration_no_turn_is_taken_until_it_is_pushed(world: World) -> None:
    await world.stop()
    (world.settings.config / CONFIG_FILE).unlink()
    for file in world.settings.state.iterdir():
        file.unlink()
    await world.start()
    await until(lambda: "no configuration" in (world.session.unready or ""))
    assert await world.refused(a_turn()) == (503, "not_configured")
    await world.push(world.config)
    assert world.session.unready is None
    await world.turn()


async def test_the_directories_are_the_sidecar_s_own_and_the_common_one(world: World) -> None:
    assert world.settings.state.stat().st_mode & 0o7777 == 0o700
    assert world.settings.workspace.stat().st_mode & 0o7777 == 0o2770
    world.settings.workspace.chmod(0o2775)
    await world.stop()
    world.settings.state.chmod(0o770)
    await world.start()
    await world.ready()
    assert world.settings.state.stat().st_mode & 0o7777 == 0o700
    assert world.settings.workspace.stat().st_mode & 0o7777 == 0o2775


async def test_nothing_that_is_said_of_the_session_holds_a_secret(world: World) -> None:
    await world.turn()
    metrics = (await world.http.get(f"http://127.0.0.1:{world.metrics_port}/metrics")).text
    everything = metrics + json.dumps(await world.report())
    for secret in (CREDENTIAL, "token-of-this-pod", "hello", "Hello there friend", "Be brief"):
        assert secret not in everything
    assert 'tenure_turns_total{status="completed"} 1.0' in metrics


async def test_metrics_are_at_their_own_door_only(world: World) -> None:
    assert (await world.http.get(f"http://127.0.0.1:{world.metrics_port}/v1/report")).status_code == 404
    assert (await world.http.get(f"http://127.0.0.1:{world.proxy_port}/metrics")).status_code == 401


def test_a_configuration_is_the_same_after_a_round_trip() -> None:
    config = a_config(policy=a_policy(age=5))
    again = type(config).model_validate_json(config.model_dump_json(by_alias=True))
    assert again.digest() == config.digest()
