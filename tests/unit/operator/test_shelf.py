"""What is packed comes back as it was, and is known by its version without being unpacked."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure_operator.cache import Cache
from tenure_operator.kinds import SESSIONS, Manifest
from tenure_operator.shelf import Shelf

PARTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


def an_object(version: int, **parts: Any) -> Manifest:
    metadata = {"namespace": "shop", "name": "chat", "uid": "u", "resourceVersion": str(version)}
    return {"metadata": metadata, **parts}


@given(quiet=st.booleans(), spec=PARTS, version=st.integers(0, 2**60))
def test_an_object_comes_back_as_it_was_whether_packed_or_not(quiet: bool, spec: Any, version: int) -> None:
    shelf = Shelf(lambda _: quiet)
    made = an_object(version, spec=spec)
    shelf.put(("shop", "chat"), made)
    assert shelf.get(("shop", "chat")) == made
    assert shelf.version(("shop", "chat")) == version
    assert list(shelf) == [made]
    shelf.remove(("shop", "chat"))
    assert (shelf.get(("shop", "chat")), shelf.version(("shop", "chat")), len(shelf)) == (None, None, 0)


def test_a_session_is_found_and_told_apart_while_it_sleeps_and_while_it_runs() -> None:
    cache = Cache()
    for version, mode in enumerate(("Running", "Hibernated", "Hibernated", "Running"), 1):
        status = {"effectiveMode": mode}
        change = cache.put(SESSIONS, an_object(version, spec={"agentRef": {"name": "helper"}}, status=status))
        assert change is not None
        assert (change.old or {}).get("metadata", {}).get("resourceVersion", "0") == str(version - 1)
        (found,) = cache.sessions_of(("shop", "helper"))
        assert found["status"] == status
        assert cache.put(SESSIONS, an_object(version, spec={"agentRef": {"name": "other"}}, status=status)) is None
