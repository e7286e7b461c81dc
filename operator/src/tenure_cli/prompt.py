"""Reads what a person types: on a terminal with editing, history of this conversation and pastes of many lines."""

from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from tenure_cli.console import Console


class Prompt(Protocol):
    """Where a person's words come from."""

    def message(self) -> str | None:
        """The next message; None at the end. Raises `KeyboardInterrupt`."""

    def agrees(self, question: str) -> bool | None:
        """What a person says to a question; None if nobody answers."""


class Terminal:
    """A person at a terminal. A pasted text is one message, however many lines it has; Alt-Enter begins a new line."""

    def __init__(self) -> None:
        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        self._messages: PromptSession[str] = PromptSession(history=InMemoryHistory(), key_bindings=keys)
        self._answers: PromptSession[str] = PromptSession()

    def message(self) -> str | None:
        """See `Prompt`."""
        try:
            return self._messages.prompt("> ", prompt_continuation="  ")
        except EOFError:
            return None

    def agrees(self, question: str) -> bool | None:
        """See `Prompt`."""
        while True:
            try:
                answer = self._answers.prompt(f"{question} [y/n] ").strip().lower()
            except EOFError:
                return None
            if answer in ("y", "yes"):
                return True
            if answer in ("n", "no"):
                return False


class Pipe:
    """Standard input that is no terminal: all of it is one message, and nobody answers questions."""

    def __init__(self, console: Console) -> None:
        self._text: str | None = console.stdin.read().strip() or None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to say."""
        return self._text is None

    def message(self) -> str | None:
        """See `Prompt`."""
        text, self._text = self._text, None
        return text

    def agrees(self, question: str) -> bool | None:
        """See `Prompt`."""
        return None
