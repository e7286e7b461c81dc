"""Sessions and their nodes: a drain, a death, and a partition. What can be had elsewhere goes on elsewhere."""

import time
from collections.abc import Iterator

import openai
import pytest

from harness.effects import Effects
from harness.kube import Manifest, NotYetError, condition, eventually, is_ready
from harness.manifests import http_tool
from harness.model import ScriptedModel, call, program
from harness.second_node import SecondNode, on_second_node, processes, second_node
from harness.sleeping import generation, pod
from harness.tenure import Place
from harness.turns import ended, waited_out
from tenure_api.names import SESSION_LABEL, session_claim, session_pod

DEATH_SECONDS = 240
"""Longest time from a node's last sign until its sessions run elsewhere: 25 s until it is noticed, 30 s that a pod
stays bound to such a node, and the rest of the 60 s that a node gets to come back. The rest is for a busy machine."""


ROUNDS = 12
ROUND_SECONDS = 20
"""How long a model call waits: well below the minute after which a model is said not to answer."""


class Course:
    """A turn of many rounds that goes on slowly for as long as it takes, and ends soon when it may."""

    def __init__(self, model: ScriptedModel, tag: str) -> None:
        self._model = model
        self._holds = [f"{tag}/{n}/before" for n in range(ROUNDS)]
        self._since = time.monotonic()
        for hold in self._holds:
            model.hold(hold)

    def goes_on(self) -> bool:
        """Lets a round pass if it is time; true, so that a wait can begin with it."""
        if time.monotonic() - self._since > ROUND_SECONDS:
            assert len(self._holds) > 1, "the turn is at its end"
            self._model.release(self._holds.pop(0))
            self._since = time.monotonic()
        return True

    def ends(self) -> None:
        """Lets all rounds pass."""
        while self._holds:
            self._model.release(self._holds.pop(0))


@pytest.fixture(scope="module")
def node(place: Place) -> Iterator[SecondNode]:
    with second_node(place.kube) as node:
        yield node


@pytest.fixture(autouse=True)
def whole(node: SecondNode) -> Iterator[None]:
    """Each test begins with a node that is up and takes pods."""
    yield
    node.restore()


@pytest.fixture(scope="module")
def moving(place: Place) -> str:
    """An agent whose volumes every node can mount."""
    order = http_tool("order", "/orders", "POST", replay="IdempotencyKey")
    return place.agent("moving", tools=[order], session={"storage": {"size": "64Mi", "storageClassName": "shared"}})


@pytest.fixture(scope="module")
def staying(place: Place) -> str:
    """An agent whose volumes are on the disk of one node."""
    return place.agent("staying", session={"storage": {"size": "64Mi", "storageClassName": "standard"}})


@pytest.fixture(scope="module")
def client(place: Place) -> openai.OpenAI:
    return place.client()


def start(place: Place, session: str, agent: str) -> str:
    """A session on the second node."""
    conversation = place.session(session, agent)
    on_second_node(place.kube, session_pod(session))
    return conversation


def texts(client: openai.OpenAI, conversation: str) -> list[tuple[str, str]]:
    """The transcript as (role, text), oldest first."""
    items = waited_out(lambda: list(client.conversations.items.list(conversation, order="asc", limit=100)))
    return [(item.role, item.content[0].text) for item in items if item.type == "message"]  # type: ignore[union-attr]


def moved(place: Place, session: str, generation_: int = 2) -> Manifest:
    """The session's pod, once it is ready on another node."""
    found = place.kube.get("agentsession", session)
    if not is_ready(found) or generation(place, session) < generation_:
        ready = condition(found, "Ready")
        raise NotYetError(f"{session}: run {generation(place, session)}: {ready['reason']}: {ready['message']}")
    live = pod(place, session)
    assert live is not None
    assert live["spec"]["nodeName"] != SecondNode.name
    assert generation(place, session) == generation_
    return live


def reason(place: Place, session: str) -> str:
    """The reason of a session's condition Ready."""
    found: str = condition(place.kube.get("agentsession", session), "Ready")["reason"]
    return found


def message(place: Place, session: str) -> str:
    """The sentence of a session's condition Ready."""
    found: str = condition(place.kube.get("agentsession", session), "Ready")["message"]
    return found


def volume_of(place: Place, session: str) -> str:
    """Name of a session's PersistentVolume."""
    found: str = place.kube.get("persistentvolumeclaim", session_claim(session))["spec"]["volumeName"]
    return found


def test_a_drain_moves_a_session_when_its_turn_has_ended(
    place: Place, node: SecondNode, moving: str, client: openai.OpenAI, model: ScriptedModel
) -> None:
    conversation = start(place, "drained", "moving")
    tag = f"{place.name}-drained"
    hold = f"{tag}/0/before"
    model.hold(hold)
    turn = client.responses.create(
        model=moving, conversation=conversation, input=f"say: whole tag:{tag}", background=True
    )
    model.await_hold(hold)
    with node.drained(f"{SESSION_LABEL}=drained") as drain:
        eventually(lambda: "deletionTimestamp" in place.kube.get("pod", session_pod("drained"))["metadata"], 30)
        time.sleep(5)  # longer than an idle pod takes to end
        assert drain.poll() is None, "the turn runs still"
        assert on_second_node(place.kube, session_pod("drained"))
        model.release(hold)
        drain.wait(60)
        assert drain.returncode == 0
    eventually(lambda: moved(place, "drained"), 60)
    assert ended(client, turn.id).output_text == "whole"
    assert model.calls(tag) == 1, "it ended where it ran"
    assert [text for role, text in texts(client, conversation) if role == "assistant"] == ["whole"]


