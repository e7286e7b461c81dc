"""The operator's own client against a real host: what one sends, the other understands."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tenure_api.report import Binding, JournalState
from tenure_api.tokens import Signer
from tenure_operator.errors import BusyError, UnavailableError
from tenure_operator.sidecars import Address, Sidecars
from unit.sidecar.shared.world import HOST, HostWorld
from unit.sidecar.support import a_config
from unit.sidecar.world import OPERATOR

UID = "0a000000-0000-4000-8000-000000000001"


class ToHost(httpx.AsyncHTTPTransport):
    """Every address is that of the host under test."""

    def __init__(self, world: HostWorld) -> None:
        super().__init__()
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host="127.0.0.1", port=self._world.http.base_url.port)
        return await super().handle_async_request(request)


@pytest.fixture
async def operator(world: HostWorld) -> AsyncIterator[Sidecars]:
    async with httpx.AsyncClient(transport=ToHost(world)) as client:
        yield Sidecars(client, Signer("operator", OPERATOR))


async def test_the_operator_has_a_host_keep_report_configure_and_erase_sessions(
    world: HostWorld, operator: Sidecars
) -> None:
    host, session = Address(HOST, "10.0.0.1"), Address(UID, "10.0.0.1")
    assert (await operator.report(host)).sessions == []
    kept = await operator.keep(host, Binding(session="shop/one", uid=UID))
    assert (kept.identity, kept.bound, kept.journal, kept.sequence) == (UID, UID, JournalState.OPEN, 0)
    assert (await operator.keep(host, Binding(session="shop/one", uid=UID))).identity == UID
    await world.turn(UID)
    report = await operator.report(session)
    assert (report.turns, report.ready) == (1, True)
    config = a_config(world.config.model, generation=5)
    assert (await operator.configure(session, config)).config_digest == config.digest()
    told = await operator.report(host)
    assert (told.sessions, told.config_digest, told.ready) == ([UID], config.digest(), True)
    (each,) = await operator.reports(host)
    assert (each.identity, each.turns, each.ready) == (UID, 1, True)
    await operator.erase(host, UID)
    await operator.erase(host, UID)
    assert (await operator.report(host)).sessions == []
    with pytest.raises(UnavailableError):
        await operator.report(session)


async def test_the_operator_drains_a_host_only_when_it_is_idle(world: HostWorld, operator: Sidecars) -> None:
    host = Address(HOST, "10.0.0.1")
    with pytest.raises(BusyError):
        await operator.drain(host, 3600.0)
    assert (await operator.drain(host, 0.0)).draining
