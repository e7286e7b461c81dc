"""What docs/kubectl-tenure.md shows is what the command takes, and what it promises is what the command does."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from tenure_cli import errors
from tenure_cli.kube import SESSIONS
from tenure_cli.options import parser
from tenure_cli.situation import State
from unit.cli.desk import Desk, session

PAGE = (Path(__file__).parents[3] / "docs" / "kubectl-tenure.md").read_text()
COMMANDS = ("chat", "sessions", "history", "wake", "sleep", "fork", "export", "import", "why", "verify")


def shown() -> list[str]:
    """The command lines of the page."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    return [line.partition("kubectl tenure ")[2] for line in lines if "kubectl tenure " in line]


@pytest.mark.parametrize("line", shown())
def test_every_command_line_of_the_page_is_one(line: str) -> None:
    assert parser().parse_args(shlex.split(line)).command in COMMANDS


def test_the_page_shows_every_command_and_every_option() -> None:
    assert {line.split()[0] for line in shown()} == set(COMMANDS)
    helps = ""
    for command in COMMANDS:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            parser().parse_args([command, "--help"])
        helps += out.getvalue()
    own = set(re.findall(r"(?<![\w-])--[a-z-]+", helps)) - {"--help", "--context", "--kubeconfig", "--namespace"}
    assert {option for option in own if option not in PAGE} == set()


def test_the_exit_codes_of_the_page_are_those_of_the_code() -> None:
    table = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("|")]
    assert len(table) > 8
    assert "\n".join(table) in PAGE


def test_the_states_of_the_page_are_those_of_the_code() -> None:
    said = PAGE.split("`state` of `why` is ")[1].split("\n\n")[0]
    assert set(re.findall(r"`([A-Z]\w+)`", said)) == {state.value for state in State}


@pytest.mark.parametrize("line", ["sessions", "wake chat-1", "sleep chat-1", "fork chat-1", "why chat-1"])
def test_json_has_the_fields_that_the_page_promises(line: str) -> None:
    desk = Desk()
    desk.cluster.put(SESSIONS, session())
    told = json.loads(desk.run(*line.split(), "--output", "json").out)
    rows = PAGE.split("## In scripts")[1].splitlines()
    (row,) = [row for row in rows if row.startswith(f"| `{line.split()[0]}` |")]
    fields = set(told) | {key for one in told.get("sessions", []) for key in one}
    fields |= set(told.get("forkFrom", {}))
    assert set(re.findall(r"`(\w+)`", row)) - {line.split()[0]} | ({"sessions"} & set(told)) == fields
