"""Retention: what is due, and that it goes, from memory and from disk, and nothing else does."""

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tenure_api.configuration import EffectivePolicy
from tenure_api.wire import TurnStatus
from tenure_sidecar.errors import UnreadableError
from tenure_sidecar.journal.erasure import Erased
from tenure_sidecar.journal.records import TurnEnd, TurnStart
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.retention import Sweeper, due
from tenure_sidecar.turn.transcript import RecordedTurn, Transcript
from unit.sidecar.support import NOON, HandClock, a_policy, a_turn, open_journal, until


def a_recorded(age: float, ended: bool = True, n: int = 0, status: TurnStatus = TurnStatus.COMPLETED) -> RecordedTurn:
    start = TurnStart(request=a_turn(turn=f"{n:032x}"), agent="bot")
    turn = RecordedTurn(start.request.turn, n, NOON - age, start, b"")
    if ended:
        turn.finish(TurnEnd(status=status), NOON)
    return turn


def test_without_a_policy_nothing_is_due() -> None:
    assert due([a_recorded(1e9)], None, NOON) == []


def test_a_turn_is_due_at_its_maximal_age_and_not_before() -> None:
    old, young = a_recorded(20, n=1), a_recorded(19.9, n=2)
    assert due([old, young], a_policy(age=20), NOON) == [old.turn]


def test_the_oldest_go_first_when_there_are_too_many() -> None:
    turns = [a_recorded(10 - n, n=n) for n in range(5)]
    assert due(turns, a_policy(count=2), NOON) == [turn.turn for turn in turns[:3]]


def test_turns_that_failed_do_not_push_out_the_conversation() -> None:
    said = [a_recorded(20 - n, n=n) for n in range(2)]
    failed = [a_recorded(10 - n, n=10 + n, status=TurnStatus.FAILED) for n in range(3)]
    assert due([*said, *failed], a_policy(count=2), NOON) == [failed[0].turn]
    assert due([*said, *failed], a_policy(age=5), NOON) == [turn.turn for turn in [*said, *failed]]


def test_the_running_turn_is_never_due() -> None:
    running = a_recorded(1e6, ended=False)
    assert due([running], a_policy(age=1, count=1), NOON) == []


ages = st.lists(st.floats(0, 100), max_size=8).map(lambda found: sorted(found, reverse=True))
limits = st.one_of(st.none(), st.integers(1, 100))


@given(ages, limits, limits, st.integers(1, 100))
def test_a_stricter_policy_never_keeps_more(found: list[float], age: int | None, count: int | None, less: int) -> None:
    turns = [a_recorded(age_of, n=n) for n, age_of in enumerate(found)]
    policy = a_policy(age=age, count=count)
    stricter = a_policy(age=min(age or less, less), count=min(count or less, less))
    assert set(due(turns, policy, NOON)) <= set(due(turns, stricter, NOON))


@given(ages, limits, limits)
def test_after_a_sweep_nothing_is_due(found: list[float], age: int | None, count: int | None) -> None:
    turns = [a_recorded(age_of, n=n) for n, age_of in enumerate(found)]
    policy = a_policy(age=age, count=count)
    gone = set(due(turns, policy, NOON))
    assert due([turn for turn in turns if turn.turn not in gone], policy, NOON) == []


class World:
    """A journal with turns, and its sweeper."""

    def __init__(self, directory: Path, policy: EffectivePolicy | None) -> None:
        self.clock = HandClock()
        self.journal = open_journal(directory, clock=self.clock)
        self.transcript = Transcript()
        self.policy = policy
        self.sweeper = Sweeper(self.journal, self.transcript, lambda: self.policy, self.clock, Metrics())

    async def begin(self, text: str) -> str:
        request = a_turn(text)
        entry = TurnStart(request=request, agent="bot")
        self.transcript.apply(await self.journal.append(request.turn, 0, entry.kind, entry.payload()))
        return request.turn

    async def say(self, text: str) -> str:
        turn = await self.begin(text)
        entry = TurnEnd(status=TurnStatus.COMPLETED, text=text)
        await self.journal.append(turn, 0, "model.result", text.encode())
        self.transcript.apply(await self.journal.append(turn, 0, entry.kind, entry.payload()))
        return turn

    async def settled(self) -> None:
        """Wait until the journal has done all that it was asked for, so that it can be read."""
        await self.journal.erase([])

    def on_disk(self) -> set[str]:
        return {record.turn for record in self.journal.records()}

    def in_memory(self) -> set[str]:
        return {turn.turn for turn in self.transcript}


async def test_a_sweep_deletes_whole_turns_from_memory_and_disk(tmp_path: Path) -> None:
    world = World(tmp_path, a_policy(age=20))
    old = await world.say("old")
    world.clock.advance(15)
    young = await world.say("young")
    world.clock.advance(6)
    erased = await world.sweeper.sweep()
    assert erased == Erased(records=3, scrubbed=erased.scrubbed if erased else 0, residue=0)
    assert old not in world.on_disk() | world.in_memory()
    assert world.on_disk() == world.in_memory() == {young}
    await world.journal.close()


async def test_a_policy_that_becomes_shorter_acts_at_once_and_on_old_turns(tmp_path: Path) -> None:
    world = World(tmp_path, None)
    await world.say("old")
    sweeping = asyncio.create_task(world.sweeper.run())
    await asyncio.sleep(0.02)
    assert world.in_memory()
    world.clock.advance(5)
    world.policy = a_policy(age=1, interval=3600)
    world.sweeper.wake()
    await until(lambda: not world.in_memory())
    sweeping.cancel()
    await world.settled()
    assert world.on_disk() == set()
    await world.journal.close()


async def test_the_running_turn_survives_every_sweep(tmp_path: Path) -> None:
    world = World(tmp_path, a_policy(age=1, count=1))
    running = await world.begin("long")
    world.clock.advance(1000)
    await world.sweeper.sweep()
    assert world.on_disk() == world.in_memory() == {running}
    await world.journal.close()


class FailingOnce:
    """A journal whose first erasure fails."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.failed = self.succeeded = False

    async def erase(self, turns: list[str]) -> Erased:
        if not self.failed:
            self.failed = True
            raise UnreadableError("the volume is full")
        erased = await self._journal.erase(turns)
        self.succeeded = True
        return erased


async def test_what_could_not_be_deleted_is_deleted_by_the_next_sweep(tmp_path: Path) -> None:
    world = World(tmp_path, a_policy(age=1, interval=1))
    await world.say("old")
    world.clock.advance(5)
    failing = FailingOnce(world.journal)
    world.sweeper._journal = failing  # type: ignore[assignment]
    sweeping = asyncio.create_task(world.sweeper.run())
    await until(lambda: failing.failed and not world.in_memory())
    world.sweeper.wake()
    await until(lambda: failing.succeeded)
    sweeping.cancel()
    assert world.on_disk() == set()
    await world.journal.close()
