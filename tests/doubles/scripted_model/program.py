"""Programs: what the stand-in says and calls in each round of a turn. Pure.

A program is the JSON after `plan:` in the last message of the user:

    {"rounds": [{"say": "TEXT", "calls": [{"name": "FUNCTION", "arguments": {...}}]}], "final": {"say": "TEXT"}}

A round may have `delay` (seconds before it is answered); so may `final`. A round can be written as the list of its
calls, `final` as its text, and `arguments` as text that is no JSON. `{0.1}` in a text or an argument stands for the
result of the second call of the first round.

In which round a turn is follows from the conversation, so the program is nowhere kept.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

_MARK = "plan:"
_RESULT = re.compile(r"\{(\d+)\.(\d+)\}")


class InvalidProgramError(ValueError):
    """The program is none; the message says why."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the answer asks for."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Step:
    """What is said and called in one round."""

    say: str
    calls: tuple[ToolCall, ...] = ()
    delay: float = 0


def step(text: str, rounds: list[list[str]]) -> Step | None:
    """What the program in a message wants after rounds with these results; None if it has no program.

    Raises `InvalidProgramError`.
    """
    if not text.startswith(_MARK):
        return None
    try:
        program = json.loads(text[len(_MARK) :])
        return _step(program if isinstance(program, dict) else {"rounds": program}, text, rounds)
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise InvalidProgramError(f"the program is not one: {type(problem).__name__}: {problem}") from None


def _step(program: dict[str, Any], text: str, rounds: list[list[str]]) -> Step:
    number = len(rounds)
    planned = program["rounds"]
    wanted = planned[number] if number < len(planned) else program.get("final", "Done.")
    if isinstance(wanted, list):
        wanted = {"calls": wanted}
    elif isinstance(wanted, str):
        wanted = {"say": wanted}
    return Step(
        say=_filled(wanted.get("say", ""), rounds),
        calls=tuple(_call(call, number, n, text, rounds) for n, call in enumerate(wanted.get("calls", ()))),
        delay=float(wanted.get("delay", 0)),
    )


def _call(call: dict[str, Any], number: int, n: int, text: str, rounds: list[list[str]]) -> ToolCall:
    given = _filled(call.get("arguments", {}), rounds)
    arguments = given if isinstance(given, str) else json.dumps(given)
    digest = hashlib.sha256(f"{text}\n{number}\n{n}".encode()).hexdigest()
    return ToolCall(f"call_{number}_{n}_{digest[:8]}", call["name"], arguments)


def _filled(value: Any, rounds: list[list[str]]) -> Any:
    """The value with results in the place of what stands for them."""
    match value:
        case str():
            return _RESULT.sub(lambda found: _result(found, rounds), value)
        case list():
            return [_filled(one, rounds) for one in value]
        case dict():
            return {key: _filled(one, rounds) for key, one in value.items()}
    return value


def _result(found: re.Match[str], rounds: list[list[str]]) -> str:
    number, n = int(found[1]), int(found[2])
    return rounds[number][n] if number < len(rounds) and n < len(rounds[number]) else found[0]
