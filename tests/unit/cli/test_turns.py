"""A turn is followed over all breaks, and nothing of it is shown twice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tenure_cli.errors import CliError, GatewayLostError, NotNowError
from tenure_cli.gateway import Decision, Events, fault
from tenure_cli.turns import Run

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def response(status: str = "in_progress") -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": "shop/helper",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def event(number: int, kind: str, **fields: Any) -> ResponseStreamEvent:
    return EVENT.validate_python({"type": kind, "sequence_number": number, **fields})


def text(number: int, delta: str) -> ResponseStreamEvent:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    return event(number, "response.output_text.delta", delta=delta, **place)


ALL = [
    event(0, "response.created", response=response()),
    text(1, "one "),
    text(2, "two "),
    text(3, "three"),
    event(4, "response.completed", response=response("completed")),
]
LOST = GatewayLostError("gone")


class Road:
    """A stand-in for the way to the gateway: gives what the script says, one part for each time that it is asked."""

    def __init__(self, *script: Sequence[ResponseStreamEvent | CliError]) -> None:
        self.script = list(script)
        self.asked: list[Any] = []
        self.renewed = 0
        self.renewal: CliError | None = None

    def renew(self) -> None:
        self.renewed += 1
        if self.renewal is not None:
            raise self.renewal

    def follow(self, response: str, after: int | None = None) -> Events:
        self.asked.append((response, after))
        return self._next()

    def decide(self, response: str, decisions: list[Decision]) -> Events:
        self.asked.append(decisions)
        return self._next()

    def say(self) -> Events:
        self.asked.append("say")
        return self._next()

    def _next(self) -> Iterator[ResponseStreamEvent]:
        for step in self.script.pop(0):
            if isinstance(step, CliError):
                raise step
            yield step


class Seen:
    """What a person sees."""

    def __init__(self) -> None:
        self.shown = ""
        self.breaks = 0

    def text(self, delta: str) -> None:
        self.shown += delta

    def message(self, text: str) -> None: ...

    def void(self) -> None: ...

    def call(self, item: dict[str, Any]) -> None: ...

    def broken(self, why: str) -> None:
        self.breaks += 1


def follow(road: Road, begin: Callable[[Run], Any] | None = None) -> tuple[Seen, list[float]]:
    seen, waits = Seen(), list[float]()
    run = Run(road, seen, waits.append)  # type: ignore[arg-type]
    found = run.follow(road.say) if begin is None else begin(run)
    assert found.status == "completed"
    return seen, waits


def test_a_turn_that_breaks_off_goes_on_after_the_last_event_that_was_seen() -> None:
    road = Road([*ALL[:3], LOST], [*ALL[3:]])
    seen, _ = follow(road)
    assert seen.shown == "one two three"
    assert road.asked == ["say", ("resp_1", 2)]
    assert (road.renewed, seen.breaks) == (1, 1)


def test_a_turn_of_which_nothing_was_heard_is_asked_for_again() -> None:
    road = Road([LOST], [LOST], ALL[:])
    assert follow(road)[0].shown == "one two three"
    assert road.asked == ["say", "say", "say"]


def test_events_that_come_twice_are_shown_once() -> None:
    road = Road([*ALL[:3], LOST], ALL[:])
    assert follow(road)[0].shown == "one two three"


def test_a_stream_that_just_ends_has_broken_off() -> None:
    assert follow(Road(ALL[:2], ALL[2:]))[0].shown == "one two three"


def test_a_gateway_that_has_given_up_waiting_is_asked_again() -> None:
    gave_up = event(1, "error", code="session_not_ready", message="not yet", param=None)
    road = Road([*ALL[:2], gave_up], ALL[2:])
    assert follow(road)[0].shown == "one two three"


def test_what_somebody_must_mend_is_not_asked_for_again() -> None:
    stalled = event(1, "error", code="session_stalled", message="the key is lost", param=None)
    with pytest.raises(NotNowError, match="the key is lost"):
        follow(Road([*ALL[:2], stalled]))


def test_it_is_given_up_after_a_while_without_news_and_waits_longer_each_time() -> None:
    waits: list[float] = []
    run = Run(Road(*([LOST] for _ in range(7))), Seen(), waits.append)  # type: ignore[arg-type]
    with pytest.raises(GatewayLostError):
        run.follow(run.gateway.say)  # type: ignore[arg-type]
    assert waits == sorted(waits)
    assert len(waits) == 6


def test_news_begin_the_count_anew() -> None:
    slow = [[*ALL[n : n + 1], LOST] for n in range(4)]
    quiet: list[Sequence[Any]] = [[LOST] for _ in range(4)]
    road = Road(slow[0], *quiet, slow[1], *quiet, slow[2], *quiet, slow[3], ALL[4:])
    assert follow(road)[0].shown == "one two three"


def test_a_way_that_cannot_be_made_anew_yet_is_tried_again() -> None:
    road = Road([*ALL[:2], LOST], ALL[2:])
    road.renewal = NotNowError("kubectl: no pods")
    seen, _ = follow(road)
    assert (seen.shown, seen.breaks) == ("one two three", 2)


def test_a_decision_is_said_again_until_something_new_has_come() -> None:
    decisions = [Decision("mcpr_1", True)]
    road = Road([*ALL[:2], event(2, "response.incomplete", response=response("incomplete"))], [LOST], ALL[3:])

    def begin(run: Run) -> Any:
        assert run.follow(road.say).status == "incomplete"
        return run.decide(decisions)

    assert follow(road, begin)[0].shown == "one three"
    assert road.asked == ["say", decisions, decisions]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "model_not_found", 3),
        (401, "invalid_api_key", 4),
        (403, None, 4),
        (409, "approval_pending", 6),
        (409, "conversation_locked", 1),
        (429, None, 5),
        (503, "session_hibernated", 5),
        (400, None, 1),
    ],
)
def test_answers_of_the_gateway_have_exit_codes(status: int, code: str | None, kind: int) -> None:
    assert fault(status, code, "So it is.").code == kind
