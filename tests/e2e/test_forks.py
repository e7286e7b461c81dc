"""A session that begins with the history and the files of another one, up to any of its records."""

import openai
import pytest

from harness.kube import Kube, KubectlError, condition, eventually, is_ready
from harness.manifests import session as session_manifest
from harness.sleeping import asleep
from harness.tenure import Place
from harness.volume import Volume, volume
from tenure_api.names import session_pod

TURNS = 12
EVERY = 10


@pytest.fixture(scope="module")
def agent(place: Place) -> str:
    return place.agent("forked", session={"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 20})


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


@pytest.fixture(scope="module")
def source(place: Place, agent: str, client: openai.OpenAI) -> Volume:
    """A session with a history and a file; its journal as it is on its volume."""
    conversation = place.session("source", "forked")
    for n in range(TURNS):
        client.responses.create(model=agent, conversation=conversation, input=f"My number is {n}.")
    place.kube.execute(session_pod("source"), "agent", "sh", "-c", "echo kept > /workspace/notes.txt")
    return eventually(lambda: volume(place, "source"), 20)


def texts(client: openai.OpenAI, conversation: str) -> list[str]:
    """All that was said, oldest first."""
    items = client.conversations.items.list(conversation, order="asc", limit=100)
    return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]


def fork(place: Place, name: str, at: int | None = None, subject: str | None = None) -> None:
    """Applies a fork of the source."""
    source = {"session": "source", **({} if at is None else {"atSequence": at})}
    manifest = session_manifest(name, "forked", subject or place.subject(), source={"forkFrom": source})
    place.kube.apply(manifest)


def ended_by(found: Volume, at: int) -> int:
    """How many turns had ended by a record."""
    return len({record.turn for record in found.records if record.kind == "turn.end" and record.sequence <= at})


def test_a_fork_at_every_tenth_record_has_the_turns_that_had_ended_by_then(
    place: Place, agent: str, client: openai.OpenAI, source: Volume
) -> None:
    last = source.records[-1].sequence
    points = range(EVERY, last + 1, EVERY)
    assert len(points) >= 3
    said = texts(client, f"{place.name}/source")
    for at in points:
        fork(place, f"fork-{at}", at)
    for at in points:
        name = f"fork-{at}"
        eventually(lambda name=name: is_ready(place.kube.get("agentsession", name)), 120)  # type: ignore[misc]
        expected = said[: 2 * ended_by(source, at)]
        assert texts(client, f"{place.name}/{name}") == expected, f"the fork at record {at}"
        origin = place.kube.get("agentsession", name)["status"]["origin"]
        assert origin["session"] == f"{place.name}/source"
        assert origin["sequence"] <= at
    assert texts(client, f"{place.name}/source") == said


def test_a_fork_goes_its_own_way_with_the_files_of_its_source(
    place: Place, agent: str, client: openai.OpenAI, source: Volume
) -> None:
    said = texts(client, f"{place.name}/source")
    asleep(place, "source")  # the fork wakes it
    fork(place, "branch")
    eventually(lambda: is_ready(place.kube.get("agentsession", "branch")), 120)
    branch = f"{place.name}/branch"
    answer = client.responses.create(model=agent, conversation=branch, input="What is my number?")
    assert str(TURNS - 1) in answer.output_text
    assert place.kube.execute(session_pod("branch"), "agent", "cat", "/workspace/notes.txt") == "kept\n"
    assert texts(client, branch)[: len(said)] == said
    assert texts(client, f"{place.name}/source") == said
    identities = {place.kube.get("agentsession", name)["status"]["identity"] for name in ("source", "branch")}
    assert len(identities) == 2


def refused(kube: Kube, name: str) -> str:
    """The message of a session that does not become ready because of its source."""
    ready = condition(kube.get("agentsession", name), "Ready")
    assert ready["status"] == "False"
    assert ready["reason"].startswith("Source"), ready
    message: str = ready["message"]
    return message


def test_nobody_forks_the_session_of_another_subject(place: Place, agent: str, source: Volume) -> None:
    fork(place, "stolen", subject=place.subject("mallory"))
    assert "subject" in eventually(lambda: refused(place.kube, "stolen"), 30)
    assert place.kube.find("pod", session_pod("stolen")) is None


def test_a_fork_of_nothing_says_so_and_what_a_session_came_from_cannot_be_changed(
    place: Place, agent: str, source: Volume
) -> None:
    manifest = session_manifest("orphan", "forked", place.subject(), source={"forkFrom": {"session": "nowhere"}})
    place.kube.apply(manifest)
    assert "nowhere" in eventually(lambda: refused(place.kube, "orphan"), 30)
    with pytest.raises(KubectlError, match="source cannot be changed"):
        place.kube.patch("agentsession", "orphan", {"spec": {"source": {"forkFrom": {"session": "source"}}}})
