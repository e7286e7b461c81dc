"""Whatever happens, a person gets a sentence and a program an exit code."""

import asyncio
import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tenure_cli.console import Console, Progress, size, table
from tenure_cli.kube import SESSIONS
from tenure_cli.main import run
from unit.cli.desk import Desk, StandInCluster, Stream, session
from unit.gateway.world import World

SRC = Path(__file__).parents[3] / "operator" / "src"


class BrokenCluster(StandInCluster):
    def get(self, *_: object) -> dict[str, object]:
        raise ZeroDivisionError("oops")


def test_what_nobody_thought_of_is_no_traceback_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Desk(BrokenCluster()).run("why", "chat-1")
    assert outcome.code == 1
    assert "ZeroDivisionError: oops" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("TENURE_DEBUG", "1")
    assert "Traceback" in Desk(BrokenCluster()).run("why", "chat-1").err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["chat"], ["fork", "x", "--at", "-1"], ["export", "x"]])
def test_a_command_line_that_makes_no_sense_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_ctrl_c_is_code_130() -> None:
    class Interrupted(StandInCluster):
        def get(self, *_: object) -> dict[str, object]:
            raise KeyboardInterrupt

    assert Desk(Interrupted()).run("why", "chat-1").code == 130


def test_who_stops_reading_ends_it_quietly() -> None:
    class Closed(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    desk = Desk()
    desk.cluster.put(SESSIONS, session())
    console = Console(Stream(), Closed(), Stream())
    assert run(["sessions"], console, desk.reach) == 141
    assert isinstance(console.stderr, Stream)
    assert console.stderr.getvalue() == ""


def test_names_that_lead_elsewhere_are_refused() -> None:
    for name in ("../secrets", "a/../b", "a/b/c", "UPPER", "", "a/"):
        assert Desk().run("why", name).code == 1


def test_it_runs_as_a_module() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    told = subprocess.run(
        [sys.executable, "-m", "tenure_cli", "--help"], env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0
    assert "kubectl tenure" in told.stdout


class Terminal:
    """The other end of a pseudo-terminal, as a terminal emulator has it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (24, 80))
        self._seen = b""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last program has closed its end
            shown = os.read(self._ours, 4096)
            if b"\x1b[6n" in shown:  # where is the cursor?
                self.type("\x1b[1;1R")
            self._seen += shown
        self._more.set()

    async def until(self, text: str) -> None:
        """Returns when the text has been shown; what comes after it is for the next call."""
        async with asyncio.timeout(30):
            while text.encode() not in self._seen:
                self._more.clear()
                await self._more.wait()
        self._seen = self._seen.split(text.encode(), 1)[1]

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)


async def test_a_conversation_on_a_real_terminal(world: World) -> None:
    world.session()
    world.speech = lambda heard: ["Polly is well."]
    terminal = Terminal()
    options = ["--session", "mine", "-n", "shop", "--gateway", world.url, "--token", world.alice]
    environment = {**os.environ, "PYTHONPATH": str(SRC), "KUBECONFIG": os.devnull, "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tenure_cli", "chat", "helper", *options),
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        env=environment,
    )
    os.close(terminal.theirs)
    await terminal.until("m>")
    terminal.type("\x1b[200~My parrot\nis Polly.\x1b[201~\r")
    await terminal.until("Polly is well.")
    await terminal.until("m>")
    terminal.type("\x04")
    assert await asyncio.wait_for(process.wait(), 30) == 0
    terminal.close()
    (course,) = world.volumes[next(iter(world.volumes))].turns.values()
    assert course.request.input[0].text == "My parrot\nis Polly."


def test_what_a_terminal_would_obey_is_not_in_results_and_notes() -> None:
    console = Console(Stream(), Stream(terminal=True), Stream(terminal=True))
    console.result({}, "a\x1b[2Jb")
    console.note("c\x1b[1Ad")
    assert isinstance(console.stdout, Stream)
    assert isinstance(console.stderr, Stream)
    assert (console.stdout.getvalue(), console.stderr.getvalue()) == ("a[2Jb\n", "c[1Ad\n")


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert table(("A", "B"), [("long one", "x")]) == "A          B\nlong one   x"


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**2, 3 * 1024**5)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3072.0 TiB",
    ]


@pytest.mark.parametrize(
    ("terminal", "shown"), [(True, "\r\033[Kdone: 2.0 KiB of 4.0 KiB\n"), (False, "done: 2.0 KiB of 4.0 KiB\n")]
)
def test_progress_is_told_now_and_then(terminal: bool, shown: str) -> None:
    now = [0.0]
    console = Console(Stream(), Stream(), Stream(terminal=terminal))
    progress = Progress(console, "done", 4096, lambda: now[0])
    progress.add(1024)
    now[0] = 5.0
    progress.add(1024)
    progress.add(1024)
    progress.end()
    assert isinstance(console.stderr, Stream)
    assert console.stderr.getvalue() == ("\r\033[K" if terminal else "") + "done: 2.0 KiB of 4.0 KiB\n"
