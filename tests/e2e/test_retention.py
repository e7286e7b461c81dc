"""What a policy says must go is gone: from the API, from what the model is shown, and from the bytes of the volume."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest

from harness.kube import Kube, condition, eventually, is_ready
from harness.manifests import policy, session
from harness.tenure import RELEASE, SYSTEM, Place
from harness.volume import Volume, volume

DAY = 86_400
CANARY = "canary-7d1f"


@pytest.fixture(scope="module")
def agents(place: Place) -> Place:
    """Three agents with a policy each, and their sessions, started together."""
    place.kube.apply(
        policy("aged", interval=2, maxAgeSeconds=20),
        policy("changing", interval=2, maxAgeSeconds=DAY),
        policy("brief", interval=1, maxAgeSeconds=6),
    )
    for name in ("aged", "changing", "brief"):
        place.agent(name, memoryPolicyRef={"name": name})
    sessions = {"aged": "aged", "changing-1": "changing", "changing-2": "changing", "brief": "brief"}
    place.kube.apply(*(session(name, agent, place.subject()) for name, agent in sessions.items()))
    eventually(lambda: all(is_ready(place.kube.get("agentsession", name)) for name in sessions), 120, 1)
    return place


@pytest.fixture(scope="module")
def client(agents: Place) -> openai.OpenAI:
    return agents.client()


class Conversation:
    """One session, by the API."""

    def __init__(self, place: Place, client: openai.OpenAI, name: str, agent: str) -> None:
        self._client = client
        self._model, self._id = f"{place.name}/{agent}", f"{place.name}/{name}"

    def say(self, text: str) -> openai.types.responses.Response:
        return self._client.responses.create(model=self._model, conversation=self._id, input=text)

    def said(self) -> list[str]:
        """All texts, oldest first."""
        items = self._client.conversations.items.list(self._id, order="asc", limit=100)
        return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]

    def forgets(self, text: str, seconds: float) -> None:
        """Waits until no item says this any more."""
        eventually(lambda: not any(text in one for one in self.said()), seconds)


def is_clean(found: Volume, doomed: list[bytes]) -> bool:
    """Whether neither what was said nor the sealed form of it is anywhere on a volume."""
    in_the_clear = any(CANARY.encode() in content for content in found.files.values())
    return not found.turns_with(CANARY) and not in_the_clear and not found.traces(doomed)


def cleaned(place: Place, name: str, doomed: list[bytes]) -> Volume | None:
    """The volume of a session if it is clean."""
    found = volume(place, name)
    return found if is_clean(found, doomed) else None


def test_what_is_too_old_is_gone_from_the_api_and_from_the_bytes_of_the_volume(
    agents: Place, client: openai.OpenAI
) -> None:
    conversation = Conversation(agents, client, "aged", "aged")
    began = time.monotonic()
    told = conversation.say(f"say: {CANARY} " + "and so on " * 800)  # long enough for pages of its own
    assert CANARY in told.output_text

    # While it may be there, it is found by each search that must not find it later.
    assert any(CANARY in text for text in conversation.said())
    before = eventually(lambda: volume(agents, "aged"), 10)
    doomed = before.sealed_of(before.turns_with(CANARY))
    assert len(doomed) >= 4  # the turn's start and end, the model's call and its result
    assert before.traces(doomed) > 1000
    assert not is_clean(before, doomed)

    time.sleep(max(0.0, began + 16 - time.monotonic()))
    conversation.say("My name is Ada.")
    conversation.forgets(CANARY, began + 30 - time.monotonic())
    after = eventually(lambda: cleaned(agents, "aged", doomed), began + 30 - time.monotonic())
    assert after.turns_with("My name is Ada.")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(told.id)

    shown = json.loads(conversation.say("history").output_text)
    assert [message["text"] for message in shown if message["role"] == "user"] == ["My name is Ada.", "history"]
    assert "Ada" in conversation.say("What is my name?").output_text


CONTAINERS = ("initContainerStatuses", "containerStatuses")


def pods(place: Place, *names: str) -> list[object]:
    """What is another after any restart of the sessions' pods."""
    found = [place.kube.get("pod", f"{name}-session") for name in names]
    return [
        (pod["metadata"]["uid"], [c["containerID"] for key in CONTAINERS for c in pod["status"][key]]) for pod in found
    ]


def acknowledged(place: Place, name: str, *sessions: str) -> bool:
    """Whether all sessions of a policy enforce its current generation, as the status of all of them says."""
    found = place.kube.get("memorypolicy", name)
    generation, count = found["metadata"]["generation"], len(sessions)
    seen = [place.kube.get("agentsession", session)["status"]["policy"] for session in sessions]
    return (
        is_ready(found)
        and found["status"]["sessions"] == {"total": count, "current": count}
        and seen == [{"name": name, "generation": generation}] * count
    )


