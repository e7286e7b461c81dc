"""The plan of the storm keeps what the storm promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.storm_plan import ROUNDS, STEPS, Moment, Victim, schedule

SEEDS = st.integers(0, 10**6)


def test_the_script_has_twelve_steps() -> None:
    assert STEPS == 12


@given(SEEDS, st.integers(4, 100))
def test_every_moment_meets_every_victim(seed: int, count: int) -> None:
    met = {(kill.moment, kill.victim) for run in schedule(seed, count) for kill in run.kills}
    assert met == {(moment, victim) for moment in Moment for victim in Victim}


@given(SEEDS, st.integers(1, 30))
def test_the_seed_says_it_all(seed: int, count: int) -> None:
    assert schedule(seed, count) == schedule(seed, count)
    assert schedule(seed, count)[:3] == schedule(seed, 3)[:count]


@given(SEEDS)
def test_no_round_sees_two_kills_and_they_come_in_order(seed: int) -> None:
    for run in schedule(seed, 30):
        rounds = [kill.round for kill in run.kills]
        assert rounds == sorted(set(rounds))
        assert set(rounds) <= set(range(len(ROUNDS)))


@pytest.mark.parametrize("count", [4, 100])
def test_every_run_can_be_told_from_the_others(count: int) -> None:
    assert len({str(run) for run in schedule(1, count)}) == count
