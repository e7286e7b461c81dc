"""A turn goes on without its client, its pod and its gateway, for as long as a person or a clock takes."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from harness.effects import Effects
from harness.forward import Forward
from harness.killing import Killer
from harness.kube import Manifest, NotYetError, condition, eventually, is_ready
from harness.manifests import http_tool
from harness.model import ScriptedModel, call, program
from harness.sse import complete_events, sequence_number
from harness.tenure import SYSTEM, Installed, Place
from harness.turns import decide, ended, items
from tenure_api.names import RECOVERED_ANNOTATION, session_pod

CUTS = 50
NO_PODS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent(
        "durable",
        tools=[
            http_tool("read", "/slow"),
            http_tool("charge", "/payments", "POST"),
            http_tool("pay", "/payments", "POST", approval="Required"),
            {"name": "sleep", "waitUntil": {}},
        ],
    )


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


@pytest.fixture(scope="module")
def gateways(tenure: Installed, place: Place) -> Iterator[list[openai.OpenAI]]:
    """A client of each of two replicas of the gateway."""
    system = tenure.kube.within(SYSTEM)
    pods = [p["metadata"]["name"] for p in system.items("pods", "app.kubernetes.io/component=gateway")]
    assert len(pods) >= 2, "this needs two replicas of the gateway"
    token = place.caller()
    with ExitStack() as stack:
        urls = [stack.enter_context(Forward(system, f"pod/{pod}", 8080)).url for pod in pods[:2]]
        yield [openai.OpenAI(base_url=f"{url}/v1", api_key=token, timeout=120, max_retries=0) for url in urls]


def payment(tag: str) -> dict[str, Any]:
    """The arguments of a payment."""
    return {"order": "o1", "amount": 5, "tag": tag}


def present(place: Place, session: str, type_: str, reason: str) -> Manifest:
    """A condition of a session that is True for a reason."""

    def look() -> Manifest:
        found = condition(place.kube.get("agentsession", session), type_)
        assert (found["status"], found["reason"]) == ("True", reason), found
        return found

    return eventually(look, 60)


def absent(place: Place, session: str, type_: str) -> bool:
    """Whether a session has no such condition."""
    try:
        condition(place.kube.get("agentsession", session), type_)
    except NotYetError:
        return True
    return False


def test_a_background_turn_is_answered_at_once_and_can_be_retrieved(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("background", "durable")
    asked = client.responses.create(
        model=agent, conversation=conversation, input="slow: 100: a b c d e f g h i j", background=True
    )
    assert asked.status in ("queued", "in_progress")
    assert asked.background
    assert client.responses.retrieve(asked.id).status == "in_progress"
    done = ended(client, asked.id)
    assert (done.status, done.output_text) == ("completed", "a b c d e f g h i j")
    assert done.created_at == asked.created_at


def test_a_turn_that_is_cancelled_stops_and_the_next_one_works(
    place: Place, agent: str, client: openai.OpenAI, http_api: Effects
) -> None:
    conversation = place.session("cancelled", "durable")
    tag = f"{place.name}-cancelled"
    asked = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("read", {"seconds": 0, "tag": tag})], final={"say": "It comes too late.", "delay": 60}),
        background=True,
    )
    eventually(lambda: http_api.count(tag).calls)
    cancelled = client.responses.cancel(asked.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(asked.id).status == "cancelled"
    assert client.responses.retrieve(asked.id).status == "cancelled"
    after = client.responses.create(model=agent, conversation=conversation, input="say: next")
    assert after.output_text == "next"


def streamed(client: openai.OpenAI, response: str, after: int | None, limit: int) -> bytes:
    """The first bytes of a response's stream, after an event; the connection is cut then."""
    url = f"{str(client.base_url).rstrip('/')}/responses/{response}"
    query = {"stream": "true", **({} if after is None else {"starting_after": str(after)})}
    received = b""
    with httpx.stream(
        "GET", url, params=query, headers={"Authorization": f"Bearer {client.api_key}"}, timeout=60
    ) as answer:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_raw():
            received += piece
            if len(received) >= limit:
                break
    return received[:limit]


