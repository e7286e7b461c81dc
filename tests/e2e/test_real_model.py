"""A real model, small enough for any machine, calls a real tool by itself."""

import json
from collections.abc import Iterator

import pytest
import yaml

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
