"""Upgrades keep every session's state; an uninstall keeps definitions and data."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import cluster
from harness.kube import eventually, is_ready
from harness.manifests import namespace, session
from harness.model import ScriptedModel
from harness.tenure import RELEASE, SYSTEM, Installed, Place, helm, install, unique

IMAGES = ("tenure/control-plane", "tenure/runtime")


def reinstall(tenure: Installed, tag: str = "dev") -> None:
    """Installs or upgrades, and leads the way to the gateway that is there then."""
    install(tenure.kube, tag=tag)
    gateways = tenure.kube.within(SYSTEM)
    selector = "app.kubernetes.io/component=gateway"
    eventually(lambda: not any("deletionTimestamp" in p["metadata"] for p in gateways.items("pods", selector)), 90)
    tenure.gateway.renew()


@pytest.fixture
def place(tenure: Installed) -> Iterator[Place]:
    """A namespace for one test, since each test leaves Tenure as it found it."""
    name = unique("upgrade")
    tenure.kube.apply(namespace(name))
    yield Place(tenure, tenure.kube.within(name), name)
    reinstall(tenure)
    tenure.kube.delete("namespace", name, "--wait=false")


def test_an_upgrade_to_another_tag_keeps_every_sessions_state_and_interrupts_no_turn(
    place: Place, model: ScriptedModel
) -> None:
    agent = place.agent()
    client = place.client()
    names = [f"kept-{n}" for n in range(3)]
    place.kube.apply(*(session(name, subject=place.subject()) for name in names))
    conversations = [place.session(name) for name in names]
    for n, conversation in enumerate(conversations):
        client.responses.create(model=agent, conversation=conversation, input=f"My name is Name{n}.")
    cluster.build_images(IMAGES, "next")
    cluster.load(*(f"{image}:next" for image in IMAGES))

    tag, said = f"{place.name}-long", " ".join(f"w{n}" for n in range(50))
    with ThreadPoolExecutor() as pool:  # a turn of 25 s, longer than the new operator needs to come
        slow = f"slow: 500: {said} tag:{tag}"
        long_turn = pool.submit(client.responses.create, model=agent, conversation=conversations[0], input=slow)
        reinstall(place.tenure, tag="next")
    assert long_turn.result().output_text == said

    def moved() -> bool:
        pods = place.kube.items("pods", "app.kubernetes.io/component=session")
        images = {c["image"] for pod in pods for c in pod["spec"]["initContainers"] + pod["spec"]["containers"]}
        return len(pods) == 3 and all(image.endswith("tenure/runtime:next") for image in images)

    eventually(moved, 120, 1)
    eventually(lambda: all(is_ready(s) for s in place.kube.items("agentsessions")), 60)
    assert model.calls(tag) == 1
    for n, conversation in enumerate(conversations):
        answer = client.responses.create(model=agent, conversation=conversation, input="What is my name?")
        assert f"Name{n}" in answer.output_text


def test_an_uninstall_keeps_definitions_sessions_and_data(place: Place) -> None:
    agent = place.agent()
    client = place.client()
    conversation = place.session("survivor")
    client.responses.create(model=agent, conversation=conversation, input="My name is Ada.")
    helm(place.kube, "uninstall", RELEASE, "--wait")
    for kind in ("agents", "agentsessions", "memorypolicies"):
        assert place.kube.get("crd", f"{kind}.tenure.dev")
    assert place.kube.get("agentsession", "survivor")
    assert place.kube.get("persistentvolumeclaim", "survivor-state")
    assert place.kube.get("secret", place.key("survivor"))
    reinstall(place.tenure)
    eventually(lambda: is_ready(place.kube.get("agentsession", "survivor")), 90)
    client = place.client()
    answer = client.responses.create(model=agent, conversation=conversation, input="What is my name?")
    assert "Ada" in answer.output_text


def test_the_charts_own_test_passes(tenure: Installed) -> None:
    try:
        helm(tenure.kube, "test", RELEASE, "--timeout", "2m")
    except subprocess.TimeoutExpired:
        pytest.fail(tenure.kube.within(SYSTEM).run("get", "pods"))
