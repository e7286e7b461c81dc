"""What the stand-in is told to do: by the last user message, or by the name of the model. Pure."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from .program import ToolCall

_TAG = re.compile(r"(?<!\S)tag:(\S+)\s?")
_SLOW_SECONDS = 30.0
_FOREVER = 1e9


class Lie(StrEnum):
    """Answers with status 200 that are none."""

    GARBAGE = "garbage"
    WRONG_TYPE = "wrong-type"
    ENDLESS_LINE = "endless-line"


@dataclass(frozen=True)
class Script:
    """How one call is answered. Without a `text` the answer is drawn from the conversation."""

    text: str | None = None
    status: int = 200
    fail_key: str | None = None
    """Only the first `fail_times` calls with this key fail with `status`."""
    fail_times: int = 0
    before_seconds: float = 0
    word_seconds: float = 0
    pause_after: int | None = None
    pause_seconds: float = 0
    cut_after: int | None = None
    lie: Lie | None = None
    key: str | None = None
    """The bearer token that the call must present."""
    window: int | None = None
    """Most words that all messages together may have."""
    calls: tuple[ToolCall, ...] = ()
    """What the answer asks for."""
    holds: tuple[str, ...] = ()
    """The holds that it comes to, without their endings."""

    @property
    def waits(self) -> bool:
        """Whether time passes between words."""
        return bool(self.word_seconds or self.pause_seconds)


def tags(text: str) -> list[str]:
    """The names under which a call is counted."""
    return _TAG.findall(text) if "tag:" in text else []


def without_tags(text: str) -> str:
    """The text that is left when the tags are taken out."""
    return _TAG.sub("", text).strip() if "tag:" in text else text.strip()


def directed(text: str) -> Script:
    """The script that a user message (without tags) asks for; plain if it has no directive, or a malformed one."""
    word, _, rest = text.partition(":")
    word, rest = word.strip(), rest.strip()
    try:
        return _directed(word, rest, text)
    except ValueError:
        return Script()


def _directed(word: str, rest: str, text: str) -> Script:
    match word:
        case "say":
            return Script(text=rest)
        case "echo":
            return Script(text=text)
        case "words":
            return Script(text=" ".join(f"w{n}" for n in range(1, int(rest) + 1)))
        case "slow":
            milliseconds, said = _fields(rest, 2)
            return Script(text=said, word_seconds=_seconds(milliseconds) / 1000)
        case "stall":
            seconds, said = _fields(rest, 2)
            return Script(text=said, before_seconds=_seconds(seconds))
        case "stall-after":
            words, seconds, said = _fields(rest, 3)
            return Script(text=said, pause_after=int(words), pause_seconds=_seconds(seconds))
        case "error":
            return Script(status=_status(rest))
        case "error-times":
            key, times, status, said = _fields(rest, 4)
            return Script(text=said, status=_status(status), fail_key=key, fail_times=int(times))
        case "cut":
            words, said = _fields(rest, 2)
            return Script(text=said, cut_after=int(words))
        case "garbage" | "wrong-type" | "endless-line" if not rest:
            return Script(lie=Lie(word))
        case _:
            return Script()


def modelled(model: str, script: Script) -> Script:
    """The script with what the name of the model changes in it."""
    head, _, argument = model.rpartition("-")
    try:
        return _modelled(model, head, argument, script)
    except ValueError:
        return script


def _modelled(model: str, head: str, argument: str, script: Script) -> Script:
    match head:
        case "down":
            return replace(script, status=_status(argument), fail_key=None)
        case "cut":
            return replace(script, cut_after=int(argument))
        case "slow-first":
            return replace(script, before_seconds=_seconds(argument))
        case "small-window":
            return replace(script, window=int(argument))
    if model == "unauthorized":
        return replace(script, status=401, fail_key=None)
    if model == "slow-first":
        return replace(script, before_seconds=_SLOW_SECONDS)
    if model in set(Lie):
        return Script(lie=Lie(model))
    if model.startswith("needs-key-"):
        return replace(script, key=model.removeprefix("needs-key-"))
    return script


def _fields(rest: str, count: int) -> list[str]:
    fields = [field.strip() for field in rest.split(":", count - 1)]
    if len(fields) != count:
        raise ValueError(f"{count} fields are needed")
    return fields


def _status(text: str) -> int:
    status = int(text)
    if not 400 <= status <= 599:
        raise ValueError("an error status is needed")
    return status


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < _FOREVER:
        raise ValueError("a time is needed")
    return seconds
