"""Operators that claim sets may be killed at any write, and two may believe to lead: none is ever given away twice."""

import asyncio
import random
from collections import deque
from typing import Any

import httpx
import pytest

from tenure_operator.kinds import SESSIONS, Kind, Manifest
from unit.operator.bench import NAMESPACE, Bench, FakeSidecars
from unit.operator.fake_api import FakeApi, Killed
from unit.operator.pools import check, filled, live, pooled, ready_sets, sets_of_sessions

STORY_WRITES = 40
"""As many as the story below has, or more, so that its end is reached too."""


def deadly(api: FakeApi, fatal: int, when: str) -> None:
    """From the write of this number on nothing is carried out; that one itself is, if `when` is after it."""
    count = 0

    def strike(*_: object) -> None:
        nonlocal count
        count += 1
        if count >= fatal:
            api.before = dead
            raise Killed

    def dead(*_: object) -> None:
        raise Killed

    setattr(api, when, strike)


async def restarted(bench: Bench) -> Bench:
    """Another process, after some seconds without any."""
    bench.api.before = bench.api.after = lambda *_: None
    return await Bench(bench.api, bench.sidecars, at=bench.clock + 5).start()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fatal", range(1, STORY_WRITES))
async def test_sessions_become_ready_on_sets_of_their_own_whenever_the_operator_is_killed(
    fatal: int, when: str
) -> None:
    first = await filled(3)
    for number in range(4):
        first.session(f"chat-{number}")
    deadly(first.api, fatal, when)
    try:
        await live(first, 20)
    except Killed:
        pass
    else:
        assert fatal > 20, "the story has fewer writes than that"
    second = await restarted(first)
    await live(second, 40)
    check(second)


async def test_a_session_gets_the_very_set_that_it_was_given_before_the_operator_died() -> None:
    first = await filled(3)
    given = ready_sets(first)[0]
    made = first.session()
    deadly(first.api, 1, "before")
    with pytest.raises(Killed):
        await first.advance(1)
    assert first.sidecars.reports[first.identity(given)].bound == made["metadata"]["uid"]
    second = await restarted(first)
    await live(second, 30)
    assert sets_of_sessions(second) == {"chat": given}
    check(second)


async def test_a_session_that_was_deleted_after_it_was_given_a_set_leaves_nothing_behind() -> None:
    first = await filled(3)
    first.session()
    deadly(first.api, 1, "before")
    with pytest.raises(Killed):
        await first.advance(1)
    first.api.before = lambda *_: None
    first.api.remove(SESSIONS, NAMESPACE, "chat")
    second = await restarted(first)
    await live(second, 60)
    check(second)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_in_whatever_order_no_set_is_two_sessions(seed: int) -> None:
    dice = random.Random(seed)
    bench = await filled(4)
    made = 0
    for _ in range(12):
        if dice.random() < 0.6:
            deadly(bench.api, dice.randrange(1, 30), dice.choice(["before", "after"]))
        for _ in range(dice.randrange(6)):
            bench.session(f"chat-{made}")
            made += 1
        sessions = [name for kind, _, name in bench.api.objects if kind is SESSIONS]
        if sessions and dice.random() < 0.4:
            bench.api.remove(SESSIONS, NAMESPACE, dice.choice(sessions))
        if dice.random() < 0.2:
            pooled(bench, dice.randrange(5), runtime={"image": f"mine:{dice.randrange(3)}"})
        if dice.random() < 0.2 and (ready := ready_sets(bench)):
            bench.sidecars.mute = {bench.identity(dice.choice(ready))}
        try:
            await live(bench, dice.choice([0.5, 1, 3, 10]))
        except Killed:
            bench = await restarted(bench)
        taken = list(sets_of_sessions(bench).values())
        assert len(taken) == len(set(taken))
    bench = await restarted(bench)
    bench.sidecars.mute = set()
    pooled(bench, 4)
    await live(bench, 400, 1)
    check(bench)


class SlowSidecars(FakeSidecars):
    """Answers take a while, so that others come between."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice

    async def later(self, request: httpx.Request) -> httpx.Response:
        await _pause(self._dice)
        answer = self.answer(request)
        await _pause(self._dice)
        return answer


class SlowApi(FakeApi):
    """An API server whose answers take a while, and whose watches lag for each operator by themselves."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self.news: list[tuple[Any, deque[tuple[Kind, str | None, Manifest]]]] = []

    def watched_by(self, bench: Bench) -> None:
        self.news.append((bench, deque()))
        self.told = self._keep

    def _keep(self, kind: Kind, type_: str | None, manifest: Manifest) -> None:
        for _, events in self.news:
            events.append((kind, type_, manifest))

    def tell(self, most: int) -> None:
        for bench, events in self.news:
            for _ in range(min(self._dice.randrange(most + 1), len(events))):
                bench.told(*events.popleft())

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        await _pause(self._dice)
        written = await super().apply_status(kind, manifest)
        await _pause(self._dice)
        return written

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        await _pause(self._dice)
        return await super().create(kind, manifest)

    async def merge(self, kind: Kind, manifest: Manifest) -> Manifest:
        await _pause(self._dice)
        return await super().merge(kind, manifest)


async def _pause(dice: random.Random) -> None:
    for _ in range(dice.randrange(4)):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(10))
async def test_two_operators_that_both_believe_to_lead_give_no_set_away_twice(seed: int) -> None:
    dice = random.Random(seed)
    api = SlowApi(dice)
    sidecars = SlowSidecars(dice)
    one = await Bench(api, sidecars).start()
    pooled(one, 4)
    await live(one, 30)
    two = await Bench(api, sidecars, at=one.clock).start()
    await live(two, 2)
    for bench in (one, two):
        api.watched_by(bench)
    for number in range(6):
        one.session(f"chat-{number}")
    for _ in range(40):
        api.tell(8)
        await asyncio.gather(one.advance(0.1), two.advance(0.1))
    taken = list(sets_of_sessions(one).values())
    assert len(taken) == len(set(taken))
    assert len([each for each in taken if "-warm-" in each]) == 4
    bound = [report.bound for report in sidecars.reports.values() if report.bound]
    assert len(bound) == len(set(bound))
    api.news.clear()
    last = await Bench(api, sidecars, at=max(one.clock, two.clock)).start()
    await live(last, 120)
    check(last)
