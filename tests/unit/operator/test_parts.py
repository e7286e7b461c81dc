"""Events, restraint, settings, signing keys, sidecars, health, API addresses: each in a few sentences."""

import base64
import json

import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tenure_api.environment import InvalidSettingsError
from tenure_api.report import Report
from tenure_api.tokens import Signer, Verifier, public_key
from tenure_operator import rbac
from tenure_operator.api_addresses import api_networks
from tenure_operator.errors import UnavailableError
from tenure_operator.events import WINDOW_SECONDS, Events
from tenure_operator.health import Health
from tenure_operator.kinds import AGENTS, ENDPOINTS, EVENTS, SECRETS, SERVICES, SESSIONS, Key, Meta
from tenure_operator.metrics import Metrics
from tenure_operator.restraint import FREE, Restraint
from tenure_operator.settings import from_environment
from tenure_operator.sidecars import Address, Sidecars
from tenure_operator.signing import BadSigningKeysError, signing_keys
from unit.operator.bench import SIGNING_KEY
from unit.operator.fake_api import FakeApi

CHAT = Meta("shop", "chat", "uid-1", 1)
NEEDED = {
    "TENURE_NAMESPACE": "tenure-system",
    "TENURE_RUNTIME_IMAGE": "tenure/runtime:1",
    "TENURE_GATEWAY_URL": "http://gateway:80",
}


# --- events ----------------------------------------------------------------------------------------------------------


async def test_an_event_is_told_once_in_a_while() -> None:
    api, now = FakeApi(), 0.0
    events = Events(api, "pod-1", lambda: now)
    for _ in range(3):
        await events.tell((SESSIONS, CHAT), "Warning", "KeyLost", "Reconcile", "It is gone.")
    assert len(api.writes) == 1
    now = WINDOW_SECONDS + 1
    await events.tell((SESSIONS, CHAT), "Warning", "KeyLost", "Reconcile", "It is gone.")
    assert len(api.writes) == 2
    told = next(m for (kind, _, _), m in api.objects.items() if kind is EVENTS)
    assert told["regarding"]["uid"] == "uid-1"
    assert (told["type"], told["reason"], told["note"]) == ("Warning", "KeyLost", "It is gone.")


async def test_a_long_note_is_cut_to_what_the_api_server_takes() -> None:
    api = FakeApi()
    await Events(api, "pod-1").tell((SESSIONS, CHAT), "Normal", "Ready", "Start", "ä" * 5000)
    (told,) = api.objects.values()
    assert len(told["note"].encode()) <= 1024


async def test_nothing_fails_for_an_event_that_cannot_be_recorded() -> None:
    api = FakeApi()

    def fail(*_: object) -> None:
        raise UnavailableError("no answer")

    api.before = fail
    await Events(api, "pod-1").tell((SESSIONS, CHAT), "Normal", "Ready", "Start", "It is.")


# --- restraint -------------------------------------------------------------------------------------------------------


def test_the_first_repairs_are_free_and_the_next_ever_slower() -> None:
    now = 0.0
    restraint = Restraint(lambda: now)
    delays = []
    for _ in range(FREE + 4):
        delays.append(restraint.delay("x"))
        now += delays[-1]
        restraint.note("x")
    assert delays == [0.0] * FREE + [2.0, 4.0, 8.0, 16.0]
    assert restraint.delay("y") == 0.0
    now += 3600
    restraint.note("y")
    assert restraint.delay("x") == 0.0


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_have_defaults_and_take_the_environment() -> None:
    settings = from_environment({**NEEDED, "TENURE_EXCEPTED_CIDRS": "10.1.0.0/16, fd00::/8", "TENURE_WORKERS": ""})
    assert settings.excepted_cidrs == ("10.1.0.0/16", "fd00::/8")
    assert (settings.workers, settings.port, settings.scrape_seconds) == (16, 8082, 15)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "TENURE_NAMESPACE"),
        ({**NEEDED, "TENURE_GATEWAY_URL": "http://gateway/v1"}, "TENURE_GATEWAY_URL"),
        ({**NEEDED, "TENURE_PORT": "many"}, "TENURE_PORT"),
        ({**NEEDED, "TENURE_EXCEPTED_CIDRS": "10.0.0.1/8"}, "TENURE_EXCEPTED_CIDRS"),
        ({**NEEDED, "TENURE_LOG_LEVEL": "LOUD"}, "TENURE_LOG_LEVEL"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettingsError, match=named):
        from_environment(environment)


# --- signing keys ----------------------------------------------------------------------------------------------------


async def test_signing_keys_are_made_once_and_then_kept() -> None:
    api = FakeApi()
    first = await signing_keys(api, "tenure-system")
    second = await signing_keys(api, "tenure-system")
    assert first.public == second.public
    secret = api.find(SECRETS, rbac.SIGNING_KEYS, "tenure-system")
    assert secret is not None
    gateway = base64.b64decode(secret["data"]["gateway.key"]).decode()
    assert public_key(gateway) == first.public["gateway"]
    caller = Verifier("uid", {"operator": first.public["operator"]}).caller(first.signer.token("uid", 0.0), 0.0)
    assert caller.issuer == "operator"


async def test_a_secret_without_the_keys_is_an_error_that_says_what_to_do() -> None:
    api = FakeApi()
    api.put(SECRETS, {"metadata": {"namespace": "s", "name": rbac.SIGNING_KEYS}, "data": {"operator.key": "eA=="}})
    with pytest.raises(BadSigningKeysError, match="delete it"):
        await signing_keys(api, "s")


