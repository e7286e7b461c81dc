"""Sessions that share pods: many conversations in few pods, none of which sees another, through the death of a pod."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import openai
import pytest

from harness.kube import KubectlError, condition, eventually, is_ready
from harness.tenure import Place
from tenure_api import names

SESSIONS = 20
REPLICAS = 2


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    session = {"isolation": "Shared", "replicas": REPLICAS, "storage": {"size": "128Mi"}}
    model = place.agent("crowd", session=session)
    for number in range(REPLICAS):
        eventually(partial(ready, place, names.session_pod(names.host_set("crowd", number))), 120)
    return model


def ready(place: Place, pod: str) -> bool:
    return is_ready(place.kube.get("pod", pod))


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def conversations(place: Place) -> list[str]:
    return [place.session(f"crowd-{n}", "crowd") for n in range(SESSIONS)]


def test_twenty_sessions_converse_in_two_pods_and_none_hears_another(
    place: Place, agent: str, client: openai.OpenAI
) -> None:
    there = conversations(place)

    def introduce(conversation: str) -> None:
        name = conversation.rpartition("-")[2]
        client.responses.create(model=agent, conversation=conversation, input=f"My name is N{name}.")

    def recall(conversation: str) -> str:
        return client.responses.create(model=agent, conversation=conversation, input="What is my name?").output_text

    with ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(introduce, there))
        told = list(pool.map(recall, there))
    assert told == [f"Your name is N{conversation.rpartition('-')[2]}." for conversation in there]
    statuses = [place.kube.get("agentsession", f"crowd-{n}")["status"] for n in range(SESSIONS)]
    sets = [status["setName"] for status in statuses]
    assert {sets.count(name) for name in set(sets)} == {SESSIONS // REPLICAS}
    assert len({status["podName"] for status in statuses}) == REPLICAS
    assert place.kube.find("pod", names.session_pod("crowd-0")) is None

    pod = statuses[0]["podName"]
    place.kube.run("delete", "pod", pod, "--grace-period=0", "--force")
    assert recall(there[0]) == told[0]
    assert place.kube.get("agentsession", "crowd-0")["status"]["podName"] == pod


def test_what_a_shared_session_cannot_be_is_refused_by_the_api_server(place: Place, agent: str) -> None:
    change = '{"spec": {"session": {"isolation": "Session", "replicas": 1}}}'
    with pytest.raises(KubectlError, match=r"isolation cannot be changed"):
        place.kube.run("patch", "agent", "crowd", "--type", "merge", "-p", change)


def test_a_shared_session_that_is_deleted_is_gone_from_its_pod(place: Place, agent: str) -> None:
    place.session("leaver", "crowd")
    found = place.kube.get("agentsession", "leaver")
    uid, pod = found["metadata"]["uid"], found["status"]["podName"]
    assert condition(found, "Ready")["status"] == "True"
    look = ("python3", "-c", "import os; print(os.listdir('/data/state/sessions'), os.listdir('/data/workspace'))")
    assert uid in place.kube.execute(pod, "sidecar", *look)
    place.kube.delete("agentsession", "leaver")
    eventually(lambda: uid not in place.kube.execute(pod, "sidecar", *look), 60)
