"""What is deleted comes back, what must not come back does not, and what is gone is gone whole."""

import time

import pytest

from harness.kube import KubectlError, condition, eventually, is_ready
from harness.manifests import agent as agent_manifest
from harness.tenure import RELEASE, SYSTEM, Place


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("networkpolicy", "kept-session"),
        ("pod", "kept-session"),
        ("serviceaccount", "helper-agent"),
        ("configmap", "helper-agent"),
    ],
)
def test_what_is_deleted_is_back_within_five_seconds(place: Place, agent: str, kind: str, name: str) -> None:
    place.session("kept")
    uid = place.kube.get(kind, name)["metadata"]["uid"]
    place.kube.delete(kind, name, "--grace-period=0", "--force", "--wait=false")
    eventually(lambda: (found := place.kube.find(kind, name)) and found["metadata"]["uid"] != uid, 5)
    eventually(lambda: is_ready(place.kube.get("agentsession", "kept")), 60)


def test_a_changed_child_is_set_right(place: Place, agent: str) -> None:
    place.session("changed")
    place.kube.patch("networkpolicy", "changed-session", {"spec": {"ingress": [{}]}})
    eventually(lambda: place.kube.get("networkpolicy", "changed-session")["spec"]["ingress"] != [{}], 5)
    place.kube.patch("configmap", "helper-agent", {"data": {"config.json": "{}"}})
    eventually(lambda: place.kube.get("configmap", "helper-agent")["data"]["config.json"] != "{}", 5)


def test_nobody_deletes_a_data_key_by_accident(place: Place, agent: str) -> None:
    place.session("guarded")
    with pytest.raises(KubectlError, match="AgentSession"):
        place.kube.delete("secret", place.key("guarded"))


def test_a_lost_key_is_never_made_anew_and_the_session_goes_on_when_it_is_restored(place: Place, agent: str) -> None:
    client = place.client()
    conversation = place.session("keyless")
    client.responses.create(model=agent, conversation=conversation, input="My name is Ada.")
    key = place.key("keyless")
    secret = place.kube.get("secret", key)
    operator = place.kube.acting_as(f"system:serviceaccount:{SYSTEM}:{RELEASE}-operator")
    with pytest.raises(KubectlError):
        operator.get("secret", key)  # the operator may not read it
    collector = place.kube.acting_as("system:serviceaccount:kube-system:generic-garbage-collector")
    collector.delete("secret", key)
    place.kube.delete("pod", "keyless-session", "--grace-period=0", "--force")

    def lost() -> bool:
        found = place.kube.get("agentsession", "keyless")
        return {condition(found, type_)["reason"] for type_ in ("Stalled", "Ready")} == {"KeyLost"}

    eventually(lost, 30)
    time.sleep(3)
    assert place.kube.find("secret", key) is None
    keep = ("name", "namespace", "labels", "ownerReferences")
    place.kube.apply({**secret, "metadata": {k: v for k, v in secret["metadata"].items() if k in keep}})
    eventually(lambda: is_ready(place.kube.get("agentsession", "keyless")), 60)
    answer = client.responses.create(model=agent, conversation=conversation, input="What is my name?")
    assert "Ada" in answer.output_text


def test_a_deleted_session_takes_pod_claim_secret_and_network_policy_with_it(place: Place, agent: str) -> None:
    place.session("leaving")
    children = [
        ("pod", "leaving-session"),
        ("persistentvolumeclaim", "leaving-state"),
        ("secret", place.key("leaving")),
        ("networkpolicy", "leaving-session"),
    ]
    assert all(place.kube.find(*child) for child in children)
    place.kube.delete("agentsession", "leaving")
    eventually(lambda: not any(place.kube.find(*child) for child in children), 60)


def test_a_session_is_deleted_when_it_expires(place: Place, agent: str) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 12))
    place.session("mayfly", expiresAt=soon)
    eventually(lambda: place.kube.find("agentsession", "mayfly") is None, 40)


def test_sessions_outlive_their_agent_and_a_new_one_adopts_them(place: Place) -> None:
    name = place.agent("mortal")
    client = place.client()
    conversation = place.session("orphan", "mortal")
    client.responses.create(model=name, conversation=conversation, input="My name is Ada.")
    pod = place.kube.get("pod", "orphan-session")["metadata"]["uid"]
    place.kube.delete("agent", "mortal")
    eventually(lambda: condition(place.kube.get("agentsession", "orphan"), "Ready")["reason"] == "AgentNotFound", 30)
    assert place.kube.get("pod", "orphan-session")["metadata"]["uid"] == pod
    assert place.kube.get("persistentvolumeclaim", "orphan-state")
    place.kube.apply(agent_manifest("mortal"))
    eventually(lambda: is_ready(place.kube.get("agentsession", "orphan")), 60)
    answer = client.responses.create(model=name, conversation=conversation, input="What is my name?")
    assert "Ada" in answer.output_text


def test_an_object_that_is_not_ours_is_never_overwritten(place: Place) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "taken-agent"}, "data": {"mine": "yes"}}
    place.kube.apply(theirs)
    place.kube.apply(agent_manifest("taken"))
    eventually(lambda: condition(place.kube.get("agent", "taken"), "Stalled")["reason"] == "NameConflict", 20)
    assert place.kube.get("configmap", "taken-agent")["data"] == {"mine": "yes"}
    place.kube.delete("configmap", "taken-agent")
    eventually(lambda: is_ready(place.kube.get("agent", "taken")), 20)
