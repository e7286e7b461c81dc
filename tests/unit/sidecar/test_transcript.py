"""The transcript: completed turns are the conversation, in pages and as the model sees them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api.wire import Failure, TurnRequest, TurnStatus
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import Entry, TurnEnd, TurnStart
from tenure_sidecar.journal.store import Record
from tenure_sidecar.turn.transcript import Transcript
from unit.sidecar.support import NOON, a_turn


class Tape:
    """Records as a journal would give them."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, turn: str, entry: Entry) -> None:
        sequence = len(self.records) + 1
        at = int((NOON + sequence) * 1e6)
        self.records.append(Record(sequence, turn, 0, entry.kind, at, entry.payload()))

    def begin(self, request: TurnRequest) -> None:
        self.add(request.turn, TurnStart(request=request, agent="bot"))

    def complete(self, request: TurnRequest, text: str) -> None:
        self.begin(request)
        self.add(request.turn, TurnEnd(status=TurnStatus.COMPLETED, text=text, finish_reason="stop"))

    def fail(self, request: TurnRequest) -> None:
        self.begin(request)
        self.add(request.turn, TurnEnd(status=TurnStatus.FAILED, error=Failure(code="model_error", message="no")))


def of(count: int) -> tuple[Transcript, list[TurnRequest]]:
    tape, requests = Tape(), [a_turn(f"question {n}") for n in range(count)]
    for n, request in enumerate(requests):
        tape.complete(request, f"answer {n}")
    return Transcript(tape.records), requests


def test_a_completed_turn_has_its_input_and_its_answer_as_items() -> None:
    transcript, (request,) = of(1)
    page = transcript.page(20, newest_first=False, after=None)
    assert [(i.id, i.role.value, i.text) for i in page.data] == [
        (f"msg_{request.turn}_0", "user", "question 0"),
        (f"msg_{request.turn}_1", "assistant", "answer 0"),
    ]
    assert not page.has_more


def test_a_failed_turn_is_no_part_of_the_conversation_but_has_an_outcome() -> None:
    tape, request = Tape(), a_turn()
    tape.fail(request)
    transcript = Transcript(tape.records)
    assert transcript.page(20, newest_first=False, after=None).data == []
    assert transcript.history() == []
    assert transcript.last_completed() is None
    assert transcript.open_turn() is None
    recorded = transcript.get(request.turn)
    assert recorded is not None
    assert recorded.wire().error == Failure(code="model_error", message="no")


def test_a_turn_without_an_end_is_open() -> None:
    tape, done, request = Tape(), a_turn(), a_turn()
    tape.complete(done, "answer")
    tape.begin(request)
    transcript = Transcript(tape.records)
    found = transcript.open_turn()
    assert found is not None
    assert found.turn == request.turn
    assert found.wire().status is TurnStatus.IN_PROGRESS
    assert transcript.last_completed() == done.turn
    assert len(transcript) == 1


def test_the_model_sees_the_words_in_order() -> None:
    transcript, _ = of(2)
    messages = json.loads(b"[" + b",".join(turn.context for turn in transcript.history()) + b"]")
    assert messages == [
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "answer 0"},
        {"role": "user", "content": "question 1"},
        {"role": "assistant", "content": "answer 1"},
    ]


def test_a_deleted_turn_is_gone_from_everything() -> None:
    transcript, requests = of(3)
    transcript.drop([requests[0].turn])
    assert transcript.get(requests[0].turn) is None
    assert len(transcript.history()) == 2
    assert all(item.turn != requests[0].turn for item in transcript.page(100, newest_first=False, after=None).data)


@given(count=st.integers(0, 7), limit=st.integers(1, 5), newest_first=st.booleans())
def test_pages_hold_every_item_once_and_in_order(count: int, limit: int, newest_first: bool) -> None:
    transcript, _ = of(count)
    whole = [item for turn in transcript for item in turn.items()]
    found, after = [], None
    while True:
        page = transcript.page(limit, newest_first, after)
        found += page.data
        assert len(page.data) <= limit
        if not page.has_more:
            break
        after = found[-1].id
    assert found == (whole[::-1] if newest_first else whole)


@pytest.mark.parametrize("after", ["msg_" + "0" * 32 + "_0", "nonsense", ""])
def test_a_page_after_an_item_that_is_not_there_is_refused(after: str) -> None:
    transcript, _ = of(2)
    with pytest.raises(RefusedError) as refusal:
        transcript.page(20, newest_first=False, after=after)
    assert refusal.value.status == 404


def test_the_last_activity_is_the_last_beginning_or_end() -> None:
    transcript, _ = of(2)
    assert transcript.last_activity == NOON + 4
