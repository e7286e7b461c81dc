"""One call, made as often as its replay class allows."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from tenure_api.tools import Replay
from tenure_sidecar.http_client import Once
from tenure_sidecar.tools.failure import BusyError, ToolFailedError, UnansweredError
from tenure_sidecar.tools.tool import Attempt, Outcome

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_MOST_ATTEMPTS = 8

UNKNOWN = (
    "{what}. The outcome is unknown: the call may or may not have taken effect. It was not made again. Before calling "
    "it once more, find out in another way whether it took effect, or ask the user."
)
"""What the model is told of a call of which nobody knows whether it took effect."""


def unknown(what: str) -> Outcome:
    """The outcome of a call of which nobody knows whether it took effect. `what` is a sentence without its stop."""
    return Outcome(UNKNOWN.format(what=what.rstrip(".")), is_error=True, unknown=True)


async def settled(
    replay: Replay, attempt: Attempt, seconds: float, call: Callable[[Once], Awaitable[Outcome]]
) -> Outcome:
    """Call within a time, again after failures that allow it.

    A call that may have reached the tool is made again unless its class is `Never`. If in the end no answer is known,
    the outcome is unknown, except for a class of calls that change nothing. Each call is given a `Once` of its own, in
    which it says whether it may have reached the tool, for the case that the time is up.
    """
    reached = attempt.again
    once = Once()
    failure: ToolFailedError | None = None
    try:
        async with asyncio.timeout(seconds):
            for pause in _pauses():
                once = Once()
                try:
                    return await call(once)
                except UnansweredError as error:
                    failure, reached = error, True
                except BusyError as error:
                    failure, pause = error, max(pause, error.pause or 0.0)
                except ToolFailedError as error:
                    failure = error
                    break
                if replay is Replay.NEVER:
                    break
                once.sent = False
                await asyncio.sleep(pause)
    except TimeoutError:
        if once.sent or failure is None:
            reached = reached or once.sent
            failure = ToolFailedError(f"The tool gave no answer within {seconds:g} s.")
    if reached and replay is not Replay.SAFE:
        return unknown(str(failure))
    return Outcome(str(failure), is_error=True)


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    for _ in range(_MOST_ATTEMPTS):
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