def test_a_shorter_policy_reaches_running_sessions_and_acts_on_old_data(agents: Place, client: openai.OpenAI) -> None:
    sessions = ("changing-1", "changing-2")
    agents.kube.apply(policy("changing", interval=2, maxAgeSeconds=DAY))
    eventually(lambda: acknowledged(agents, "changing", *sessions), 30)
    conversations = [Conversation(agents, client, name, "changing") for name in sessions]
    for conversation in conversations:
        conversation.say(f"say: {CANARY}")
    before = pods(agents, *sessions)
    found = eventually(lambda: volume(agents, "changing-1"), 10)
    doomed = found.sealed_of(found.turns_with(CANARY))
    assert doomed

    agents.kube.apply(policy("changing", interval=2, maxAgeSeconds=1))
    for conversation in conversations:
        conversation.forgets(CANARY, 10)
    eventually(lambda: cleaned(agents, "changing-1", doomed), 10)
    eventually(lambda: acknowledged(agents, "changing", *sessions), 10)
    for name in sessions:
        assert condition(agents.kube.get("agentsession", name), "PolicyApplied")["status"] == "True"
    assert pods(agents, *sessions) == before


def test_only_the_newest_turns_are_kept_if_a_policy_counts_them(agents: Place, client: openai.OpenAI) -> None:
    agents.kube.apply(policy("changing", interval=2, maxAgeSeconds=DAY))
    eventually(lambda: acknowledged(agents, "changing", "changing-1", "changing-2"), 30)
    conversation = Conversation(agents, client, "changing-1", "changing")
    for word in ("one", "two", "three", "four"):
        conversation.say(f"say: {word}")
    assert conversation.said()[-8:] == [
        text for word in ("one", "two", "three", "four") for text in (f"say: {word}", word)
    ]
    agents.kube.apply(policy("changing", interval=2, maxCount=2))
    eventually(lambda: conversation.said() == ["say: three", "three", "say: four", "four"], 15)
    conversation.say("say: five")
    eventually(lambda: conversation.said() == ["say: four", "four", "say: five", "five"], 15)


@contextmanager
def no_operator(kube: Kube) -> Iterator[None]:
    """While no operator runs."""
    system, deployment = kube.within(SYSTEM), f"deployment/{RELEASE}-operator"
    replicas = system.get("deployment", f"{RELEASE}-operator")["spec"]["replicas"]
    try:
        system.run("scale", deployment, "--replicas=0")
        eventually(lambda: not system.items("pods", "app.kubernetes.io/component=operator"), 60)
        yield
    finally:
        system.run("scale", deployment, f"--replicas={replicas}")
        system.run("rollout", "status", deployment, "--timeout=60s")


def test_retention_needs_no_operator(agents: Place, client: openai.OpenAI) -> None:
    conversation = Conversation(agents, client, "brief", "brief")
    with no_operator(agents.kube):
        conversation.say(f"say: {CANARY}")
        found = eventually(lambda: volume(agents, "brief"), 10)
        doomed = found.sealed_of(found.turns_with(CANARY))
        assert doomed
        conversation.forgets(CANARY, 15)
        eventually(lambda: cleaned(agents, "brief", doomed), 10)


def test_a_deleted_policy_stays_in_force_where_it_is_and_no_session_starts_without_it(
    agents: Place, client: openai.OpenAI
) -> None:
    conversation = Conversation(agents, client, "brief", "brief")
    seen = agents.kube.get("agentsession", "brief")["status"]["policy"]
    agents.kube.delete("memorypolicy", "brief")
    eventually(lambda: condition(agents.kube.get("agent", "brief"), "Ready")["reason"] == "PolicyNotFound", 20)
    agents.kube.apply(session("late", "brief", agents.subject()))

    conversation.say(f"say: {CANARY}")
    assert any(CANARY in text for text in conversation.said())
    conversation.forgets(CANARY, 15)
    running = agents.kube.get("agentsession", "brief")
    assert running["status"]["policy"] == seen
    assert condition(running, "PolicyApplied")["reason"] == "PolicyNotFound"

    assert condition(agents.kube.get("agentsession", "late"), "Ready")["reason"] == "AgentNotReady"
    assert not agents.kube.find("pod", "late-session")
    assert not agents.kube.find("persistentvolumeclaim", "late-state")
    agents.kube.apply(policy("brief", interval=1, maxAgeSeconds=6))
    eventually(lambda: is_ready(agents.kube.get("agentsession", "late")), 60)
