"""The HTTP API of the tests does what its document says, and counts it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from doubles.http_api.app import application
from doubles.http_api.document import DOCUMENT
from doubles.scripted_model.serving import serving

ORDER = {"item": "tea", "quantity": 2, "tag": "t"}


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(application("open")) as url, httpx.AsyncClient(trust_env=False) as http:
        http.base_url = url.removesuffix("/v1")
        yield http


async def effects(api: httpx.AsyncClient, tag: str = "t") -> Any:
    return (await api.get("/control/effects", params={"tag": tag})).json()


async def test_an_order_is_placed_once_for_each_key(api: httpx.AsyncClient) -> None:
    for key in ("k1", "k1", "k2"):
        answer = await api.post("/orders", json=ORDER, headers={"Idempotency-Key": key})
        assert answer.status_code == 201
        order = answer.json()
    assert (await api.get(f"/orders/{order['id']}")).json() == order == {**order, "item": "tea", "quantity": 2}
    counted = {"calls": 3, "effects": 2, "callsByKey": {"k1": 2, "k2": 1}, "effectsByKey": {"k1": 1, "k2": 1}}
    assert await effects(api) == counted
    other = await api.post("/orders", json={**ORDER, "item": "coal"}, headers={"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert await effects(api) == counted


async def test_without_a_key_each_request_has_its_effect(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        await api.post("/orders", json=ORDER)
        paid = await api.post(
            "/payments", json={"order": "o", "amount": 3, "tag": "p"}, headers={"Idempotency-Key": "k"}
        )
    assert paid.json() == {"paid": 3, "order": "o"}
    assert (await effects(api))["effects"] == 2
    assert (await effects(api, "p"))["effectsByKey"] == {"k": 2}


async def test_reads_failures_and_large_answers(api: httpx.AsyncClient) -> None:
    assert (await api.get("/orders/none", params={"tag": "t"})).status_code == 404
    assert (await api.post("/failing/503", json={"tag": "t"})).status_code == 503
    assert (await api.get("/slow", params={"seconds": 0, "tag": "t"})).status_code == 200
    assert (await effects(api))["effects"] == 3
    assert len((await api.get("/large", params={"bytes": 1000})).content) == 1000
    assert (await api.post("/orders", content=b"[")).status_code == 422


async def test_the_secret_is_wanted_and_never_told(api: httpx.AsyncClient) -> None:
    assert (await api.get("/private")).status_code == 401
    assert (await api.get("/private", headers={"X-Api-Key": "opem"})).status_code == 401
    assert (await api.get("/private", headers={"X-Api-Key": "open"})).json() == {"authorized": True}


@pytest.mark.parametrize(("where", "count"), [("before", 0), ("after", 1)])
async def test_a_call_waits_at_the_hold_before_or_after_its_effect(
    api: httpx.AsyncClient, where: str, count: int
) -> None:
    name = f"t/{where}"
    await api.post("/control/hold", params={"name": name})
    asking = asyncio.create_task(api.post("/payments", json={"order": "o", "amount": 3, "tag": "t"}))
    while (await api.get("/control/hold", params={"name": name})).json()["waiting"] != 1:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert (await effects(api))["effects"] == count
    await api.post("/control/release", params={"name": name})
    assert (await asking).status_code == 201
    assert (await effects(api))["effects"] == 1
    assert (await api.get("/control/hold", params={"name": name})).json() == {"arrived": 1, "waiting": 0, "set": False}


async def test_a_dropped_call_has_no_effect_and_the_next_one_passes(api: httpx.AsyncClient) -> None:
    await api.post("/control/hold", params={"name": "t/before"})
    asking = asyncio.create_task(api.post("/orders", json=ORDER, headers={"Idempotency-Key": "k"}))
    while (await api.get("/control/hold", params={"name": "t/before"})).json()["waiting"] != 1:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await api.post("/control/release", params={"name": "t/before", "drop": "true"})
    assert (await asking).status_code == 503
    assert (await api.post("/orders", json=ORDER, headers={"Idempotency-Key": "k"})).status_code == 201
    assert await effects(api) == {"calls": 2, "effects": 1, "callsByKey": {"k": 2}, "effectsByKey": {"k": 1}}
    await api.post("/control/reset")
    assert (await effects(api))["calls"] == 0


async def test_its_document_describes_its_paths(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    assert document == DOCUMENT
    for path, operations in document["paths"].items():
        for method in set(operations) - {"parameters"}:
            filled = path.replace("{id}", "x").replace("{status}", "500")
            answer = await api.request(method, filled, json={} if method == "post" else None)
            assert answer.status_code not in (404, 405) or path == "/orders/{id}"
