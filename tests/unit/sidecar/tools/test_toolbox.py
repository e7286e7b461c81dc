"""The toolbox itself: what it costs, and what it makes of a bug."""

import subprocess
import sys
from pathlib import Path

import pytest

from tenure_api.configuration import CodeConfig, HttpConfig, ToolConfig, WaitConfig
from tenure_api.tools import Replay
from tenure_sidecar.tools.code import CodeRunner
from tenure_sidecar.tools.tool import Attempt, Json, Outcome
from unit.sidecar.tools.support import a_world

HTTP = ToolConfig(name="get", description="Gets.", http=HttpConfig(url="http://127.0.0.1:1/"))
CODE = ToolConfig(name="run", code=CodeConfig(memory="512Mi"))
WAIT = ToolConfig(name="sleep", wait=WaitConfig(max_seconds=60))


def test_what_only_some_sessions_need_is_not_imported_by_the_others() -> None:
    heavy = ("mcp", "mcp_types", "httpx2", "jsonschema", "yaml", "openai")
    code = f"import sys, tenure_sidecar.tools.toolbox; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


async def test_the_functions_are_in_the_order_of_the_spec(tmp_path: Path) -> None:
    async with a_world(tmp_path, WAIT, CODE, HTTP) as world:
        assert world.names() == ["sleep", "run", "get"]
        assert [function.replay for function in world.tools.functions()] == [Replay.SAFE, Replay.NEVER, Replay.SAFE]
        world.now(HTTP, WAIT)
        assert world.names() == ["get", "sleep"]


async def test_code_is_run_by_the_executor_within_the_tools_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Json, float, int]] = []

    async def run(_self: CodeRunner, arguments: Json, timeout: float, attempt: Attempt) -> Outcome:
        ran.append((arguments, timeout, attempt.step))
        return Outcome("42")

    monkeypatch.setattr(CodeRunner, "run", run)
    async with a_world(tmp_path, CODE.model_copy(update={"timeout_seconds": 120})) as world:
        program = {"language": "python", "code": "print(42)"}
        assert (await world.call("run", program)).text == "42"
        assert ran == [(program, 120, 7)]
        wrong = await world.call("run", {"language": "perl", "code": ""})
        assert "argument 'language': must be one of" in wrong.text


@pytest.mark.parametrize(("replay", "unknown"), [(Replay.SAFE, False), (Replay.NEVER, True)])
async def test_a_bug_in_a_tool_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replay: Replay, unknown: bool
) -> None:
    async def run(_self: CodeRunner, arguments: Json, timeout: float, attempt: Attempt) -> Outcome:
        raise LookupError("a bug")

    monkeypatch.setattr(CodeRunner, "run", run)
    async with a_world(tmp_path, CODE.model_copy(update={"replay": replay})) as world:
        outcome = await world.call("run", {"language": "python", "code": ""})
    assert (outcome.is_error, outcome.unknown) == (True, unknown)
    assert "a bug" not in outcome.text