def test_a_session_that_cannot_leave_a_drained_node_says_so_and_goes_on_when_it_is_uncordoned(
    place: Place, node: SecondNode, staying: str, client: openai.OpenAI
) -> None:
    conversation = start(place, "bound", "staying")
    client.responses.create(model=staying, conversation=conversation, input="say: before")
    with node.drained(f"{SESSION_LABEL}=bound") as drain:
        assert drain.wait(60) == 0
    eventually(lambda: reason(place, "bound") == "VolumeUnreachable", 30)
    said = message(place, "bound")
    assert volume_of(place, "bound") in said
    assert f"kubectl uncordon {node.name}" in said
    place.kube.run("uncordon", node.name)
    eventually(lambda: is_ready(place.kube.get("agentsession", "bound")), 60)
    client.responses.create(model=staying, conversation=conversation, input="say: after")
    assert [text for role, text in texts(client, conversation) if role == "assistant"] == ["before", "after"]


def test_a_dead_nodes_sessions_go_on_where_their_volume_can_be_had_and_else_say_what_holds_them(
    place: Place, node: SecondNode, moving: str, staying: str, client: openai.OpenAI
) -> None:
    survivor, captive = start(place, "survivor", "moving"), start(place, "captive", "staying")
    for agent, conversation in ((moving, survivor), (staying, captive)):
        client.responses.create(model=agent, conversation=conversation, input="say: before")
    node.kill()

    eventually(lambda: reason(place, "captive") == "VolumeUnreachable", DEATH_SECONDS)
    said = message(place, "captive")
    for part in (node.name, volume_of(place, "captive"), "has not answered since", "goes on by itself"):
        assert part in said
    eventually(lambda: moved(place, "survivor"), DEATH_SECONDS)
    client.responses.create(model=moving, conversation=survivor, input="say: elsewhere")
    assert [text for role, text in texts(client, survivor) if role == "assistant"] == ["before", "elsewhere"]
    assert reason(place, "captive") == "VolumeUnreachable"

    node.restore()
    eventually(lambda: is_ready(place.kube.get("agentsession", "captive")), 120)
    client.responses.create(model=staying, conversation=captive, input="say: again")
    assert [text for role, text in texts(client, captive) if role == "assistant"] == ["before", "again"]
    assert generation(place, "survivor") == 2, "that the node is back is no reason to move again"


def test_a_pod_that_comes_back_from_a_partition_cannot_write_the_journal_that_has_moved_on(
    place: Place, node: SecondNode, moving: str, client: openai.OpenAI, model: ScriptedModel, http_api: Effects
) -> None:
    """One old pod runs on all the while; the other is frozen, and has the model's answer to write when it thaws."""
    tags = {name: f"{place.name}-{name}" for name in ("awake", "frozen")}
    rounds = [[call("order", {"item": f"item-{n}", "tag": f"{tags['awake']}-{n}"})] for n in range(ROUNDS)]
    asked = {
        "awake": program(*rounds, final="after", tag=tags["awake"]),
        "frozen": f"say: after tag:{tags['frozen']}",
    }
    conversations = {name: start(place, name, "moving") for name in asked}
    for conversation in conversations.values():
        client.responses.create(model=moving, conversation=conversation, input="say: before")
    course = Course(model, tags["awake"])
    model.hold(f"{tags['frozen']}/0/before")
    turns, old = {}, {}
    for name, question in asked.items():
        turns[name] = client.responses.create(
            model=moving, conversation=conversations[name], input=question, background=True
        )
        model.await_hold(f"{tags[name]}/0/before")
        old[name] = on_second_node(place.kube, session_pod(name))
    node.freeze(old["frozen"])
    node.cut_off()
    try:
        eventually(lambda: course.goes_on() and moved(place, "awake"), DEATH_SECONDS)
        eventually(lambda: waited_out(lambda: client.responses.retrieve(turns["awake"].id)).status == "in_progress", 20)
        eventually(lambda: not processes(old["awake"], "sidecar"), 30)
        course.ends()
        assert ended(client, turns["awake"].id).output_text == "after"

        eventually(lambda: "still open in the previous pod" in message(place, "frozen"), DEATH_SECONDS)
        assert generation(place, "frozen") == 2
        model.release(f"{tags['frozen']}/0/before")
        node.thaw(old["frozen"])
        eventually(lambda: moved(place, "frozen"), 60)  # so the old pod has let go of the journal
        assert ended(client, turns["frozen"].id).output_text == "after"
    finally:
        node.thaw(old["frozen"])
        node.rejoin()
    histories = {name: texts(client, conversations[name]) for name in old}
    for name, history in histories.items():
        assert history == [
            ("user", "say: before"),
            ("assistant", "before"),
            ("user", asked[name]),
            ("assistant", "after"),
        ]
    assert model.calls(tags["frozen"]) == 2, "the answer that the old pod got is not in the journal"
    for n in range(ROUNDS):
        assert http_api.count(f"{tags['awake']}-{n}").effects == 1

    eventually(node.answers, 60)
    for name in old:
        eventually(lambda name=name: not processes(old[name]), 150)  # type: ignore[misc]
        assert texts(client, conversations[name]) == histories[name]
        moved(place, name)
