"""The sidecar's side of a call: what it tells the model, and what it can say for sure when the container is gone."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tenure_api.configuration import CodeConfig, ToolConfig
from tenure_sidecar.tools import code
from tenure_sidecar.tools.code import CodeRunner, description
from tenure_sidecar.tools.tool import Attempt, Outcome
from unit.executor.container import Container, container, needs_namespaces, until

TURN = "0" * 31 + "1"
ATTEMPT = Attempt("key", TURN, 3)
STARTED = {"event": "started"}
WELL = {"event": "ended", "output": "hello\n", "status": 0, "signal": None, "stopped": None, "seconds": 0.1}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    with container() as found:
        yield found


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ex-") as root:
        yield Path(root) / "exec.sock"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_GRACE_SECONDS", 0.1)


@asynccontextmanager
async def executor(path: Path, serve: Serve) -> AsyncIterator[None]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(one, path, limit=1 << 24)
    try:
        yield
    finally:
        server.close()


def saying(*lines: Any) -> Serve:
    """An executor that says this, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for line in lines:
            writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        await writer.drain()

    return serve


async def run(path: Path, program: str = "", timeout: float = 30, language: str = "shell") -> Outcome:
    return await CodeRunner(path, "512Mi").run({"language": language, "code": program}, timeout, ATTEMPT)


@needs_namespaces
async def test_what_a_program_prints_is_the_result(box: Container) -> None:
    assert await run(box.socket, "echo hello") == Outcome("hello\n")
    assert await run(box.socket, "print('hello')", language="python") == Outcome("hello\n")
    assert await run(box.socket, "true") == Outcome("[No output.]")


@needs_namespaces
async def test_how_a_program_failed_is_said(box: Container) -> None:
    assert await run(box.socket, "printf oops; exit 3") == Outcome("oops\n[Exit status 3.]", is_error=True)
    assert await run(box.socket, "kill -SEGV $$") == Outcome("[Ended by signal 11.]", is_error=True)
    killed = await run(box.socket, "kill -KILL $$")
    assert (killed.is_error, killed.unknown) == (True, True), "it may have done all or nothing"
    assert "memory limit of 512Mi" in killed.text


@needs_namespaces
async def test_a_program_that_takes_too_long_is_stopped_and_what_it_printed_is_told(box: Container) -> None:
    outcome = await run(box.socket, "echo begun; sleep 60", timeout=1)
    assert outcome.is_error
    assert not outcome.unknown
    assert outcome.text.startswith("begun\n[Stopped after ")


@needs_namespaces
async def test_calls_run_one_after_the_other(box: Container) -> None:
    runner = CodeRunner(box.socket)
    program = "mkdir alone && sleep 0.1 && rmdir alone"
    arguments = {"language": "shell", "code": program}
    outcomes = await asyncio.gather(*(runner.run(arguments, 30, ATTEMPT) for _ in range(4)))
    assert outcomes == [Outcome("[No output.]")] * 4


@needs_namespaces
async def test_a_call_that_is_cancelled_ends_in_the_container(box: Container) -> None:
    call = asyncio.create_task(run(box.socket, "touch begun; sleep 60; touch after"))
    await asyncio.to_thread(until, (box.workspace / "begun").exists)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await run(box.socket, "ls after 2>/dev/null || echo none")).text == "none\n"


@needs_namespaces
async def test_long_output_is_kept_under_the_name_of_its_turn(box: Container) -> None:
    outcome = await run(box.socket, "for n in range(300_000): print(n)", language="python")
    kept = box.workspace / "tool-results" / f"{TURN}-3-output.txt"
    assert f"{kept} has all" in outcome.text
    assert kept.read_text().endswith("\n299999\n")


@needs_namespaces
async def test_as_much_as_may_be_shown_arrives_whole_even_if_it_is_no_text(box: Container) -> None:
    outcome = await run(box.socket, "head -c 1048576 /dev/zero | tr '\\0' '\\377'")
    assert outcome == Outcome("\ufffd" * (1 << 20))


async def test_a_container_that_is_not_there_is_a_tool_error_and_nothing_was_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_RESTART_SECONDS", 0.3)
    outcome = await run(path)
    assert outcome.is_error
    assert not outcome.unknown
    assert "was not run" in outcome.text


async def test_a_container_that_restarts_is_waited_for(path: Path) -> None:
    call = asyncio.create_task(run(path))
    await asyncio.sleep(0.2)
    async with executor(path, saying(STARTED, WELL)):
        assert await call == Outcome("hello\n")


async def test_a_call_that_never_began_is_made_again(path: Path) -> None:
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await saying(*([STARTED, WELL] if seen == 3 else []))(reader, writer)

    async with executor(path, serve):
        assert await run(path) == Outcome("hello\n")
    assert seen == 3


async def test_a_container_that_ends_in_the_middle_leaves_the_outcome_unknown(path: Path) -> None:
    async with executor(path, saying(STARTED)):
        outcome = await run(path)
    assert outcome.is_error
    assert outcome.unknown
    assert "memory limit of 512Mi" in outcome.text


async def test_why_code_could_not_be_run_is_told(path: Path) -> None:
    async with executor(path, saying(STARTED, {"event": "ended", "error": "No space left on device"})):
        assert await run(path) == Outcome("The code could not be run: No space left on device.", is_error=True)


@pytest.mark.usefixtures("impatient")
async def test_an_executor_that_never_answers_is_not_waited_for(path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(STARTED)(reader, writer)
        await asyncio.sleep(30)

    async with executor(path, serve):
        outcome = await run(path, timeout=0.3)
    assert outcome.unknown


@pytest.mark.usefixtures("impatient")
async def test_a_call_that_waits_too_long_for_another_was_surely_not_run(path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(STARTED)(reader, writer)
        await asyncio.sleep(30)

    runner, arguments = CodeRunner(path), {"language": "shell", "code": ""}
    async with executor(path, serve):
        first = asyncio.create_task(runner.run(arguments, 5, ATTEMPT))
        await asyncio.sleep(0.1)
        second = await runner.run(arguments, 0.2, ATTEMPT)
        first.cancel()
    assert second.is_error
    assert not second.unknown


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b"x" * (9 << 20),
        {"event": "ended"},
        {**WELL, "status": None},
        {**WELL, "status": {}},
        {**WELL, "seconds": "long"},
        {**WELL, "signal": "kill"},
    ],
    ids=range(10),
)
async def test_what_is_not_as_it_must_be_is_an_unknown_outcome_and_never_a_crash(path: Path, garbage: Any) -> None:
    async with executor(path, saying(STARTED, garbage)):
        assert (await run(path)).unknown


async def test_a_file_in_the_place_of_the_socket_is_a_tool_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_RESTART_SECONDS", 0.2)
    await asyncio.to_thread(path.write_text, "no socket")
    assert (await run(path)).is_error


def test_the_model_is_told_the_limits_and_what_is_kept() -> None:
    told = description(ToolConfig(name="run", timeout_seconds=120, code=CodeConfig(memory="512Mi")))
    assert all(word in told for word in ("/workspace", "120 seconds", "512Mi"))
