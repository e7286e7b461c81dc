"""A change of an agent moves its sessions one by one, between turns, and stops at the first that does not start."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from harness.kube import Kube, Manifest, NotYetError, condition, eventually, is_ready
from harness.manifests import agent as agent_manifest
from harness.manifests import session as session_manifest
from harness.model import ScriptedModel
from harness.sleeping import asleep, pod, status
from harness.tenure import Place
from tenure_api.names import session_pod

BAD_IMAGE = {"image": "example.invalid/none:1"}
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def ready(kube: Kube, name: str) -> bool:
    """Whether a session is Ready, whatever generation it is of."""
    return bool(condition(kube.get("agentsession", name), "Ready")["status"] == "True")


def blocked(kube: Kube, agent: str) -> Manifest | None:
    """The condition of an agent whose sessions cannot be moved."""
    try:
        return condition(kube.get("agent", agent), "RolloutBlocked")
    except NotYetError:
        return None


def uid(place: Place, session: str) -> str:
    """Which pod runs a session."""
    found = pod(place, session)
    return str(found["metadata"]["uid"]) if found else ""


def test_a_bad_image_stops_at_the_first_session_says_so_and_is_mended_by_a_good_one(
    place: Place, client: openai.OpenAI
) -> None:
    name = place.agent("rolled")
    place.kube.apply(*(session_manifest(one, "rolled", place.subject()) for one in NAMES))
    conversations = [place.session(one, "rolled") for one in NAMES]
    for n, conversation in enumerate(conversations):
        client.responses.create(model=name, conversation=conversation, input=f"My name is Name{n}.")
    before = {one: uid(place, one) for one in NAMES}
    place.kube.apply(agent_manifest("rolled", runtime=BAD_IMAGE))

    told = eventually(lambda: blocked(place.kube, "rolled"), 120)
    assert (told["status"], told["reason"]) == ("True", "SessionsFailing")
    failing = [one for one in NAMES if not ready(place.kube, one)]
    assert len(failing) == 1
    assert failing[0] in told["message"]
    time.sleep(45)  # longer than a rollout looks again
    assert [one for one in NAMES if not ready(place.kube, one)] == failing
    healthy = [one for one in NAMES if one not in failing]
    assert {one: uid(place, one) for one in healthy} == {one: before[one] for one in healthy}
    for n, one in enumerate(NAMES):
        if one in healthy:
            answer = client.responses.create(model=name, conversation=conversations[n], input="What is my name?")
            assert f"Name{n}" in answer.output_text

    place.kube.apply(agent_manifest("rolled"))
    eventually(lambda: all(is_ready(place.kube.get("agentsession", one)) for one in NAMES), 120)
    eventually(lambda: blocked(place.kube, "rolled") is None, 60)
    for n, conversation in enumerate(conversations):
        answer = client.responses.create(model=name, conversation=conversation, input="What is my name?")
        assert f"Name{n}" in answer.output_text


def slim(memory: str) -> dict[str, Any]:
    """Resources of the agent container: a change of them needs a new pod."""
    return {"resources": {"requests": {"memory": memory}}}


def test_a_session_in_the_middle_of_a_turn_finishes_it_in_the_pod_in_which_it_began(
    place: Place, client: openai.OpenAI, model: ScriptedModel
) -> None:
    name = place.agent("changed", instructions="Be brief.", runtime=slim("48Mi"))
    conversation = place.session("busy", "changed")
    before, revision = uid(place, "busy"), status(place, "busy")["revision"]
    tag, said = f"{place.name}-busy", " ".join(f"w{n}" for n in range(40))
    with ThreadPoolExecutor() as pool:
        asked = f"slow: 500: {said} tag:{tag}"
        turn = pool.submit(client.responses.create, model=name, conversation=conversation, input=asked)
        eventually(lambda: model.calls(tag), 30)
        place.kube.apply(agent_manifest("changed", instructions="Be kind.", runtime=slim("49Mi")))
        eventually(lambda: place.kube.get("agent", "changed")["status"]["revision"] != revision, 30)
        time.sleep(5)
        assert not turn.done()
        assert uid(place, "busy") == before
        assert turn.result().output_text == said
    assert model.calls(tag) == 1
    wanted = place.kube.get("agent", "changed")["status"]["revision"]
    eventually(lambda: status(place, "busy").get("revision") == wanted, 60)
    assert uid(place, "busy") != before
    eventually(lambda: is_ready(place.kube.get("agentsession", "busy")), 60)
    shown = client.responses.create(model=name, conversation=conversation, input="history").output_text
    assert "Be kind." in shown
    assert said in shown


def test_sessions_that_sleep_do_not_hold_up_a_change_and_get_it_when_they_wake(
    place: Place, client: openai.OpenAI
) -> None:
    drowsy = {"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 3}
    name = place.agent("sleepers", runtime=slim("48Mi"), session=drowsy)
    for one in ("asleep-1", "asleep-2"):
        place.session(one, "sleepers")
    for one in ("asleep-1", "asleep-2"):
        asleep(place, one)
    place.kube.apply(agent_manifest("sleepers", runtime=slim("49Mi"), session=drowsy))
    eventually(lambda: is_ready(place.kube.get("agent", "sleepers")), 30)
    for one in ("asleep-1", "asleep-2"):
        assert place.kube.find("pod", session_pod(one)) is None
        answer = client.responses.create(model=name, conversation=f"{place.name}/{one}", input="say: awake")
        assert answer.output_text == "awake"
        found = pod(place, one)
        assert found is not None
        (container,) = (c for c in found["spec"]["containers"] if c["name"] == "agent")
        assert container["resources"]["requests"]["memory"] == "49Mi"
