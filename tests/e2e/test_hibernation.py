"""A session that nobody uses has no pod and loses nothing; what it is asked for, or owes, wakes it."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest

from harness.effects import Effects
from harness.kstatus import kstatus
from harness.kube import NotYetError, condition, eventually, is_ready
from harness.manifests import agent as agent_manifest
from harness.manifests import http_tool
from harness.manifests import session as session_manifest
from harness.model import call, program
from harness.sleeping import asleep, awake, generation, pod, status
from harness.tenure import Place
from harness.turns import decide, ended, is_pending, waited_out
from tenure_api.names import session_claim, session_pod

IDLE = 2
"""Seconds of idleness after which the sessions of these tests sleep."""


def drowsy(**template: Any) -> dict[str, Any]:
    """What an agent says of its sessions, so that they sleep soon."""
    return {"storage": {"size": "64Mi"}, "idleTimeoutSeconds": IDLE, **template}


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    tools = [
        http_tool("read", "/slow"),
        http_tool("pay", "/payments", "POST", approval="Required"),
        {"name": "sleep", "waitUntil": {}},
    ]
    return place.agent("drowsy", tools=tools, session=drowsy())


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def texts(client: openai.OpenAI, conversation: str) -> list[str]:
    """All that was said, oldest first."""
    items = client.conversations.items.list(conversation, order="asc", limit=100)
    return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]


def test_an_idle_session_loses_its_pod_and_nothing_else_and_a_request_wakes_it(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("quiet", "drowsy")
    client.responses.create(model=agent, conversation=conversation, input="My name is Ada.")
    before = place.kube.get("agentsession", "quiet")
    claim = place.kube.get("persistentvolumeclaim", session_claim("quiet"))["metadata"]["uid"]
    key = place.kube.get("secret", place.key("quiet"))["metadata"]["uid"]

    found = asleep(place, "quiet")
    after = place.kube.get("agentsession", "quiet")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert "podIP" not in found
    assert "podName" not in found
    assert found["hibernation"]["reason"] == "Idle"
    assert "wakeAt" not in found["hibernation"]
    ready = condition(after, "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Hibernated")
    assert kstatus(after) == "Current"
    assert place.kube.get("persistentvolumeclaim", session_claim("quiet"))["metadata"]["uid"] == claim
    assert place.kube.get("secret", place.key("quiet"))["metadata"]["uid"] == key

    answer = client.responses.create(model=agent, conversation=conversation, input="What is my name?")
    assert "Ada" in answer.output_text
    assert generation(place, "quiet") == found["lease"]["generation"] + 1
    assert place.kube.get("agentsession", "quiet")["spec"] == before["spec"]


def test_kubectl_shows_who_sleeps_and_waits_for_nobody(place: Place, agent: str) -> None:
    place.session("shown", "drowsy")
    asleep(place, "shown")
    header, row = place.kube.run("get", "agentsession", "shown").splitlines()
    assert "MODE" in header.split()
    assert "Hibernated" in row.split()
    place.kube.run("wait", "agentsession/shown", "--for=condition=Ready", "--timeout=1s")

    def counted() -> bool:
        sessions = place.kube.items("agentsessions")
        ours = [s for s in sessions if s["spec"]["agentRef"]["name"] == "drowsy"]
        sleeping = [s for s in ours if s["status"].get("effectiveMode") == "Hibernated"]
        count = place.kube.get("agent", "drowsy")["status"]["sessions"]
        return bool(count["total"] == len(ours) and count["hibernated"] == len(sleeping))

    eventually(counted, 30)


def test_whoever_reads_the_history_of_a_session_that_sleeps_gets_it(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("read", "drowsy")
    told = client.responses.create(model=agent, conversation=conversation, input="say: noted")
    asleep(place, "read")
    assert texts(client, conversation) == ["say: noted", "noted"]
    asleep(place, "read")
    assert client.responses.retrieve(told.id).output_text == "noted"
    asleep(place, "read")
    streamed = client.responses.create(model=agent, conversation=conversation, input="slow: 5: a b c", stream=True)
    assert "".join(event.delta for event in streamed if event.type == "response.output_text.delta") == "a b c"


def test_many_requests_at_once_wake_a_session_once(place: Place, agent: str, client: openai.OpenAI) -> None:
    conversation = place.session("alarm", "drowsy")
    before = asleep(place, "alarm")["lease"]["generation"]

    def ask(n: int) -> str:
        return client.responses.create(model=agent, conversation=conversation, input=f"say: {n}").output_text

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(ask, range(5))) == ["0", "1", "2", "3", "4"]
    assert generation(place, "alarm") == before + 1


def test_an_approval_wakes_a_session_that_slept_while_it_waited_for_one(
    place: Place, agent: str, client: openai.OpenAI, http_api: Effects
) -> None:
    conversation = place.session("approving", "drowsy")
    tag = f"{place.name}-approving"
    payment = call("pay", {"order": "o1", "amount": 5, "tag": tag})
    asked = client.responses.create(
        model=agent, conversation=conversation, input=program([payment], final="It is paid.")
    )
    assert is_pending(asked)
    asleep(place, "approving")
    waits = condition(place.kube.get("agentsession", "approving"), "TurnSuspended")
    assert (waits["status"], waits["reason"]) == ("True", "ApprovalPending")
    assert http_api.count(tag).calls == 0
    done = decide(client, agent, asked)
    assert (done.id, done.status, done.output_text) == (asked.id, "completed", "It is paid.")
    assert http_api.count(tag).effects == 1


def test_a_turn_whose_time_has_come_wakes_its_session_without_anybody_asking(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("alarm-clock", "drowsy")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=45)
    asked = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("sleep", {"time": until.isoformat()})], final="Good morning."),
        background=True,
    )
    found = asleep(place, "alarm-clock", 40)
    assert datetime.fromisoformat(found["hibernation"]["wakeAt"]) == until
    awake(place, "alarm-clock", 60)
    assert datetime.now(UTC) >= until
    asleep(place, "alarm-clock")  # again, after the turn
    with pytest.raises(NotYetError):
        condition(place.kube.get("agentsession", "alarm-clock"), "TurnSuspended")
    done = client.responses.retrieve(asked.id)
    assert (done.status, done.output_text) == ("completed", "Good morning.")


def test_a_background_turn_wakes_its_session_and_is_finished_in_it(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("background", "drowsy")
    asleep(place, "background")
    said = " ".join(f"w{n}" for n in range(12))
    asked = client.responses.create(model=agent, conversation=conversation, input=f"slow: 500: {said}", background=True)
    asleep(place, "background")  # it takes longer than the session may be idle
    done = ended(client, asked.id)
    assert (done.status, done.output_text) == ("completed", said)


def test_no_session_sleeps_while_a_turn_runs(place: Place, agent: str, client: openai.OpenAI) -> None:
    conversation = place.session("busy", "drowsy")
    said = " ".join(f"w{n}" for n in range(20))
    before = generation(place, "busy")
    stream = client.responses.create(model=agent, conversation=conversation, input=f"slow: 500: {said}", stream=True)
    seen = set()
    for event in stream:
        if event.type == "response.output_text.delta":
            found = status(place, "busy")
            seen.add((found["effectiveMode"], found["lease"]["generation"]))
        if event.type == "response.completed":
            assert event.response.output_text == said
    first = before if ("Running", before) in seen else before + 1  # it may have slept before the turn
    assert seen == {("Running", first)}


def test_no_session_sleeps_while_somebody_listens_to_a_turn_that_waits(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    conversation = place.session("heard", "drowsy")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=IDLE + 12)
    asked = client.responses.create(
        model=agent,
        conversation=conversation,
        input=program([call("sleep", {"time": until.isoformat()})], final="Good morning."),
        stream=True,
    )
    first = next(iter(asked))
    assert first.type == "response.created"
    before = generation(place, "heard")
    assert [event.response.output_text for event in asked if event.type == "response.completed"] == ["Good morning."]
    assert generation(place, "heard") == before
    asleep(place, "heard")


WAKER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "waker"},
    "rules": [{"apiGroups": ["tenure.dev"], "resources": ["agentsessions"], "verbs": ["wake"]}],
}


def may_wake(place: Place, account: str) -> dict[str, Any]:
    """Binds the right to wake sessions to a ServiceAccount."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": place.name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "waker"}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"waker-{account}"},
        "roleRef": role,
        "subjects": [subject],
    }


