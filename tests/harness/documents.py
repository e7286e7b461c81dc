"""What the documents show, to be tested as it stands."""

import re
from typing import Any

import yaml

from harness.manifests import Manifest, agent
from harness.tenure import ROOT

TOOLS_PAGE = ROOT / "docs" / "tools.md"


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def agents_of_documents() -> list[Manifest]:
    """An agent for each part of an agent's `spec` that the page about tools or the README shows."""
    shown = blocks(TOOLS_PAGE.read_text(), "yaml") + blocks((ROOT / "README.md").read_text(), "yaml")
    specs: list[dict[str, Any]] = [yaml.safe_load(block) for block in shown if block.startswith("tools:")]
    return [agent(f"shown-{spec['tools'][0]['name']}-{number}", **spec) for number, spec in enumerate(specs)]
