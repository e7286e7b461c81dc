"""Which run of the agent a piece of work is for, where one sidecar has several sessions.

The sidecar names a run in a header of its request, and is told of it with every model and tool call. All of them are
made in the task that serves the request or in tasks of it, so a context variable carries the name.
"""

from contextvars import ContextVar

from tenure_api.wire import RUN_HEADER

_run: ContextVar[str] = ContextVar("run", default="")


def enter(name: str) -> None:
    """What this task does from now on is for this run; empty if the sidecar has not named it."""
    _run.set(name)


def headers() -> dict[str, str]:
    """What tells the sidecar of the run."""
    name = _run.get()
    return {RUN_HEADER: name} if name else {}
