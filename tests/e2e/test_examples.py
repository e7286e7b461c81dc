"""Every example works as it stands, and so does the README's tour."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.documents import agents_of_documents
from harness.effects import Effects
from harness.kube import Manifest, eventually, is_ready
from harness.manifests import http_tool
from harness.model import ScriptedModel, call, program
from harness.tenure import ROOT, Installed, Place

EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT / "examples")))
def test_an_example_is_accepted_by_the_api_server(place: Place, path: Path) -> None:
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    assert documents
    for document in documents:
        document["metadata"].pop("namespace", None)
    kube = place.kube
    text = yaml.safe_dump_all(documents)
    kube.run("apply", "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.parametrize("shown", agents_of_documents(), ids=lambda a: a["metadata"]["name"])
def test_a_manifest_in_the_documents_is_accepted_by_the_api_server(place: Place, shown: Manifest) -> None:
    place.kube.run("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(shown))


def test_the_readmes_tour_works(tenure: Installed) -> None:
    readme = (ROOT / "README.md").read_text()
    tour = readme[readme.index("## A tour") : readme.index("## Install")]
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", tour, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks].count("python") == 1
    script = ["set -euo pipefail", "trap 'kill $(jobs -p)' EXIT"]  # else the port-forward would go on
    for language, body in blocks:
        script.append(body if language == "sh" else f"python - <<'END'\n{body}END")
    tenure.kube.delete("namespace", "tour")
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=ROOT,
            env={
                **tenure.kube.environment,
                "PATH": f"{Path(sys.executable).parent}:{tenure.kube.environment['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Bluebird" in done.stdout
        tour_kube = tenure.kube.within("tour")
        eventually(lambda: all(is_ready(s) for s in tour_kube.items("agentsessions")), 60)
    finally:
        tenure.kube.delete("namespace", "tour", "--wait=false")


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = {word for words in re.findall(r"(?:^|`)make ([a-z0-9 -]+)", text, re.MULTILINE) for word in words.split()}
    assert named
    assert named <= targets


def test_a_users_own_image_stands_in_for_the_built_in_loop(place: Place, model: ScriptedModel) -> None:
    name = place.agent("writer", runtime={"image": "tenure/custom-agent:dev"})
    conversation = place.session("writer", "writer")
    client = place.client()
    tag = f"{place.name}-own-image"
    answer = client.responses.create(model=name, conversation=conversation, input=f"say: brief tag:{tag}")
    assert answer.output_text == "brief"
    assert model.calls(tag) == 1
    shortened = client.responses.create(model=name, conversation=conversation, input="words: 40")
    assert shortened.output_text
    assert "w40" not in shortened.output_text  # what the image's second model call makes of it
    items = [item for item in client.conversations.items.list(conversation, order="asc") if item.type == "message"]
    assert [item.role for item in items] == ["user", "assistant"] * 2


def test_a_users_own_image_calls_tools_through_the_sidecar(
    place: Place, model: ScriptedModel, http_api: Effects
) -> None:
    tools = [http_tool("book", "/orders", "POST", replay="IdempotencyKey")]
    name = place.agent("buyer", runtime={"image": "tenure/custom-agent:dev"}, tools=tools)
    tag = f"{place.name}-own-tools"
    orders = [call("book", {"item": item, "tag": tag}) for item in ("tea", "cake")]
    asked = program(orders, final="Ordered {0.0} and {0.1}", tag=tag)
    answer = place.client().responses.create(model=name, input=asked)
    assert '"tea"' in answer.output_text
    assert '"cake"' in answer.output_text
    assert (http_api.count(tag).effects, model.calls(tag), model.refused(tag)) == (2, 2, 0)
