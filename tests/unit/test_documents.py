import pytest
import yaml

from harness.documents import TOOLS_PAGE, agents_of_documents, blocks
from harness.manifests import Manifest
from harness.tenure import ROOT
from tenure_api.agent import Agent
from tenure_api.tools import Tool

AGENTS = agents_of_documents()
SOURCES = ("mcp", "http", "code", "agent", "waitUntil")


@pytest.mark.parametrize("shown", AGENTS, ids=lambda a: a["metadata"]["name"])
def test_a_manifest_in_the_documents_says_only_what_the_models_know(shown: Manifest) -> None:
    kept = Agent.model_validate(shown).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert kept["spec"] == shown["spec"]


def test_the_page_about_tools_shows_every_kind() -> None:
    shown = {source for agent in AGENTS for tool in agent["spec"]["tools"] for source in tool if source in SOURCES}
    known = {field.alias or name for name, field in Tool.model_fields.items()}
    assert shown == set(SOURCES)
    assert set(SOURCES) <= known


def test_what_the_documents_show_in_python_is_python() -> None:
    for page in (TOOLS_PAGE, ROOT / "README.md"):
        for block in blocks(page.read_text(), "python"):
            compile(block, page.name, "exec")


def test_the_examples_say_only_what_the_models_know() -> None:
    agents = [
        document
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "Agent"
    ]
    assert agents
    for shown in agents:
        kept = Agent.model_validate(shown).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert kept["spec"] == shown["spec"]
