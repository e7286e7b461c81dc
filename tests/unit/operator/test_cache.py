"""The cache ends as the newest that was heard, in whatever order and how often it was heard."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure_operator.cache import Cache, stripped
from tenure_operator.kinds import AGENTS, CONFIG_MAPS, PODS, SESSIONS, Manifest


def an_object(version: int, name: str = "x", **more: Any) -> Manifest:
    return {"metadata": {"namespace": "shop", "name": name, "uid": "u", "resourceVersion": str(version)}, **more}


def a_session(version: int, agent: str, name: str = "x") -> Manifest:
    return an_object(version, name, spec={"agentRef": {"name": agent}})


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms())
def test_any_order_and_any_repetition_ends_the_same(history: list[bool], random: Any) -> None:
    """`history`: for each resource version, whether the object was there or was deleted with it."""
    heard = list(enumerate(history, start=1)) * 2
    random.shuffle(heard)
    cache = Cache(lambda: 0.0)
    for version, exists in heard:
        if exists:
            cache.put(CONFIG_MAPS, an_object(version))
        else:
            cache.forget(CONFIG_MAPS, ("shop", "x"), version)
    found = cache.get(CONFIG_MAPS, "shop", "x")
    assert (found is not None) == history[-1]
    if found is not None:
        assert found["metadata"]["resourceVersion"] == str(len(history))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two", None])), max_size=20))
def test_the_index_agrees_with_a_search(changes: list[tuple[str, str | None]]) -> None:
    cache = Cache(lambda: 0.0)
    for version, (name, agent) in enumerate(changes, start=1):
        if agent is None:
            cache.forget(SESSIONS, ("shop", name), version)
        else:
            cache.put(SESSIONS, a_session(version, agent, name))
    for agent in ("one", "two"):
        indexed = sorted(s["metadata"]["name"] for s in cache.sessions_of(("shop", agent)))
        searched = sorted(s["metadata"]["name"] for s in cache.all(SESSIONS) if s["spec"]["agentRef"]["name"] == agent)
        assert indexed == searched


def test_agents_are_found_by_their_policy() -> None:
    cache = Cache()
    cache.put(AGENTS, an_object(1, "a", spec={"memoryPolicyRef": {"name": "month"}}))
    cache.put(AGENTS, an_object(2, "b", spec={}))
    assert [a["metadata"]["name"] for a in cache.agents_with(("shop", "month"))] == ["a"]
    cache.put(AGENTS, an_object(3, "a", spec={}))
    assert cache.agents_with(("shop", "month")) == []


def test_the_answer_to_a_deletion_brings_nothing_back_but_a_fresh_read_does() -> None:
    cache = Cache()
    cache.put(PODS, an_object(1, spec={"containers": []}))
    cache.forget(PODS, ("shop", "x"), 5)
    assert cache.put(PODS, an_object(5, spec={"containers": []})) is None
    assert cache.put(PODS, an_object(4, spec={"containers": []}), read_now=True) is None
    assert cache.put(PODS, an_object(5, spec={"containers": []}), read_now=True) is not None


def test_a_change_is_told_once() -> None:
    cache = Cache()
    assert cache.put(CONFIG_MAPS, an_object(1)) is not None
    assert cache.put(CONFIG_MAPS, an_object(1)) is None
    assert cache.forget(CONFIG_MAPS, ("shop", "x"), 2) is not None
    assert cache.forget(CONFIG_MAPS, ("shop", "x"), 2) is None


def test_a_deletion_is_forgotten_when_no_older_answer_can_come_any_more() -> None:
    now = 0.0
    cache = Cache(lambda: now)
    for number in range(10):
        cache.forget(CONFIG_MAPS, ("shop", f"x{number}"), 5)
        now += 100
    assert len(cache._gone) <= 3


def test_pods_are_kept_small() -> None:
    pod = an_object(1, spec={"containers": [{"name": "c", "image": "i", "env": ["much"]}], "volumes": ["much"]})
    pod["metadata"]["managedFields"] = ["much"]
    assert stripped(PODS, pod) == {
        "metadata": {"namespace": "shop", "name": "x", "uid": "u", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "initContainers": []},
    }
