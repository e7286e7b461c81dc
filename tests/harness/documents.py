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


def agents_of_tools_page() -> list[Manifest]:
    """An agent for each manifest on the page about tools, which shows parts of an agent's `spec`."""
    found = []
    for block in blocks(TOOLS_PAGE.read_text(), "yaml"):
        spec: dict[str, Any] = yaml.safe_load(block)
        found.append(agent(f"shown-{spec['tools'][0]['name']}", **spec))
    return found
