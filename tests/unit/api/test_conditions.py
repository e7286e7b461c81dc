"""Conditions keep their transition times, and nothing is written because time has passed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tenure_api.conditions import Condition, ConditionStatus, merge

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def conditions() -> st.SearchStrategy[list[Condition]]:
    one = st.builds(
        Condition,
        type=st.sampled_from(["Ready", "Stalled", "Reconciling"]),
        status=st.sampled_from(ConditionStatus),
        reason=st.sampled_from(["A", "B"]),
        message=st.sampled_from(["", "because"]),
    )
    return st.lists(one, max_size=3, unique_by=lambda condition: condition.type)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    old = merge([], [Condition(type="Ready", status=ConditionStatus.FALSE, reason="Progressing")], NOON)
    later = NOON + timedelta(minutes=1)
    same = merge(old, [Condition(type="Ready", status=ConditionStatus.FALSE, reason="PodStarting")], later)
    assert same[0].last_transition_time == NOON
    changed = merge(same, [Condition(type="Ready", status=ConditionStatus.TRUE, reason="Ready")], later)
    assert changed[0].last_transition_time == later


def test_what_is_no_longer_true_is_gone() -> None:
    old = merge([], [Condition(type="Stalled", status=ConditionStatus.TRUE, reason="KeyLost")], NOON)
    assert merge(old, [], NOON) == []


@given(conditions(), conditions(), st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=9)))
def test_merging_the_same_again_changes_nothing(old: list[Condition], new: list[Condition], later: timedelta) -> None:
    once = merge(merge([], old, NOON), new, NOON)
    assert merge(once, new, NOON + later) == once
    assert all(c.last_transition_time and c.last_transition_time.microsecond == 0 for c in once)
