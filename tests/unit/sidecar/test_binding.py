"""A sidecar that was started ahead is given to one session, once and for ever."""

import asyncio
from typing import Any

from unit.sidecar.looping import crash
from unit.sidecar.world import World


async def bind(world: World, uid: str, session: str = "shop/two") -> tuple[int, Any]:
    body = {"session": session, "uid": uid}
    answer = await world.http.put("/v1/binding", json=body, headers=world.token("operator"))
    return answer.status_code, answer.json()


async def test_the_first_binding_holds_for_ever(world: World) -> None:
    world.name = ""
    await crash(world)
    assert (world.session.name, (await world.report())["bound"]) == ("", None)
    status, report = await bind(world, "u2")
    assert (status, report["bound"]) == (200, "u2")
    assert world.session.name == "shop/two"
    for _ in range(2):
        assert (await bind(world, "u2"))[0] == 200
        status, failure = await bind(world, "u3", "shop/three")
        assert (status, failure["code"]) == (409, "already_bound")
        assert (await world.report())["bound"] == "u2"
        await crash(world)
        assert world.session.name == "shop/two"


async def test_of_many_that_come_at_once_one_gets_it(world: World) -> None:
    answers = await asyncio.gather(*(bind(world, f"u{n}") for n in range(20)))
    got = [report["bound"] for status, report in answers if status == 200]
    assert len(got) == 1
    assert sum(status == 409 for status, _ in answers) == 19
    await crash(world)
    assert (await world.report())["bound"] == got[0]


async def test_a_binding_is_something_that_happens(world: World) -> None:
    world.skipped += 100
    _, report = await bind(world, "u2")
    assert report["idleSeconds"] < 10


async def test_a_sidecar_that_is_being_discarded_is_not_given_away(world: World) -> None:
    await world.http.post("/v1/drain", json={}, headers=world.token("operator"))
    status, failure = await bind(world, "u2")
    assert (status, failure["code"]) == (503, "draining")
    assert (await world.report())["bound"] is None
