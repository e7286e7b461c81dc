"""The definitions at a real API server: applied either way, merged by key, known by their names."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from harness import manifests
from harness.kube import Kube, KubectlError, Manifest
from harness.tenure import ROOT, Place
from tenure_api.crdgen import KINDS, render
from tenure_api.names import API_VERSION, GROUP

URL = "http://model.example.com/v1"


def agent(name: str, **model: Any) -> Manifest:
    """An agent; parts of its model are replaced."""
    return manifests.agent(name, model={"name": "m", "baseURL": URL, **model})


def transcript(name: str, **limits: int) -> Manifest:
    """A policy for the transcript, and nothing else in it."""
    made = manifests.policy(name, **limits)
    del made["spec"]["enforcement"]
    return made


def as_manager(kube: Kube, manager: str, manifest: Manifest, *options: str) -> None:
    """Applies server-side under the name of a field manager."""
    text = yaml.safe_dump(manifest)
    kube.run("apply", "--server-side", "--field-manager", manager, *options, "-f", "-", stdin=text)


def test_two_appliers_share_the_conditions_of_an_object(place: Place) -> None:
    """Conditions merge by type: who applies one does not remove or take over that of another."""
    place.kube.apply(agent("shared"))
    identity = {"apiVersion": API_VERSION, "kind": "Agent", "metadata": {"name": "shared"}}

    def condition(type_: str) -> Manifest:
        conditions = [{"type": type_, "status": "True", "reason": "Test", "message": ""}]
        return {**identity, "status": {"conditions": conditions}}

    as_manager(place.kube, "first", condition("Checked"), "--subresource=status")
    as_manager(place.kube, "second", condition("Approved"), "--subresource=status")
    found = {c["type"] for c in place.kube.get("agent", "shared")["status"]["conditions"]}
    assert {"Checked", "Approved"} <= found


def test_two_appliers_of_one_class_conflict_and_the_list_is_merged_by_name(place: Place) -> None:
    as_manager(place.kube, "first", transcript("merged", maxCount=3))
    with pytest.raises(KubectlError, match=r'conflict with "first".*\.spec\.classes\[name="transcript"\]\.maxCount'):
        as_manager(place.kube, "second", transcript("merged", maxCount=9))
    as_manager(place.kube, "second", transcript("merged", maxAgeSeconds=60))
    (merged,) = place.kube.get("memorypolicy", "merged")["spec"]["classes"]
    assert merged == {"name": "transcript", "maxCount": 3, "maxAgeSeconds": 60}


def test_fallbacks_are_replaced_as_a_whole_since_their_order_counts(place: Place) -> None:
    as_manager(place.kube, "first", agent("ordered", fallbacks=[{"name": "a"}, {"name": "b"}]))
    as_manager(place.kube, "first", agent("ordered", fallbacks=[{"name": "b"}]))
    assert place.kube.get("agent", "ordered")["spec"]["model"]["fallbacks"] == [{"name": "b"}]


# --- the definitions themselves ------------------------------------------------------------------------------------


@pytest.fixture
def foreign_group(place: Place) -> Iterator[str]:
    """The definitions under another group, so that those of the installed chart are left alone."""
    group = f"copy.{GROUP}"
    yield group
    for kind in KINDS:
        place.kube.delete("crd", f"{kind.plural}.{group}")


def test_the_definitions_can_be_applied_client_side_and_then_server_side(place: Place, foreign_group: str) -> None:
    """The API server accepts schemas and rules (structure, cost of CEL), and the objects fit into an annotation."""
    text = "\n---\n".join(render(kind).replace(GROUP, foreign_group) for kind in KINDS)
    place.kube.run("apply", "-f", "-", stdin=text)
    place.kube.run("apply", "--server-side", "-f", "-", stdin=text)
    for kind in KINDS:
        name = f"{kind.plural}.{foreign_group}"
        place.kube.run("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
        conditions = {c["type"]: c for c in place.kube.get("crd", name)["status"]["conditions"]}
        assert "NonStructuralSchema" not in conditions
        assert conditions["NamesAccepted"]["status"] == "True"


def test_the_committed_definitions_differ_in_nothing_from_the_installed_ones(place: Place) -> None:
    text = "\n---\n".join((ROOT / "crds" / f"{kind.plural}.yaml").read_text() for kind in KINDS)
    tried = json.loads(
        place.kube.run(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-o", "json", "-f", "-", stdin=text
        )
    )
    for item in tried["items"]:
        assert item["spec"] == place.kube.get("crd", item["metadata"]["name"])["spec"]


@pytest.mark.parametrize("word", ["agents", "agent", "ag", "agentsessions", "ags", "memorypolicies", "mp", "tenure"])
def test_kubectl_knows_each_name_and_none_means_another_kind(place: Place, word: str) -> None:
    place.kube.apply(transcript("named", maxCount=3), agent("named"))
    found = {item["kind"] for item in json.loads(place.kube.run("get", word, "-o", "json"))["items"]}
    wanted = {"a": {"Agent"}, "m": {"MemoryPolicy"}, "t": {"Agent", "MemoryPolicy"}}
    if "ses" in word or word == "ags":
        assert found <= {"AgentSession"}
    else:
        assert wanted[word[0]] <= found
        assert word == "tenure" or found == wanted[word[0]]
