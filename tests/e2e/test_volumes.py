"""What becomes of a session's volume: it is kept or goes, grows, and is told to be full before anything fails."""

from collections.abc import Iterator

import openai
import pytest

from harness.killing import Killer
from harness.kube import Manifest, NotYetError, condition, eventually, is_ready
from harness.manifests import agent as agent_manifest
from harness.manifests import session as session_manifest
from harness.small_volume import small_volume
from harness.tenure import Place
from tenure_api.names import KEY_LABEL, session_claim, session_network, session_pod

FILL = """
import os
found = os.statvfs("/workspace")
missing = int({share} * found.f_blocks) - (found.f_blocks - found.f_bfree)
try:
    with open("/workspace/{name}", "wb") as file:
        file.write(bytes(missing * found.f_frsize))
except OSError:
    pass
"""
"""Fills the volume up to a share of it, or as far as it goes."""


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def volume_condition(place: Place, session: str, reason: str) -> Manifest:
    """The condition about a session's volume, once it has this reason."""

    def look() -> Manifest:
        found = condition(place.kube.get("agentsession", session), "VolumeHealthy")
        if found["reason"] != reason:
            raise NotYetError(f"VolumeHealthy of {session}: {found['reason']}: {found['message']}")
        return found

    return eventually(look, 60)


def fill(place: Place, session: str, name: str, share: float) -> None:
    """Writes a file into the workspace of a session, so that its volume is as full as this."""
    script = FILL.format(share=share, name=name)
    place.kube.execute(session_pod(session), "agent", "python3", "-c", script)


def keys(place: Place) -> set[str]:
    """Names of all data keys."""
    return {secret["metadata"]["name"] for secret in place.kube.items("secrets", f"{KEY_LABEL}=true")}


def test_a_retained_volume_goes_on_in_a_session_made_again_and_belongs_to_nobody_else(
    place: Place, client: openai.OpenAI
) -> None:
    name = place.agent("keeper", session={"storage": {"size": "64Mi", "whenDeleted": "Retain"}})
    conversation = place.session("kept", "keeper")
    client.responses.create(model=name, conversation=conversation, input="My name is Ada.")
    identity = place.kube.get("agentsession", "kept")["status"]["identity"]
    key = place.key("kept")
    place.kube.delete("agentsession", "kept")
    gone = ("pod", session_pod("kept")), ("networkpolicy", session_network("kept"))
    eventually(lambda: not any(place.kube.find(*one) for one in gone), 60)
    claim = place.kube.get("persistentvolumeclaim", session_claim("kept"))
    assert (claim["metadata"]["uid"], "deletionTimestamp" in claim["metadata"]) == (identity, False)
    assert key in keys(place)

    place.kube.apply(session_manifest("kept", "keeper", place.subject("mallory")))
    ready = eventually(
        lambda: (c := condition(place.kube.get("agentsession", "kept"), "Ready"))["status"] == "False" and c, 30
    )
    assert session_claim("kept") in ready["message"]
    assert place.kube.find("pod", session_pod("kept")) is None
    place.kube.delete("agentsession", "kept")
    assert place.kube.get("persistentvolumeclaim", session_claim("kept"))["metadata"]["uid"] == identity

    place.session("kept", "keeper")
    assert place.kube.get("agentsession", "kept")["status"]["identity"] == identity
    answer = client.responses.create(model=name, conversation=conversation, input="What is my name?")
    assert "Ada" in answer.output_text


def test_a_volume_that_is_not_retained_leaves_nothing_and_a_session_made_again_begins_anew(
    place: Place, client: openai.OpenAI
) -> None:
    name = place.agent("forgetter")
    conversation = place.session("gone", "forgetter")
    client.responses.create(model=name, conversation=conversation, input="My name is Ada.")
    key = place.key("gone")
    volume = place.kube.get("persistentvolumeclaim", session_claim("gone"))["spec"]["volumeName"]
    place.kube.delete("agentsession", "gone")
    left = [
        ("pod", session_pod("gone")),
        ("networkpolicy", session_network("gone")),
        ("persistentvolumeclaim", session_claim("gone")),
        ("persistentvolume", volume),
    ]
    eventually(lambda: not any(place.kube.find(*one) for one in left) and key not in keys(place), 90)
    place.session("gone", "forgetter")
    answer = client.responses.create(model=name, conversation=conversation, input="What is my name?")
    assert "Ada" not in answer.output_text