def cut_and_resumed(gateways: list[openai.OpenAI], response: str, most: int) -> bytes:
    """The stream of a response to its end, cut `CUTS` times after at most so many bytes; gateways take turns."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kept, last, cuts = b"", None, 0
    while b"event: response.completed" not in kept:
        limit = chance.randint(1, most) if cuts < CUTS else 10**9
        received = streamed(gateways[cuts % 2], response, last, limit)
        whole = complete_events(received)
        assert whole or len(received) == limit, f"nothing after {last}: {received!r}"
        kept += whole
        last = sequence_number(whole) if whole else last
        cuts += len(received) == limit
    assert cuts == CUTS, "the stream ended too early"
    return kept


def test_a_live_stream_that_is_cut_at_random_bytes_and_resumed_is_byte_equal_to_the_uncut_one(
    place: Place, agent: str, gateways: list[openai.OpenAI]
) -> None:
    conversation = place.session("cut", "durable")
    said = " ".join(f"word{n}" for n in range(200))
    asked = gateways[0].responses.create(
        model=agent, conversation=conversation, input=f"slow: 40: {said}", background=True
    )
    kept = cut_and_resumed(gateways, asked.id, 900)
    assert [streamed(gateway, asked.id, None, 10**9) for gateway in gateways] == [kept, kept]
    events = [event + b"\n\n" for event in kept.split(b"\n\n") if event]
    assert [sequence_number(event) for event in events] == list(range(len(events)))
    assert ended(gateways[0], asked.id).output_text == said


def test_so_is_the_stream_of_a_turn_with_calls_and_an_approval(
    place: Place, agent: str, gateways: list[openai.OpenAI]
) -> None:
    conversation = place.session("cut-calls", "durable")
    tag = f"{place.name}-cut"
    rounds = {"say": "I look. ", "calls": [call("read", {"seconds": 0})] * 3}, [call("pay", payment(tag))]
    said = " ".join(f"word{n}" for n in range(60))
    asked = gateways[0].responses.create(model=agent, conversation=conversation, input=program(*rounds, final=said))
    decide(gateways[1], agent, asked)
    kept = cut_and_resumed(gateways, asked.id, 500)
    assert [streamed(gateway, asked.id, None, 10**9) for gateway in gateways] == [kept, kept]
    assert b"response.incomplete" in kept


def test_a_stream_goes_on_by_itself_when_the_pod_dies(
    place: Place, agent: str, client: openai.OpenAI, killer: Killer
) -> None:
    conversation = place.session("torn", "durable")
    said = " ".join(f"w{n}" for n in range(40))
    stream = client.responses.create(model=agent, conversation=conversation, input=f"slow: 100: {said}", stream=True)
    deltas, final, killed = 0, None, False
    for event in stream:
        if event.type == "response.output_text.delta":
            deltas += 1
            if deltas == 5 and not killed:
                killed = True
                killer.kill_pod(session_pod("torn"))
        if event.type == "response.completed":
            final = event.response
    assert killed
    assert final is not None
    assert final.output_text == said


def test_an_approval_outlives_the_pod_and_two_replicas_see_the_same(
    place: Place, agent: str, gateways: list[openai.OpenAI], http_api: Effects, killer: Killer
) -> None:
    conversation = place.session("approval", "durable")
    tag = f"{place.name}-approval"
    asked = gateways[0].responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("pay", payment(tag))], final="It is paid."),
        background=True,
    )
    waiting = ended(gateways[0], asked.id)
    assert waiting.status == "incomplete"
    assert waiting.incomplete_details is not None
    assert waiting.incomplete_details.reason == "approval_required"  # type: ignore[comparison-overlap]
    (request,) = items(waiting, "mcp_approval_request")
    assert request.name == "pay"
    assert json.loads(request.arguments)["tag"] == tag
    shown = present(place, "approval", "TurnSuspended", "ApprovalPending")
    assert "pay" in shown["message"]
    with pytest.raises(openai.ConflictError) as refusal:
        gateways[1].responses.create(model=agent, conversation=conversation, input="say: hello")
    assert refusal.value.code == "approval_pending"

    place.kube.apply(NO_PODS)
    killer.kill_pod(session_pod("approval"))
    eventually(lambda: not is_ready(place.kube.get("agentsession", "approval")))
    time.sleep(5)
    assert place.kube.find("pod", session_pod("approval")) is None
    present(place, "approval", "TurnSuspended", "ApprovalPending")
    place.kube.delete("resourcequota", "no-pods")

    seen = [ended(gateway, asked.id) for gateway in gateways]
    assert seen[0].model_dump() == seen[1].model_dump() == waiting.model_dump()
    assert http_api.count(tag).calls == 0
    same = decide(gateways[1], agent, waiting)
    assert same.id == asked.id
    done = ended(gateways[0], asked.id)
    assert (done.status, done.output_text) == ("completed", "It is paid.")
    assert http_api.count(tag).effects == 1
    (paid,) = items(done, "mcp_call")
    assert paid.approval_request_id == request.id
    eventually(lambda: absent(place, "approval", "TurnSuspended"), 60)


def test_a_refused_call_is_not_made_and_the_model_is_told(
    place: Place, agent: str, client: openai.OpenAI, http_api: Effects
) -> None:
    conversation = place.session("refusal", "durable")
    tag = f"{place.name}-refusal"
    asked = client.responses.create(
        model=agent, conversation=conversation, input=program([call("pay", payment(tag))], final="It is not paid.")
    )
    assert asked.status == "incomplete"
    done = decide(client, agent, asked, approve=False)
    assert (done.id, done.status, done.output_text) == (asked.id, "completed", "It is not paid.")
    assert http_api.count(tag).calls == 0
    (call_,) = items(done, "mcp_call")
    assert call_.error or call_.status == "failed"
    with pytest.raises(openai.ConflictError) as refusal:
        decide(client, agent, asked, approve=True)
    assert refusal.value.code == "already_decided"


def test_waiting_for_a_time_survives_the_death_of_the_pod(
    place: Place, agent: str, client: openai.OpenAI, killer: Killer
) -> None:
    conversation = place.session("patient", "durable")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=20)
    asked = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("sleep", {"time": until.isoformat()})], final="Good morning."),
        background=True,
    )
    present(place, "patient", "TurnSuspended", "WaitingUntil")
    killer.kill_pod(session_pod("patient"))
    done = ended(client, asked.id, 90)
    assert (done.status, done.output_text) == ("completed", "Good morning.")
    assert datetime.now(UTC) >= until
    eventually(lambda: absent(place, "patient", "TurnSuspended"), 60)


@pytest.mark.parametrize(
    ("name", "limits", "code"),
    [
        ("steps", {"maxSteps": 3}, "max_steps_reached"),
        ("duration", {"maxDurationSeconds": 5}, "max_duration_reached"),
        ("tokens", {"maxTokens": 60}, "max_tokens_reached"),
    ],
)
def test_a_turn_that_reaches_a_limit_says_which_and_the_next_one_works(
    place: Place, client: openai.OpenAI, name: str, limits: dict[str, int], code: str
) -> None:
    full = place.agent(name, tools=[http_tool("read", "/slow")], turnLimits=limits)
    conversation = place.session(name, name)
    rounds = [[call("read", {"seconds": 0})] for n in range(6)]
    last = {"say": "It comes too late.", "delay": 30} if name == "duration" else "Done."
    asked = client.responses.create(
        model=full, conversation=conversation, input=program(*rounds, final=last), background=True
    )
    done = ended(client, asked.id)
    assert done.status == "failed"
    assert done.error is not None
    assert code in done.error.message
    after = client.responses.create(model=full, conversation=conversation, input="say: next")
    assert after.output_text == "next"


def test_an_unknown_outcome_is_a_condition_until_a_person_has_looked_into_it(
    place: Place, agent: str, client: openai.OpenAI, http_api: Effects, killer: Killer, model: ScriptedModel
) -> None:
    conversation = place.session("unknown", "durable")
    tag = f"{place.name}-unknown"
    http_api.hold(f"{tag}/after")
    asked = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("charge", payment(tag))], final="Nobody knows."),
        background=True,
    )
    http_api.await_hold(f"{tag}/after")
    killer.kill_pod(session_pod("unknown"))
    http_api.release(f"{tag}/after")
    done = ended(client, asked.id)
    assert (done.status, done.output_text) == ("completed", "Nobody knows.")
    (call_,) = items(done, "mcp_call")
    assert "unknown" in str(call_.error or call_.output)
    assert http_api.count(tag).effects == 1
    raised = present(place, "unknown", "RecoveryRequired", "OutcomeUnknown")
    assert "charge" in raised["message"]
    step = f"{asked.id.rpartition('_')[2]}/{call_.id.rpartition('_')[2]}"
    assert step in raised["message"]
    place.kube.run("annotate", "agentsession", "unknown", f"{RECOVERED_ANNOTATION}={step}")
    eventually(lambda: absent(place, "unknown", "RecoveryRequired"), 60)


def test_a_repeated_request_with_the_same_idempotency_key_gets_the_same_response(
    place: Place, agent: str, client: openai.OpenAI, model: ScriptedModel
) -> None:
    tag = f"{place.name}-twice"
    asked = [
        client.responses.create(
            model=agent, input=f"say: once tag:{tag}", extra_headers={"Idempotency-Key": f"{place.name}-1"}
        )
        for _ in range(2)
    ]
    assert asked[0].id == asked[1].id
    assert asked[0].output_text == asked[1].output_text == "once"
    assert model.calls(tag) == 1
