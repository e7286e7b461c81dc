"""What can go wrong below the API, whatever the API looks like.

    Fault
    ├── ClusterUnavailable     the API server does not answer, or not as it should
    ├── ClusterRefused         the API server refuses an object: quota, admission
    ├── SessionGone            the session was deleted while it was needed
    ├── SessionStalled         the session needs somebody's help
    ├── NotReady               the session's pod did not answer within the time that a request is held
    ├── TurnRefused            the session's sidecar says no
    ├── TurnInterrupted        the pod broke after text of the answer had been passed on
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


class SessionGone(Fault):
    """The session was deleted while it was needed."""


class SessionStalled(Fault):
    """The session cannot go on by itself; the message is that of its condition `Stalled`."""


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
    """The pod broke, or began the answer again, after text had been passed on. The turn completes by itself."""


class TurnTimeout(Fault):
    """The turn takes longer than a request may. It completes by itself."""
