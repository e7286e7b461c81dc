"""What is missing or broken outside becomes a condition with a sentence, never a crash loop, and mends by itself."""

import openai
import pytest

from harness.kube import condition, eventually, is_ready
from harness.manifests import MODEL_URL, agent, policy, session
from harness.tenure import Place
from harness.turns import waited_out


def restarts(place: Place, pod: str) -> int:
    status = place.kube.get("pod", pod)["status"]
    every = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
    return sum(container["restartCount"] for container in every)


def test_a_missing_secret_is_named_and_the_agent_goes_on_when_it_is_there(place: Place) -> None:
    model = {"name": "scripted", "baseURL": MODEL_URL, "credentialsSecretRef": {"name": "later"}}
    place.kube.apply(agent("credulous", model=model), session("credulous", "credulous"))
    ready = eventually(
        lambda: (c := condition(place.kube.get("agent", "credulous"), "Ready"))["status"] == "False" and c, 20
    )
    assert ready["reason"] == "SecretNotFound"
    assert "later" in ready["message"]
    assert "credentialsSecretRef" in ready["message"]
    assert condition(place.kube.get("agentsession", "credulous"), "Ready")["reason"] == "AgentNotReady"
    assert place.kube.find("pod", "credulous-session") is None
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"api-key": "k"}}
    place.kube.apply(secret)
    eventually(lambda: is_ready(place.kube.get("agent", "credulous")), 30)
    eventually(lambda: is_ready(place.kube.get("agentsession", "credulous")), 60)


def test_a_missing_policy_fails_closed_and_the_agent_goes_on_when_it_is_there(place: Place) -> None:
    place.kube.apply(agent("lawful", memoryPolicyRef={"name": "absent"}), session("lawful", "lawful"))
    ready = eventually(
        lambda: (c := condition(place.kube.get("agent", "lawful"), "Ready"))["status"] == "False" and c, 20
    )
    assert ready["reason"] == "PolicyNotFound"
    assert "absent" in ready["message"]
    assert place.kube.find("pod", "lawful-session") is None
    place.kube.apply(policy("absent", maxCount=10))
    eventually(lambda: is_ready(place.kube.get("agent", "lawful")), 20)
    eventually(lambda: is_ready(place.kube.get("agentsession", "lawful")), 60)


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("unreachable", {"name": "scripted", "baseURL": "http://127.0.0.1:9/v1"}, "Unreachable"),
        ("unresolved", {"name": "scripted", "baseURL": "http://nowhere.invalid/v1"}, "Unreachable"),
        ("unauthorized", {"name": "unauthorized", "baseURL": MODEL_URL}, "Unauthorized"),
        ("broken", {"name": "down-503", "baseURL": MODEL_URL}, "ModelError"),
    ],
)
def test_a_model_that_fails_is_a_condition_and_mends_by_itself(
    place: Place, name: str, model: dict[str, str], reason: str
) -> None:
    full = f"{place.name}/{name}"
    place.agent(name, model=model)
    conversation = place.session(name, name)
    client = place.client()
    with pytest.raises(openai.APIError):
        client.responses.create(model=full, conversation=conversation, input="say: hello")
    found = eventually(
        lambda: (c := condition(place.kube.get("agentsession", name), "ModelReachable"))["status"] == "False" and c, 30
    )
    assert found["reason"] == reason
    assert found["message"]
    assert is_ready(place.kube.get("agentsession", name))
    place.kube.apply(agent(name))

    def ask() -> str:
        return client.responses.create(model=full, conversation=conversation, input="say: hello").output_text

    eventually(lambda: waited_out(ask) == "hello", 60)  # until the agent's change has arrived, the old model fails
    eventually(lambda: condition(place.kube.get("agentsession", name), "ModelReachable")["status"] == "True", 60)
    assert restarts(place, f"{name}-session") == 0


@pytest.mark.parametrize("lie", ["garbage", "wrong-type", "endless-line", "cut: 2: a b c d e"])
def test_a_lying_model_fails_the_turn_and_not_the_session(place: Place, lie: str) -> None:
    name = place.agent("deceived")
    conversation = place.session("deceived", "deceived")
    client = place.client()
    with pytest.raises(openai.APIError):
        client.responses.create(model=name, conversation=conversation, input=lie)
    answer = client.responses.create(model=name, conversation=conversation, input="say: still here")
    assert answer.output_text == "still here"
    assert restarts(place, "deceived-session") == 0


def test_fallbacks_are_tried_in_order(place: Place) -> None:
    name = place.agent(
        "fallback",
        model={
            "name": "down-503",
            "baseURL": MODEL_URL,
            "firstTokenTimeoutSeconds": 2,
            "fallbacks": [
                {"name": "scripted", "baseURL": "http://127.0.0.1:9/v1"},
                {"name": "slow-first"},
                {"name": "scripted"},
            ],
        },
    )
    conversation = place.session("fallback", "fallback")
    answer = place.client().responses.create(model=name, conversation=conversation, input="say: the last one answers")
    assert answer.output_text == "the last one answers"


def test_what_outgrows_the_window_is_cut_from_the_oldest_turns(place: Place) -> None:
    name = place.agent("narrow", model={"name": "small-window-60", "baseURL": MODEL_URL})
    conversation = place.session("narrow", "narrow")
    client = place.client()
    for n in range(8):
        answer = client.responses.create(model=name, conversation=conversation, input=f"say: turn {n} " + "word " * 8)
        assert answer.status == "completed"
    counted = client.responses.create(model=name, conversation=conversation, input="count-user")
    assert 1 <= int(counted.output_text) < 9
    assert len(list(client.conversations.items.list(conversation, limit=100))) == 18


def test_a_bad_image_is_said_and_mended(place: Place) -> None:
    place.agent("bad-image", runtime={"image": "example.invalid/none:1"})
    place.kube.apply(session("bad-image", "bad-image"))
    ready = eventually(
        lambda: (c := condition(place.kube.get("agentsession", "bad-image"), "Ready"))["reason"] == "PodFailing" and c,
        60,
    )
    assert "example.invalid/none:1" in ready["message"]
    place.kube.apply(agent("bad-image"))
    eventually(lambda: is_ready(place.kube.get("agentsession", "bad-image")), 90)
