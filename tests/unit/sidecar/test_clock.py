"""The steady clock: jumps of the wall clock during the life of the process are not seen."""

from tenure_sidecar.clock import SteadyClock


def test_a_jump_of_the_wall_clock_changes_nothing() -> None:
    wall, elapsed = [1000.0], [5.0]
    clock = SteadyClock(wall=lambda: wall[0], elapsed=lambda: elapsed[0])
    elapsed[0] += 2
    wall[0] -= 500
    assert clock.now() == 1002.0
    wall[0] += 100_000
    assert clock.now() == 1002.0


def test_it_goes_on_from_the_last_record_if_it_started_behind() -> None:
    elapsed = [0.0]
    clock = SteadyClock(wall=lambda: 1000.0, elapsed=lambda: elapsed[0])
    clock.not_before(5000.0)
    elapsed[0] += 7
    assert clock.now() == 5007.0


def test_it_stays_where_it_is_if_the_last_record_is_in_the_past() -> None:
    clock = SteadyClock(wall=lambda: 1000.0, elapsed=lambda: 0.0)
    clock.not_before(10.0)
    assert clock.now() == 1000.0
