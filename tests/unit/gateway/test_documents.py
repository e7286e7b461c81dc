"""The examples in the documents run as they stand."""

import asyncio
import re
from pathlib import Path

import pytest

from unit.gateway.courses import Deed, Used
from unit.gateway.world import World

PAGE = Path(__file__).parents[3] / "docs" / "openai-api.md"


def helper(heard: list[str]) -> list[Deed]:
    """What the agent of the examples does."""
    if "Refund" in heard[-1]:
        return ["I ask. ", Used("refund", ask=True), "Refunded."]
    return [f"You said: {heard[-1]} ", "And that is all."]


async def test_the_examples_run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", world.alice)
    world.speech = helper
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        await asyncio.to_thread(exec, compile(block, PAGE.name, "exec"), names)
    said = capsys.readouterr().out
    assert "in_progress" in said
    assert "incomplete approval_required\nTrue completed I ask. Refunded." in said
    assert "/workspace/data/orders.csv 17" in said
    assert "You said: What is the total?\n[file /workspace/uploads/orders.csv, 16 bytes]" in getattr(
        names["answer"], "output_text", ""
    )
    assert said.endswith("True\n")
