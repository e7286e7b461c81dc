"""The process: stands by, leads, and ends as it should, over a stand-in of the API server."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tenure_operator import main, watch
from tenure_operator.api_client import ApiClient
from tenure_operator.errors import LostLeaseError
from tenure_operator.kinds import AGENTS, LEASES, SERVICES, WATCHED
from tenure_operator.rbac import LEASE
from tenure_operator.settings import Settings
from unit.operator.bench import NAMESPACE
from unit.operator.fake_api import FakeApi

SYSTEM = "tenure-system"


class Connected(FakeApi):
    """The stand-in as `ApiClient.connect` would return it."""

    async def close(self) -> None:
        """Nothing is open."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Connected:
    api = Connected()
    service = {"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1"}}
    api.put(SERVICES, service)

    async def connect(*_: Any) -> Connected:
        return api

    async def tell(told: Callable[..., None]) -> None:
        api.told = lambda kind, type_, manifest: told(kind, type_, manifest) if kind in WATCHED else None
        await asyncio.Event().wait()

    monkeypatch.setattr(ApiClient, "connect", connect)
    monkeypatch.setattr(watch, "watch", tell)
    return api


def process(name: str = "one") -> main.Process:
    image, gateway = "tenure/runtime:1", "http://gateway"
    return main.Process(
        Settings(namespace=SYSTEM, pod_name=name, runtime_image=image, gateway_url=gateway, port=free_port())
    )


async def until(check: Callable[[], Any]) -> None:
    while True:
        if check():
            return
        await asyncio.sleep(0.01)


def holder(api: FakeApi) -> str | None:
    lease = api.find(LEASES, LEASE, SYSTEM)
    return lease["spec"]["holderIdentity"] if lease else None


def an_agent() -> dict[str, Any]:
    model = {"name": "m", "baseURL": "http://model/v1"}
    return {"metadata": {"namespace": NAMESPACE, "name": "helper"}, "spec": {"model": model}}


async def test_it_reconciles_what_was_there_before_and_what_comes(api: Connected) -> None:
    api.put(AGENTS, an_agent())
    running = asyncio.create_task(process().run())
    await until(lambda: "status" in api.objects[AGENTS, NAMESPACE, "helper"])
    later = an_agent()
    later["metadata"]["name"] = "later"
    await asyncio.sleep(0.2)  # until the stand-in of the watch runs
    api.put(AGENTS, later)
    await until(lambda: "status" in api.objects[AGENTS, NAMESPACE, "later"])
    os.kill(os.getpid(), signal.SIGTERM)
    await running


async def test_it_gives_the_lease_back_when_it_is_told_to_end(api: Connected) -> None:
    running = asyncio.create_task(process().run())
    await until(lambda: holder(api) == "one")
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert holder(api) == ""


async def test_a_standby_does_nothing_and_ends_when_it_is_told_to(api: Connected) -> None:
    leading = asyncio.create_task(process("one").run())
    await until(lambda: holder(api) == "one")
    standby = process("two")
    waiting = asyncio.create_task(standby.run())
    await asyncio.sleep(0.05)
    assert [check() for check in standby._health.ready] == [None]
    standby._stop.set()
    await waiting
    assert holder(api) == "one"
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_it_ends_when_another_holds_the_lease_and_leaves_it_to_the_other(api: Connected) -> None:
    running = asyncio.create_task(process().run())
    await until(lambda: holder(api) == "one")
    api.change(LEASES, SYSTEM, LEASE, {"spec": {"holderIdentity": "two"}})
    with pytest.raises(LostLeaseError):
        await running
    assert holder(api) == "two"


async def test_it_is_not_ready_before_it_knows_all_objects(api: Connected) -> None:
    one = process()
    seen: list[object] = []
    pages = api.pages

    def slow(*given: Any, **named: Any) -> Any:
        seen.append([check() for check in one._health.ready])
        return pages(*given, **named)

    api.pages = slow  # type: ignore[method-assign]
    running = asyncio.create_task(one.run())
    await until(lambda: [check() for check in one._health.ready] == [None] and seen)
    assert seen
    assert all(answers == ["not all objects are known yet"] for answers in seen)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_missing_setting_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TENURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit, match="TENURE_NAMESPACE"):
        main.main()