@pytest.fixture(params=[False, True], ids=["a class that lets none grow", "a class that lets volumes grow"])
def storage_class(place: Place, request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """The cluster's default class under another name, with or without growth."""
    default = next(
        found
        for found in place.kube.items("storageclasses")
        if found["metadata"].get("annotations", {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    )
    keep = ("apiVersion", "kind", "provisioner", "parameters", "reclaimPolicy", "volumeBindingMode", "mountOptions")
    name = f"{place.name}-{'grows' if request.param else 'fixed'}"
    made = {key: default[key] for key in keep if key in default}
    place.kube.apply({**made, "metadata": {"name": name}, "allowVolumeExpansion": request.param})
    yield name, request.param
    place.kube.delete("storageclass", name)


def test_a_volume_grows_where_its_class_allows_it_and_says_so_where_not(
    place: Place, client: openai.OpenAI, storage_class: tuple[str, bool]
) -> None:
    class_name, grows = storage_class
    name = "growing" if grows else "fixed"
    storage = {"size": "16Mi", "storageClassName": class_name}
    model = place.agent(name, session={"storage": storage})
    conversation = place.session(name, name)
    place.kube.apply(agent_manifest(name, session={"storage": {**storage, "size": "32Mi"}}))

    def requested() -> str:
        claim = place.kube.get("persistentvolumeclaim", session_claim(name))
        size: str = claim["spec"]["resources"]["requests"]["storage"]
        return size

    if grows:
        eventually(lambda: requested() == "32Mi", 30)
    else:
        refused = volume_condition(place, name, "ExpansionRefused")
        assert refused["status"] == "False"
        assert "allowVolumeExpansion" in refused["message"]
        assert requested() == "16Mi"
    assert is_ready(place.kube.get("agentsession", name))
    answer = client.responses.create(model=model, conversation=conversation, input="say: still here")
    assert answer.output_text == "still here"


def test_a_volume_that_fills_is_a_condition_and_the_session_answers_reads_and_has_data_deleted(
    place: Place, client: openai.OpenAI, killer: Killer
) -> None:
    with small_volume(place, "small", "32Mi") as storage_class:
        model = place.agent("small", session={"storage": {"size": "32Mi", "storageClassName": storage_class}})
        conversation = place.session("small", "small")
        client.responses.create(model=model, conversation=conversation, input="My name is Ada.")
        assert volume_condition(place, "small", "Healthy")["status"] == "True"
        fill(place, "small", "big", 0.9)
        full = volume_condition(place, "small", "NearlyFull")
        assert full["status"] == "False"
        assert "storage.size" in full["message"]
        assert is_ready(place.kube.get("agentsession", "small"))
        answer = client.responses.create(model=model, conversation=conversation, input="What is my name?")
        assert "Ada" in answer.output_text

        # Now to the last byte: what can be done without room is done, and what cannot says what to do.
        fill(place, "small", "more", 1.0)
        items = client.conversations.items.list(conversation, order="asc", limit=100)
        assert len(list(items)) == 4
        with pytest.raises(openai.InternalServerError) as refusal:
            client.responses.create(model=model, conversation=conversation, input="What is my name?")
        assert refusal.value.status_code == 507
        assert "delete files" in refusal.value.message
        container = f"cntr_{conversation.encode().hex()}"
        for file in list(client.containers.files.list(container)):
            client.containers.files.delete(file.id, container_id=container)
        assert volume_condition(place, "small", "Healthy")["status"] == "True"
        answer = client.responses.create(model=model, conversation=conversation, input="say: still here")
        assert answer.output_text == "still here"
