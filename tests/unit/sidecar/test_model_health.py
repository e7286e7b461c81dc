"""The health of the model: told early, told rightly, and mended without a turn."""

import asyncio

import pytest

from tenure_api.conditions import Reason
from tenure_api.configuration import ModelTarget
from tenure_sidecar import model_health
from tenure_sidecar.asgi import Scope, Send
from tenure_sidecar.http_client import Client
from tenure_sidecar.model_health import HealthOfModel, Prober
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.proxy.failure import invalid, refused, unreachable
from unit.sidecar.support import HandClock, a_config, a_route, serving, speaking, until
from unit.sidecar.world import Deed, Scripted, World, answers, says

TARGET = ModelTarget(name="m", base_url="http://127.0.0.1:9/v1")


class Endpoint(Scripted):
    """A model whose list of models is a deed of its own."""

    def __init__(self, listing: Deed) -> None:
        super().__init__(says("hi"))
        self.listing = listing
        self.asked = 0

    async def listed(self, scope: Scope, send: Send) -> None:
        self.asked += 1
        await self.listing({}, scope, send)


def health(clock: HandClock | None = None) -> HealthOfModel:
    return HealthOfModel(clock or HandClock(), lambda reason: None)


async def probed(listing: Deed, tmp: Credentials) -> tuple[str, str]:
    async with serving(Endpoint(listing)) as port:
        target = ModelTarget(name="m", base_url=f"http://127.0.0.1:{port}/v1")
        found = health()
        client = Client()
        await Prober(client, tmp, found, lambda: None).probe(target)
        await client.close()
        report = found.report()
        return report.reason, report.message


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (answers(200, {"data": []}), "Answering"),
        (answers(404, {}), "Answering"),
        (answers(405, b""), "Answering"),
        (answers(401, {}), "Unauthorized"),
        (answers(403, {}), "Unauthorized"),
        (answers(500, {}), "ModelError"),
        (answers(200, b"<html>", b"text/html"), "InvalidResponse"),
    ],
)
async def test_what_a_probe_says(listing: Deed, reason: str, tmp_path: object) -> None:
    found, message = await probed(listing, Credentials(tmp_path))  # type: ignore[arg-type]
    assert found == reason
    assert message.endswith(".")


async def test_a_probe_of_nothing_and_of_garbage(tmp_path: object) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()

    prober, found = Prober(Client(), Credentials(tmp_path), health(), lambda: None), health()  # type: ignore[arg-type]
    prober._health = found
    await prober.probe(TARGET)
    assert found.report().reason == "Unreachable"
    async with speaking(babble) as port:
        await prober.probe(ModelTarget(name="m", base_url=f"http://127.0.0.1:{port}"))
    assert found.report().reason == "InvalidResponse"


def test_a_probe_mends_what_a_probe_can_see() -> None:
    found = health()
    found.failed(TARGET, unreachable("away"))
    assert not found.well
    found.probed(TARGET, None)
    assert found.report().reason == Reason.ANSWERING


def test_another_route_is_not_blamed_for_the_one_before() -> None:
    found = health()
    found.failed(TARGET, refused(500, b"", "e", None))
    found.forget()
    found.probed(TARGET, None)
    assert found.report().reason == Reason.ANSWERING


@pytest.mark.parametrize("failure", [invalid("nonsense"), refused(500, b"", "e", None), refused(401, b"", "e", None)])
def test_a_good_list_of_models_is_no_proof_against_a_bad_answer(failure: object) -> None:
    clock = HandClock()
    found = health(clock)
    found.failed(TARGET, failure)  # type: ignore[arg-type]
    found.probed(TARGET, None)
    assert not found.well
    clock.advance(60)
    found.probed(TARGET, None)
    assert found.report().reason == Reason.NOT_YET_CALLED
    assert found.well


def test_an_answer_mends_everything() -> None:
    found = health()
    found.failed(TARGET, invalid("nonsense"))
    found.answered(TARGET, None)
    assert found.report().reason == Reason.ANSWERING


async def test_an_endpoint_that_is_away_is_known_early_and_its_return_is_noticed(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_health, "PROBE_SECONDS", 0.01)
    endpoint = Endpoint(answers(503, {}))
    async with serving(endpoint) as port:
        config = a_config(a_route(ModelTarget(name="m", base_url=f"http://127.0.0.1:{port}/v1")))
        found = health()
        client = Client()
        probing = asyncio.create_task(Prober(client, Credentials(tmp_path), found, lambda: config).run())  # type: ignore[arg-type]
        await until(lambda: found.report().reason == "ModelError")
        endpoint.listing = answers(200, {})
        await until(lambda: found.well)
        asked = endpoint.asked
        await asyncio.sleep(0.05)
        assert endpoint.asked == asked
        probing.cancel()
        await client.close()


async def test_another_endpoint_is_asked_at_once(world: World) -> None:
    await until(lambda: world.session.health.report().reason == "Answering")
    route = a_route(TARGET)
    await world.push(world.config.model_copy(update={"model": route, "agent_generation": 2}))
    await until(lambda: world.session.health.report().reason == "Unreachable")
