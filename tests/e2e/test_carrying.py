"""A session leaves as one file, is deleted, and goes on somewhere else from that file; no other file will do."""

import gzip
import random
from collections.abc import Iterator

import openai
import pytest

from harness import manifests
from harness.carrying import Carrier, may_carry
from harness.kube import eventually, is_ready
from harness.sleeping import asleep
from harness.tenure import Place, unique
from tenure_api.names import session_claim, session_pod

CORRUPTIONS = 12


@pytest.fixture(scope="module")
def elsewhere(place: Place) -> Iterator[Place]:
    """Another namespace with the same agent."""
    name = unique("carried")
    place.kube.apply(manifests.namespace(name))
    other = Place(place.tenure, place.kube.within(name), name)
    other.agent()
    yield other
    place.kube.delete("namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def carrier(place: Place, elsewhere: Place) -> Carrier:
    """One who may carry sessions from here to there, and who converses in both."""
    place.agent(session={"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 5})
    token = place.caller("carrier")
    place.kube.apply(*may_carry("carrier", place.name))
    elsewhere.kube.apply(
        *may_carry("carrier", place.name),
        {
            **manifests.bind("tenure-session-user", "carrier", place.name),
            "metadata": {"name": "tenure-session-user-carrier"},
        },
    )
    return Carrier(place, token)


@pytest.fixture(scope="module")
def client(place: Place, carrier: Carrier) -> openai.OpenAI:
    return place.client("carrier")


@pytest.fixture(scope="module")
def bundle(place: Place, carrier: Carrier, client: openai.OpenAI) -> bytes:
    """An export of a session that sleeps, with a history and a file."""
    conversation = place.session("traveller", account="carrier")
    client.responses.create(model=f"{place.name}/helper", conversation=conversation, input="My name is Ada.")
    place.kube.execute(session_pod("traveller"), "agent", "sh", "-c", "echo kept > /workspace/notes.txt")
    asleep(place, "traveller")
    answer = carrier.export(conversation)
    assert answer.status_code == 200, answer.text
    return answer.content


def texts(client: openai.OpenAI, conversation: str) -> list[str]:
    """All that was said, oldest first."""
    items = client.conversations.items.list(conversation, order="asc", limit=100)
    return [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]


def test_nobody_exports_who_may_not(place: Place, bundle: bytes) -> None:
    stranger = Carrier(place, place.caller("stranger"))
    assert stranger.export(f"{place.name}/traveller").status_code in (403, 404)


def test_a_bundle_that_was_changed_or_cut_is_refused_and_leaves_no_session_with_anything_of_it(
    place: Place, elsewhere: Place, carrier: Carrier, client: openai.OpenAI, bundle: bytes
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bad = [bundle[:-1], bundle[: len(bundle) // 2], bundle + b"\0", gzip.compress(gzip.decompress(bundle)), b""]
    for _ in range(CORRUPTIONS):
        flipped = bytearray(bundle)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        bad.append(bytes(flipped))
    for number, one in enumerate(bad):
        name = f"bad-{number}"
        answer = carrier.import_(f"{elsewhere.name}/{name}", "helper", one)
        assert 400 <= answer.status_code < 500, (number, answer.status_code, answer.text)
        made = elsewhere.kube.find("agentsession", name)
        assert made is None or not is_ready(made), number
    elsewhere.kube.run("delete", "agentsessions", "--all", "--wait=false")


def test_a_session_is_exported_and_deleted_and_goes_on_in_another_namespace(
    place: Place, elsewhere: Place, carrier: Carrier, client: openai.OpenAI, bundle: bytes
) -> None:
    said = texts(client, f"{place.name}/traveller")
    place.kube.delete("agentsession", "traveller")
    eventually(lambda: place.kube.find("persistentvolumeclaim", session_claim("traveller")) is None, 60)

    answer = carrier.import_(f"{elsewhere.name}/arrived", "helper", bundle)
    assert answer.status_code < 300, answer.text
    eventually(lambda: is_ready(elsewhere.kube.get("agentsession", "arrived")), 120)
    conversation = f"{elsewhere.name}/arrived"
    assert texts(client, conversation) == said
    question = "What is my name?"
    told = client.responses.create(model=f"{elsewhere.name}/helper", conversation=conversation, input=question)
    assert "Ada" in told.output_text
    notes = elsewhere.kube.execute(session_pod("arrived"), "agent", "cat", "/workspace/notes.txt")
    assert notes == "kept\n"
    origin = elsewhere.kube.get("agentsession", "arrived")["status"]["origin"]
    assert origin["session"] == f"{place.name}/traveller"
    assert origin["digest"].startswith("sha256:")
