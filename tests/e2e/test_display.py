"""People and GitOps tools read our objects rightly: kubectl's tables, `describe`, `wait` and kstatus."""

import json
import re

import pytest

from harness.kstatus import kstatus
from harness.kube import KubectlError, condition, eventually, is_ready
from harness.manifests import MODEL_URL, agent, policy, session
from harness.tenure import ROOT, Place

GOLDEN = ROOT / "tests" / "golden"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
AGE = r"(?<= )(AGE|\d+[smh](\d+s)?)( +(?= )|$)"
"""An age in a table or the head of its column, with what fills it."""


def same_width(word: str, found: str, at_least: int = 0) -> str:
    """The word in the place of another, so that what follows stays in its column."""
    return word.ljust(max(len(found), at_least))


def settled(place: Place, text: str) -> str:
    """Text with all that changes from run to run replaced, in the same columns and indented as ever."""
    text = text.replace(place.name, f"<{'namespace':-^{len(place.name) - 2}}>")
    text = re.sub(TIME, lambda found: same_width("<time>", found[0]), text)
    # A column of ages is as wide as the longest of them.
    text = re.sub(
        AGE,
        lambda found: same_width("AGE" if found[1] == "AGE" else "<age>", found[0], at_least=8),
        text,
        flags=re.MULTILINE,
    )
    replacements = [
        (r"\b\d+(\.\d+){3}\b", "<ip>"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
        (r"(Resource Version: +)\d+", r"\1<version>"),
        (r"(Revision: +)[0-9a-f]+", r"\1<revision>"),
        (r"(Bytes: +)\d+", r"\1<bytes>"),
        (r" +$", ""),
    ]
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def compare(name: str, text: str) -> None:
    """Compares with a golden file; a new one is written and fails, so that somebody reads it."""
    path = GOLDEN / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was written: read it and commit it")
    assert text == path.read_text()


@pytest.fixture(scope="module")
def shown(place: Place) -> Place:
    place.kube.apply(policy("month", interval=60, maxAgeSeconds=2_592_000))
    name = place.agent("helper", memoryPolicyRef={"name": "month"}, instructions="Be brief.")
    conversation = place.session("chat-1", expiresAt="2099-01-01T00:00:00Z")
    place.client().responses.create(model=name, conversation=conversation, input="say: hello")
    place.kube.apply(
        agent("waiting", model={"name": "m", "baseURL": MODEL_URL, "credentialsSecretRef": {"name": "none"}})
    )
    place.kube.apply(session("chat-2", "waiting"), session("chat-3", operatingMode="Hibernated"))
    eventually(lambda: place.kube.get("agentsession", "chat-1")["status"].get("turns") == 1, 60)
    eventually(lambda: condition(place.kube.get("agentsession", "chat-2"), "Ready")["status"] == "False", 20)
    eventually(lambda: is_ready(place.kube.get("memorypolicy", "month")), 30)
    eventually(lambda: is_ready(place.kube.get("agentsession", "chat-3")), 30)
    eventually(lambda: place.kube.get("agentsession", "chat-1")["status"].get("volume"), 60)
    for name_, total, running, hibernated in (("helper", 2, 1, 1), ("waiting", 1, 0, 0)):
        count = {"total": total, "running": running, "hibernated": hibernated}
        eventually(lambda n=name_, c=count: place.kube.get("agent", n)["status"]["sessions"] == c, 30)  # type: ignore[misc]
    return place


@pytest.mark.parametrize("output", ["", "wide"])
def test_the_tables_read_well(shown: Place, output: str) -> None:
    table = shown.kube.run("get", "ag,ags,mp", *(["-o", output] if output else []))
    compare(f"get{output and '-'}{output}.txt", settled(shown, table))


DESCRIBED = [
    ("agent", "helper"),
    ("memorypolicy", "month"),
    ("agentsession", "chat-1"),
    ("agentsession", "chat-2"),
    ("agentsession", "chat-3"),
]


@pytest.mark.parametrize(("kind", "name"), DESCRIBED)
def test_describe_reads_well(shown: Place, kind: str, name: str) -> None:
    text = shown.kube.run("describe", kind, name, "--show-events=false")
    compare(f"describe-{kind}-{name}.txt", settled(shown, text))


def test_wait_ends_when_an_object_is_ready_and_not_before(shown: Place) -> None:
    shown.kube.run("wait", "--for=condition=Ready", "agent/helper", "agentsession/chat-1", "mp/month", "--timeout=5s")
    with pytest.raises(KubectlError, match="timed out"):
        shown.kube.run("wait", "--for=condition=Ready", "agentsession/chat-2", "--timeout=1s")


def test_kstatus_computes_the_state(shown: Place) -> None:
    assert kstatus(shown.kube.get("agent", "helper")) == "Current"
    assert kstatus(shown.kube.get("agentsession", "chat-1")) == "Current"
    assert kstatus(shown.kube.get("agentsession", "chat-3")) == "Current"
    assert kstatus(shown.kube.get("memorypolicy", "month")) == "Current"
    assert kstatus(shown.kube.get("agent", "waiting")) == "InProgress"
    assert kstatus(shown.kube.get("agentsession", "chat-2")) == "InProgress"
    shown.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs-agent"}})
    shown.kube.apply(agent("theirs"))
    eventually(lambda: condition(shown.kube.get("agent", "theirs"), "Stalled"), 20)
    assert kstatus(shown.kube.get("agent", "theirs")) == "Failed"


def test_a_fresh_object_never_looks_ready(shown: Place) -> None:
    fresh = json.loads(
        shown.kube.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(session("fresh")))
    )
    fresh["metadata"].setdefault("generation", 1)
    assert kstatus(fresh) == "InProgress"