def test_a_session_that_is_to_sleep_is_woken_only_by_who_may_and_sleeps_again(place: Place, agent: str) -> None:
    client = place.client("carol")
    conversation = place.session("locked", "drowsy", "carol")
    client.responses.create(model=agent, conversation=conversation, input="My name is Carol.")
    place.kube.patch("agentsession", "locked", {"spec": {"operatingMode": "Hibernated"}})
    found = eventually(lambda: (s := asleep(place, "locked"))["hibernation"]["reason"] == "Requested" and s, 30)
    ready = condition(place.kube.get("agentsession", "locked"), "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Hibernated")
    assert kstatus(place.kube.get("agentsession", "locked")) == "Current"

    with pytest.raises(openai.ConflictError) as refusal:
        client.responses.create(model=agent, conversation=conversation, input="What is my name?")
    assert refusal.value.code == "session_hibernated"
    with pytest.raises(openai.ConflictError):
        texts(client, conversation)
    time.sleep(3)
    assert status(place, "locked")["lease"] == found["lease"]

    place.kube.apply(WAKER, may_wake(place, "carol"))

    def ask() -> str:
        question = "What is my name?"
        return client.responses.create(model=agent, conversation=conversation, input=question).output_text

    assert "Carol" in eventually(lambda: waited_out(ask), 30)  # what was decided before is believed for a while
    again = asleep(place, "locked")
    assert again["lease"]["generation"] == found["lease"]["generation"] + 1
    assert again["hibernation"]["reason"] == "Requested"
    place.kube.patch("agentsession", "locked", {"spec": {"operatingMode": "Running"}})
    assert awake(place, "locked")["lease"]["generation"] == found["lease"]["generation"] + 2
    eventually(lambda: is_ready(place.kube.get("agentsession", "locked")), 60)


