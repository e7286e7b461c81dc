"""Turns and sessions survive the death of what runs them."""

import os
import random
import threading
import time

import openai
import pytest

from harness.kube import Kube, eventually, is_ready
from harness.manifests import session
from harness.model import ScriptedModel
from harness.tenure import RELEASE, SYSTEM, Place
from harness.turns import waited_out
from tenure_api.names import session_claim, session_key, session_pod

FULL = os.environ.get("TENURE_SOAK") == "1"
KILLS = 20
SESSIONS = 50 if FULL else 20


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent()


def texts(client: openai.OpenAI, conversation: str) -> list[tuple[str, str]]:
    """The transcript as (role, text), oldest first."""
    return [
        (item.role, item.content[0].text)  # type: ignore[union-attr]
        for item in client.conversations.items.list(conversation, order="asc", limit=100)
        if item.type == "message"
    ]


@pytest.mark.soak
def test_no_answer_that_a_client_saw_is_lost_or_doubled_when_the_pod_is_killed_mid_stream(
    place: Place, agent: str, model: ScriptedModel
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    client = place.client()
    conversation = place.session("victim")
    pod = "victim-session"
    seen: dict[str, str] = {}
    for n in range(KILLS):
        question = f"slow: 40: answer {n} tag:kill-{seed}-{n} " + "word " * 20
        timer = threading.Timer(
            chance.uniform(0, 1.3), lambda: place.kube.delete("pod", pod, "--grace-period=0", "--force")
        )
        timer.start()
        try:
            with client.responses.stream(model=agent, conversation=conversation, input=question) as stream:
                for event in stream:
                    if event.type == "response.completed":
                        seen[question] = event.response.output_text
        except (openai.APIError, openai.APIConnectionError, RuntimeError):
            pass  # the stream broke; the turn must complete by itself
        timer.join()
        eventually(lambda: is_ready(place.kube.get("agentsession", "victim")), 60)
    final = eventually(lambda: (t := waited_out(lambda: texts(client, conversation))) and len(t) == 2 * KILLS and t, 60)
    asked = [text for role, text in final if role == "user"]
    assert len(asked) == len(set(asked)) == KILLS
    for question, answer in seen.items():
        assert [final[i + 1][1] for i, (role, text) in enumerate(final) if (role, text) == ("user", question)] == [
            answer
        ]
    for n in range(KILLS):
        assert 1 <= model.calls(f"kill-{seed}-{n}") <= 3


def test_a_step_that_has_a_result_is_not_asked_again(place: Place, agent: str, model: ScriptedModel) -> None:
    client = place.client()
    conversation = place.session("settled")
    tag = f"{place.name}-settled"
    answer = client.responses.create(model=agent, conversation=conversation, input=f"say: settled tag:{tag}")
    place.kube.delete("pod", "settled-session", "--grace-period=0", "--force")
    again = eventually(lambda: waited_out(lambda: client.responses.retrieve(answer.id)), 60)
    assert again.output_text == answer.output_text
    assert model.calls(tag) == 1


def test_an_interrupted_turn_completes_by_itself(place: Place, agent: str) -> None:
    client = place.client()
    conversation = place.session("interrupted")
    stream = client.responses.create(
        model=agent, conversation=conversation, input="slow: 100: it ends well after all of this", stream=True
    )
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    place.kube.delete("pod", "interrupted-session", "--grace-period=0", "--force")
    said = ("assistant", "it ends well after all of this")
    eventually(lambda: said in waited_out(lambda: texts(client, conversation)), 60)


def operator_pods(kube: Kube) -> list[str]:
    return [p["metadata"]["name"] for p in kube.within(SYSTEM).items("pods", "app.kubernetes.io/component=operator")]


@pytest.mark.soak
def test_a_killed_operator_leaves_no_session_behind_and_no_orphan(place: Place, agent: str) -> None:
    names = [f"crowd-{n}" for n in range(SESSIONS)]
    place.kube.apply(*(session(name) for name in names))
    time.sleep(1)
    for pod in operator_pods(place.kube):
        place.kube.within(SYSTEM).delete("pod", pod, "--grace-period=0", "--force", "--wait=false")
    eventually(
        lambda: all(is_ready(s) for s in place.kube.items("agentsessions") if s["metadata"]["name"] in names), 300, 1
    )
    identities = {s["metadata"]["name"]: s["status"]["identity"] for s in place.kube.items("agentsessions")}
    for kind, expected in (
        ("pods", {session_pod(name) for name in names}),
        ("persistentvolumeclaims", {session_claim(name) for name in names}),
        ("secrets", {session_key(name, identities[name]) for name in names}),
    ):
        found = {o["metadata"]["name"] for o in place.kube.items(kind) if o["metadata"]["name"].startswith("crowd-")}
        assert found == expected
    place.kube.run("delete", "agentsessions", *names, "--wait=false")
    for kind in ("pods", "persistentvolumeclaims", "secrets", "networkpolicies"):
        eventually(
            lambda kind=kind: not [o for o in place.kube.items(kind) if o["metadata"]["name"].startswith("crowd-")],  # type: ignore[misc]
            120,
            1,
        )


def test_the_lease_moves_to_the_standby(place: Place, agent: str) -> None:
    system = place.kube.within(SYSTEM)
    lease = f"{RELEASE}-operator"
    holder = eventually(lambda: system.get("lease", lease)["spec"]["holderIdentity"])
    system.delete("pod", holder.split("_")[0], "--grace-period=0", "--force", "--wait=false")
    eventually(lambda: system.get("lease", lease)["spec"].get("holderIdentity") not in (None, "", holder), 60)
    place.session("after-takeover")
