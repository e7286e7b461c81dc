"""What a person types."""

import sys
from collections.abc import Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from tenure_cli.console import Console
from tenure_cli.prompt import Pipe, Terminal
from unit.cli.desk import Stream

PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def test_a_pasted_text_of_many_lines_is_one_message(keys: PipeInput) -> None:
    keys.send_text(PASTE.format("one\ntwo\r\nthree") + "\r")
    assert Terminal().message() == "one\ntwo\nthree"


def test_alt_enter_begins_a_new_line(keys: PipeInput) -> None:
    keys.send_text("one\x1b\rtwo\r")
    assert Terminal().message() == "one\ntwo"


def test_ctrl_d_ends_and_ctrl_c_interrupts(keys: PipeInput) -> None:
    keys.send_text("\x04")
    assert Terminal().message() is None
    keys.send_text("half\x03")
    with pytest.raises(KeyboardInterrupt):
        Terminal().message()


def test_a_question_is_asked_until_it_is_answered(keys: PipeInput) -> None:
    terminal = Terminal()
    keys.send_text("perhaps\rY\r")
    assert terminal.agrees("Approve?") is True
    keys.send_text("no\r")
    assert terminal.agrees("Approve?") is False
    keys.send_text("\x04")
    assert terminal.agrees("Approve?") is None


def test_nobody_answers_in_a_pipe() -> None:
    pipe = Pipe(Console(Stream(" one\ntwo \n"), Stream(), Stream()))
    assert pipe.agrees("Approve?") is None
    assert (pipe.message(), pipe.message()) == ("one\ntwo", None)
    assert Pipe(Console(Stream("\n"), Stream(), Stream())).message() is None


def test_the_usual_streams_are_those_of_the_process() -> None:
    assert Console().stdin is sys.stdin
