"""A real model, small enough for any machine, calls a real tool by itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from harness.documents import TOOLS_PAGE, blocks
from harness.kube import eventually, is_ready
from harness.tenure import ROOT, Place

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def clerk(place: Place) -> Iterator[str]:
    """The agent of the example on the model of the example, as they stand."""
    for part in ("demo-model/model.yaml", "tools/shop.yaml", "tools/agent.yaml"):
        place.kube.apply(*(d for d in yaml.safe_load_all((EXAMPLES / part).read_text()) if d))
    for deployment in ("demo-model", "shop"):
        place.kube.run("rollout", "status", f"deploy/{deployment}", "--timeout=120s")
    eventually(lambda: is_ready(place.kube.get("agent", "clerk")), 30)
    yield f"{place.name}/clerk"
    place.kube.delete("deployment", "demo-model")  # it keeps a CPU and 300 MiB from the modules that follow


def test_a_real_model_looks_up_what_it_is_asked_for(place: Place, clerk: str) -> None:
    client = place.client()
    conversation = place.session("customer", "clerk")
    answer = client.responses.create(model=clerk, conversation=conversation, input="How many teapots are in stock?")
    (call,) = (item for item in answer.output if item.type == "mcp_call")
    assert (call.name, json.loads(call.arguments)) == ("stock", {"article": "teapot"})
    assert call.output == "There are 42 teapots in stock."
    assert "42" in answer.output_text  # which it cannot know but from the tool


def test_what_the_page_about_tools_shows_in_python_works(place: Place, clerk: str) -> None:
    client = place.client()
    known: dict[str, Any] = {"client": client, "conversation": client.conversations.create(metadata={"agent": clerk})}
    for block in blocks(TOOLS_PAGE.read_text(), "python"):
        exec(block.replace("shop/clerk", clerk), known)
    asked, request, done = known["asked"], known["request"], known["done"]
    assert (asked.status, request.name, json.loads(request.arguments)["pieces"]) == ("incomplete", "order", 5)
    assert (done.status, done.id) == ("completed", asked.id)
    (call,) = (item for item in done.output if item.type == "mcp_call")
    assert json.loads(call.output)["pieces"] == 5
