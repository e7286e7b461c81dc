"""Names of functions."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tenure_sidecar.tools.naming import function_name, named


def test_a_name_is_prefixed_cleaned_and_cut() -> None:
    assert function_name("shop", "get.order/by id") == "shop__get_order_by_id"
    assert function_name("shop", "x" * 100) == "shop__" + "x" * 58


def test_names_that_clash_are_left_out_and_told() -> None:
    clear, unclear = named("s", ["a.b", "a b", "c", "x" * 70, "x" * 80])
    assert clear == {"c": "s__c"}
    assert unclear == ["a.b", "a b", "x" * 70, "x" * 80]


@given(st.sets(st.text(min_size=1, max_size=80), max_size=20))
def test_every_name_is_one_that_the_api_takes_unique_and_independent_of_the_order(names: set[str]) -> None:
    clear, unclear = named("tool", sorted(names))
    assert (clear, set(unclear)) == (named("tool", sorted(names, reverse=True))[0], names - clear.keys())
    assert len(set(clear.values())) == len(clear)
    assert all(re.fullmatch("tool__[A-Za-z0-9_-]{0,58}", function) for function in clear.values())
