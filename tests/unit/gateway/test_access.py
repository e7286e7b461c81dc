"""What is remembered of the API server's answers, and for how long."""

import asyncio

import pytest

from tenure_gateway import access
from tenure_gateway.access import Access, Memory
from tenure_gateway.faults import ClusterUnavailable
from tenure_gateway.ids import Key
from unit.gateway.doubles import StandInCluster


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def answer(value: object) -> object:
    await asyncio.sleep(0)
    return value


async def test_an_answer_is_believed_for_its_time_and_no_longer() -> None:
    clock = Clock()
    memory: Memory[object] = Memory(10, clock)
    assert await memory.ask("q", lambda: answer(1)) == 1
    clock.now = 9.9
    assert await memory.ask("q", lambda: answer(2)) == 1
    clock.now = 10
    assert await memory.ask("q", lambda: answer(3)) == 3


async def test_who_asks_at_the_same_time_asks_once() -> None:
    asked = []
    memory: Memory[object] = Memory(0, Clock())

    async def once() -> object:
        asked.append(1)
        await asyncio.sleep(0)
        return "a"

    assert await asyncio.gather(*(memory.ask("q", once) for _ in range(5))) == ["a"] * 5
    assert len(asked) == 1


async def test_who_goes_away_takes_the_answer_from_nobody() -> None:
    memory: Memory[object] = Memory(0, Clock())
    gate = asyncio.Event()

    async def slow() -> object:
        await gate.wait()
        return "a"

    first = asyncio.create_task(memory.ask("q", slow))
    second = asyncio.create_task(memory.ask("q", slow))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await second == "a"


async def test_a_failure_is_not_remembered() -> None:
    memory: Memory[object] = Memory(10, Clock())

    async def down() -> object:
        raise ClusterUnavailable("down")

    with pytest.raises(ClusterUnavailable):
        await memory.ask("q", down)
    assert await memory.ask("q", lambda: answer(1)) == 1


async def test_a_flood_of_questions_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MAX_ENTRIES", 3)
    memory: Memory[object] = Memory(10, Clock())
    for n in range(100):
        await memory.ask(n, lambda n=n: answer(n))  # type: ignore[misc]
    assert list(memory._known) == [97, 98, 99]
    assert len(memory._asking) == 0


async def test_refusals_are_remembered_too_but_not_for_ever() -> None:
    clock, cluster = Clock(), StandInCluster()
    who = Access(cluster, "tenure", 10, 5, clock)
    for _ in range(3):
        assert await who.caller("Bearer guess") is None
    assert cluster.reviews == ["token"]
    cluster.tokens["guess"] = ("alice", "tenure")
    clock.now = 10
    caller = await who.caller("bearer guess")
    assert caller is not None
    assert caller.name == "alice"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic x", "x", "Bearer " + "x" * 16_385])
async def test_what_is_no_token_is_not_even_asked(header: str | None) -> None:
    cluster = StandInCluster()
    assert await Access(cluster, "tenure", 10, 5, Clock()).caller(header) is None
    assert cluster.reviews == []


async def test_an_authenticator_that_knows_no_audiences_is_not_believed() -> None:
    class Careless(StandInCluster):
        async def review_token(self, token: str, audience: str) -> dict[str, object]:
            return {"authenticated": True, "user": {"username": "alice"}}

    assert await Access(Careless(), "tenure", 10, 5, Clock()).caller("Bearer t") is None


async def test_a_decision_is_the_callers_own() -> None:
    cluster = StandInCluster()
    who = Access(cluster, "tenure", 10, 10, Clock())
    alice = await who.caller(f"Bearer {cluster.user('alice', namespaces=('ns',))}")
    bob = await who.caller(f"Bearer {cluster.user('bob')}")
    assert alice is not None
    assert bob is not None
    assert await who.may_use_agent(alice, Key("ns", "a"))
    assert not await who.may_use_agent(bob, Key("ns", "a"))