def test_a_session_can_begin_asleep_and_takes_nothing_until_it_is_woken(place: Place, agent: str) -> None:
    place.kube.apply(session_manifest("unborn", "drowsy", place.subject(), operatingMode="Hibernated"))
    eventually(lambda: is_ready(place.kube.get("agentsession", "unborn")), 30)
    assert status(place, "unborn")["effectiveMode"] == "Hibernated"
    assert place.kube.find("pod", session_pod("unborn")) is None
    assert place.kube.find("persistentvolumeclaim", session_claim("unborn")) is None
    place.kube.patch("agentsession", "unborn", {"spec": {"operatingMode": "Running"}})
    answer = place.client().responses.create(model=agent, conversation=f"{place.name}/unborn", input="say: born")
    assert answer.output_text == "born"


def test_a_change_of_the_agent_reaches_a_session_that_sleeps_when_it_wakes(place: Place, client: openai.OpenAI) -> None:
    name = place.agent("changing", instructions="Be brief.", session=drowsy())
    conversation = place.session("dreaming", "changing")
    client.responses.create(model=name, conversation=conversation, input="My name is Ada.")
    before = asleep(place, "dreaming")
    resources = {"requests": {"memory": "48Mi"}}  # it needs a new pod
    place.kube.apply(
        agent_manifest("changing", instructions="Be kind.", runtime={"resources": resources}, session=drowsy())
    )
    eventually(lambda: is_ready(place.kube.get("agent", "changing")), 30)
    time.sleep(5)
    assert status(place, "dreaming")["lease"] == before["lease"]

    shown = client.responses.create(model=name, conversation=conversation, input="history").output_text
    assert "Be kind." in shown
    assert "My name is Ada." in shown
    found = pod(place, "dreaming")
    assert found is not None
    (container,) = (c for c in found["spec"]["containers"] if c["name"] == "agent")
    assert container["resources"]["requests"]["memory"] == "48Mi"
    revision = place.kube.get("agent", "changing")["status"]["revision"]
    assert revision != before["revision"]
    eventually(lambda: status(place, "dreaming")["revision"] == revision, 30)


def test_a_pod_that_is_too_old_is_replaced_between_two_turns(place: Place, client: openai.OpenAI) -> None:
    lifetime = 60
    name = place.agent("ageing", session=drowsy(idleTimeoutSeconds=900, maxLifetimeSeconds=lifetime))
    conversation = place.session("aged", "ageing")
    client.responses.create(model=name, conversation=conversation, input="My name is Ada.")
    first = pod(place, "aged")
    assert first is not None
    born = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
    time.sleep(max(0.0, lifetime - 5 - (datetime.now(UTC) - born).total_seconds()))
    said = " ".join(f"w{n}" for n in range(30))
    answer = client.responses.create(model=name, conversation=conversation, input=f"slow: 500: {said}")
    assert answer.output_text == said
    assert datetime.now(UTC) - born > timedelta(seconds=lifetime)

    def replaced() -> bool:
        found = pod(place, "aged")
        return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

    eventually(replaced, 30)
    again = client.responses.create(model=name, conversation=conversation, input="What is my name?")
    assert "Ada" in again.output_text
    assert generation(place, "aged") == 2
