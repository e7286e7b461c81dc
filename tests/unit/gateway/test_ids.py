import re

from hypothesis import given
from hypothesis import strategies as st

from tenure_api.names import MAX_NAME
from tenure_gateway import ids

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
KEYS = st.builds(ids.Key, LABELS, LABELS)
TURNS = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)


@given(KEYS)
def test_a_conversation_is_found_by_its_id_and_by_its_name(key: ids.Key) -> None:
    assert ids.parse_conversation(ids.conversation_id(key)) == key
    assert ids.parse_conversation(str(key)) == key


@given(KEYS, TURNS)
def test_a_response_is_found_by_its_id(key: ids.Key, turn: str) -> None:
    assert ids.parse_response(ids.response_id(key, turn)) == (key, turn)


@given(st.text() | st.from_regex(r"(conv|resp)_([0-9a-fA-F ]{2})*(_[0-9a-f]{30,34})?", fullmatch=True))
def test_whatever_else_comes_is_unknown_or_names_one_object_in_one_way(text: str) -> None:
    key = ids.parse_conversation(text)
    assert key is None or text in (ids.conversation_id(key), str(key))
    response = ids.parse_response(text)
    assert response is None or text == ids.response_id(*response)


@given(st.text(alphabet="abc-._/%\n\x00ü", max_size=12), st.text(alphabet="abc-._/%\n\x00ü", max_size=12))
def test_no_id_leads_outside_of_its_place_in_a_path(namespace: str, name: str) -> None:
    key = ids.parse_key(f"{namespace}/{name}")
    assert key is None or re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", f"{key.namespace}/{key.name}")


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True))
def test_a_new_session_has_a_name_that_fits(agent: str) -> None:
    name = ids.new_session_name(agent)
    assert len(name) <= MAX_NAME
    assert ids.parse_key(f"ns/{name}") == ("ns", name)
    assert name[:-11] == agent[: MAX_NAME - 11].rstrip("-")


def test_new_ids_differ() -> None:
    assert ids.new_turn() != ids.new_turn()
    assert ids.new_session_name("a") != ids.new_session_name("a")
