"""What can go wrong below the API, whatever the API looks like.

    Fault
    ├── ClusterUnavailable     the API server does not answer, or not as it should
    ├── ClusterRefused         the API server refuses an object: quota, admission
    │   ├── NameTaken          there is one of this name already
    │   └── Outdated           it has changed since it was read
    ├── KeyReused              an Idempotency-Key was used for something else before
    ├── SessionGone            the session was deleted while it was needed
    ├── SessionStalled         the session needs somebody's help
    ├── SessionAsleep          the session is kept asleep, and not for the caller to wake
    ├── NotReady               the session's pod did not answer within the time that a request is held
    ├── TurnRefused            the session's sidecar says no
    ├── TurnInterrupted        text of the answer that had been passed on became void
    └── TurnTimeout            the turn takes longer than a request may

Messages are for the caller.
"""

from dataclasses import dataclass


class Fault(Exception):  # noqa: N818 - the branches are named for what happened
    """Base of all."""


class ClusterUnavailable(Fault):
    """The API server does not answer, or not as it should. Nothing is known of what was asked."""


class ClusterRefused(Fault):
    """The API server refuses an object."""


class NameTaken(ClusterRefused):
    """There is an object of this name already."""


class Outdated(ClusterRefused):
    """The object has changed since it was read: look at it again."""


class KeyReused(Fault):
    """An Idempotency-Key was used for something else before."""


class SessionGone(Fault):
    """The session was deleted while it was needed."""


class SessionStalled(Fault):
    """The session cannot go on by itself; the message is that of its condition `Stalled`."""


class SessionAsleep(Fault):
    """The session is kept asleep, and the caller may not wake it; the message is its `namespace/name`."""


@dataclass(eq=False)
class NotReady(Fault):
    """The session's pod did not answer in time. `recorded`: the turn may be on disk, and then runs by itself."""

    message: str
    recorded: bool = False


@dataclass(eq=False)
class TurnRefused(Fault):
    """The session's sidecar refuses, with the status and the code of `wire.Failure`."""

    status: int
    code: str
    message: str


class TurnInterrupted(Fault):
    """Text that was passed on became void, and the API has no words for that. The turn completes by itself."""


class TurnTimeout(Fault):
    """The turn takes longer than a request may. It completes by itself."""
