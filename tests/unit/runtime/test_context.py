from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenure_runtime.context import Conversation, estimated_tokens, reserve

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGES = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(ROLES), st.text(max_size=40)),
    min_size=1,
    max_size=30,
)


def said(*messages: str) -> list[Message]:
    """`u…`, `a…`, `s…`: a message of the user, the assistant, the system."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[text[0]], "content": text} for text in messages]


def left(messages: list[Message], cut: int) -> list[str]:
    return [message["content"] for message in Conversation(messages).without(cut)]


def tokens(messages: list[Message]) -> int:
    return sum(map(estimated_tokens, messages))


def test_a_turn_is_a_user_message_and_what_follows() -> None:
    messages = said("s", "u1", "a1", "u2", "a2", "u3")
    assert Conversation(messages).turns == 2
    assert left(messages, 1) == ["s", "u2", "a2", "u3"]
    assert left(messages, 2) == ["s", "u3"]


def test_user_messages_in_a_row_are_one_turn() -> None:
    messages = said("u1", "u1b", "a1", "u2", "s", "u2b")
    assert Conversation(messages).turns == 1
    assert left(messages, 1) == ["u2", "s", "u2b"]


def test_a_greeting_before_the_first_user_message_is_a_turn_of_its_own() -> None:
    messages = said("a0", "u1", "a1", "u2")
    assert Conversation(messages).turns == 2
    assert left(messages, 1) == ["u1", "a1", "u2"]


def test_a_single_input_can_never_be_cut() -> None:
    assert Conversation(said("s", "u1")).turns == 0
    assert Conversation(said("s", "u1")).cut_to_fit(0) == 0
    assert Conversation(said("s", "u1")).cut_more(0) is None


@given(MESSAGES, st.data())
def test_what_is_left_keeps_its_order_and_all_system_messages_and_the_current_input(
    messages: list[Message], data: st.DataObject
) -> None:
    conversation = Conversation(messages)
    kept = conversation.without(data.draw(st.integers(0, conversation.turns)))
    places = [next(i for i, m in enumerate(messages) if m is k) for k in kept]
    assert places == sorted(places)
    assert [m for m in messages if m["role"] in ("system", "developer")] == [
        m for m in kept if m["role"] in ("system", "developer")
    ]
    users = [i for i, m in enumerate(messages) if m["role"] == "user"]
    if users:
        assert all(any(m is k for k in kept) for m in messages[users[-1] :])


@given(MESSAGES)
def test_only_whole_turns_are_cut_and_each_cut_takes_the_oldest(messages: list[Message]) -> None:
    conversation = Conversation(messages)
    assert conversation.without(0) == messages
    for cut in range(conversation.turns):
        before, after = conversation.without(cut), conversation.without(cut + 1)
        gone = [m for m in before if not any(m is kept for kept in after)]
        assert gone
        spoken = [m for m in before if m["role"] not in ("system", "developer")]
        assert all(a is b for a, b in zip(gone, spoken, strict=False)), "the oldest go first"
        assert spoken[len(gone)]["role"] == "user", "what is left begins with a whole turn"


@given(MESSAGES, st.integers(0, 600))
def test_as_little_is_cut_as_makes_it_fit(messages: list[Message], budget: int) -> None:
    conversation = Conversation(messages)
    cut = conversation.cut_to_fit(budget)
    assert tokens(conversation.without(cut)) <= budget or cut == conversation.turns
    if cut:
        assert tokens(conversation.without(cut - 1)) > budget


@given(MESSAGES)
def test_cutting_more_ends_with_nothing_left_to_cut(messages: list[Message]) -> None:
    conversation = Conversation(messages)
    cut, steps = 0, 0
    while (more := conversation.cut_more(cut)) is not None:
        assert cut < more <= conversation.turns
        cut, steps = more, steps + 1
    assert cut == conversation.turns
    assert steps <= conversation.turns.bit_length() + 1


@given(st.text())
def test_the_estimate_is_the_bytes_by_three_rounded_up_and_four(text: str) -> None:
    estimate = estimated_tokens({"role": "user", "content": text})
    size = len(text.encode(errors="replace"))
    assert 0 <= 3 * (estimate - 4) - size < 3


def test_the_estimate_counts_parts_and_tool_calls_too() -> None:
    plain = {"role": "assistant", "content": ""}
    assert estimated_tokens({**plain, "tool_calls": [{"id": "x" * 300}]}) > 100
    assert estimated_tokens({"role": "user", "content": [{"type": "text", "text": "x" * 300}]}) > 100


def test_room_for_the_answer_is_what_was_asked_for_but_never_more_than_half_the_window() -> None:
    assert reserve(1000, None) == 250
    assert reserve(1000, 100) == 100
    assert reserve(1000, 5000) == 500


CALLS = st.lists(st.integers(1, 3), max_size=3)


@given(st.lists(CALLS, min_size=1, max_size=5), st.data())
def test_results_of_tools_are_never_parted_from_the_message_that_asked_for_them(
    turns: list[list[int]], data: st.DataObject
) -> None:
    messages: list[Message] = [{"role": "system", "content": "s"}]
    for rounds in turns:
        messages.append({"role": "user", "content": "u"})
        for count in rounds:
            ids = [f"c{n}" for n in range(count)]
            messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": i} for i in ids]})
            messages += [{"role": "tool", "tool_call_id": i, "content": "r"} for i in ids]
        messages.append({"role": "assistant", "content": "a"})
    conversation = Conversation(messages[:-1] if data.draw(st.booleans()) else messages)
    kept = conversation.without(data.draw(st.integers(0, conversation.turns)))
    assert kept[1]["role"] == "user", "what is left begins with a question, never with a result"
    open_: list[str] = []
    for message in kept:
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_.pop(0)
        else:
            assert open_ == []
            open_ = [call["id"] for call in message.get("tool_calls", ())]
    rounds_of_the_last = [m for m in kept if "tool_calls" in m][-len(turns[-1]) or len(kept) :]
    assert len(rounds_of_the_last) == len(turns[-1]), "the rounds of the current turn all stay"