# --- sidecars --------------------------------------------------------------------------------------------------------


def sidecars(answer: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Sidecars:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return Sidecars(client, Signer("operator", SIGNING_KEY), lambda: 1000.0)


async def test_a_token_is_used_again_for_a_while_and_for_no_other_sidecar() -> None:
    seen: list[httpx.Request] = []
    clock = [1000.0]

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(503)

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    asked = Sidecars(client, Signer("operator", SIGNING_KEY), lambda: clock[0])
    for identity, at in (("one", 1000.0), ("one", 1040.0), ("two", 1040.0), ("one", 1046.0), ("two", 1046.0)):
        clock[0] = at
        with pytest.raises(UnavailableError):
            await asked.report(Address(identity, "ip"))
    first, again, other, later, same = (request.headers["Authorization"] for request in seen)
    assert (first, other) == (again, same)
    assert len({first, other, later}) == 3
    Verifier("one", {"operator": public_key(SIGNING_KEY)}).caller(later.removeprefix("Bearer "), 1046.0)


async def test_a_sidecar_is_asked_with_a_token_for_its_own_session() -> None:
    seen: list[httpx.Request] = []
    report = Report.model_validate({"identity": "uid-1", "journal": "Open", "turns": 3})
    found = await sidecars(httpx.Response(200, text=report.model_dump_json(by_alias=True)), seen).report(
        Address("uid-1", "fd00::7")
    )
    assert found.turns == 3
    assert str(seen[0].url) == "http://[fd00::7]:8081/v1/report"
    token = seen[0].headers["Authorization"].removeprefix("Bearer ")
    assert Verifier("uid-1", {"operator": public_key(SIGNING_KEY)}).caller(token, 1000.0).issuer == "operator"


OTHER = Report.model_validate({"identity": "uid-2", "journal": "Open"}).model_dump_json(by_alias=True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "does not answer"),
        (httpx.ReadTimeout("slow"), "does not answer"),
        (httpx.Response(401, json={"code": "unauthorized", "message": "the token is out of date"}), "out of date"),
        (httpx.Response(500, text="oops"), "HTTP status 500"),
        (httpx.Response(200, text="<html>"), "something else"),
        (httpx.Response(200, text=OTHER), "another session"),
    ],
)
async def test_a_sidecar_that_does_not_answer_well_is_unavailable(
    answer: httpx.Response | Exception, said: str
) -> None:
    with pytest.raises(UnavailableError, match=said):
        await sidecars(answer).report(Address("uid-1", "10.0.0.1"))


# --- health and metrics ----------------------------------------------------------------------------------------------


async def test_probes_say_what_is_wrong() -> None:
    wrong: list[str] = []
    metrics = Metrics()
    health = Health(metrics.text)
    health.alive.append(lambda: wrong[0] if wrong else None)
    metrics.reconciled(Key(SESSIONS, "shop", "chat"), "ok", 0.1)
    async with TestClient(TestServer(health.app())) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 200
        wrong.append("no news by watch of: pods")
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (503, "no news by watch of: pods")
        text = await (await client.get("/metrics")).text()
    assert 'tenure_operator_reconciles_total{kind="AgentSession",outcome="ok"} 1.0' in text
    assert "chat" not in text


# --- the API server's addresses --------------------------------------------------------------------------------------


async def test_the_api_servers_addresses_are_those_of_its_service_and_of_its_endpoints() -> None:
    api = FakeApi()
    service = {
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIPs": ["10.96.0.1", "fd00::1"]},
    }
    api.put(SERVICES, service)
    labels = {"kubernetes.io/service-name": "kubernetes"}
    api.put(
        ENDPOINTS,
        {
            "metadata": {"namespace": "default", "name": "kubernetes", "labels": labels},
            "endpoints": [{"addresses": ["192.168.0.2"]}, {"addresses": ["192.168.0.3"]}],
        },
    )
    api.put(
        ENDPOINTS,
        {"metadata": {"namespace": "default", "name": "web", "labels": {}}, "endpoints": [{"addresses": ["1.2.3.4"]}]},
    )
    assert await api_networks(api) == ("10.96.0.1/32", "192.168.0.2/32", "192.168.0.3/32", "fd00::1/128")


# --- rights ----------------------------------------------------------------------------------------------------------


def test_no_right_is_a_wildcard_and_no_spec_of_a_user_can_be_written() -> None:
    """Save for the patch by which the gateway wakes sessions, which an admission policy of the chart holds to that."""
    for grants in (rbac.OPERATOR, rbac.GATEWAY):
        for rule in (*grants.cluster, *grants.release_namespace, *grants.default_namespace):
            assert "*" not in json.dumps(rule.manifest())
            if AGENTS.group not in rule.groups or any("/status" in resource for resource in rule.resources):
                continue
            if grants is rbac.GATEWAY and rule.verbs == ("patch",):
                assert rule.resources == ("agentsessions",)
            else:
                assert set(rule.verbs) <= {"get", "list", "watch", "create", "delete"}


def test_secrets_can_be_created_anywhere_and_read_only_where_they_are_the_operators_own() -> None:
    assert [rule.verbs for rule in rbac.OPERATOR.cluster if "secrets" in rule.resources] == [("create",)]
    assert [(rule.verbs, rule.names) for rule in rbac.OPERATOR.release_namespace if "secrets" in rule.resources] == [
        (("get",), (rbac.SIGNING_KEYS,))
    ]
    assert not [rule for rule in rbac.GATEWAY.cluster if "secrets" in rule.resources]
