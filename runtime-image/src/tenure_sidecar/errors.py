"""What can go wrong and is no bug.

    SidecarError
    ├── RefusedError            a caller asked for what cannot be; becomes a `wire.Failure`
    ├── BrokenOffError          a bundle cannot be completed, for what is in it has changed meanwhile
    ├── JournalError            the journal cannot be used now
    │   ├── LockedError         another process has it open
    │   ├── SupersededError     a later run of the session has it
    │   ├── AwaitingBundleError it is empty and is to begin with the state of another session
    │   ├── KeyMismatchError    the data key is missing or not the one that the journal was written with
    │   ├── VolumeFullError     there is no room to write; it can be read, and written again as soon as there is
    │   └── UnreadableError     the files are damaged, or the volume fails
    └── HttpError               a server that we call does not do its part
        ├── ConnectError        it cannot be reached
        ├── BrokenError         the connection ended in the middle
        └── GarbageError        what it sends is not what it should be

Everything else is a bug and leaves a traceback.
"""

from tenure_api.report import JournalState


class SidecarError(Exception):
    """Base of the errors above. The message is a sentence for people and never holds a secret."""


class RefusedError(SidecarError):
    """A request is refused. `status` is the HTTP status, `code` is for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class BrokenOffError(SidecarError):
    """What is packed is not what it was when its size was told: the bundle cannot be completed."""


class JournalError(SidecarError):
    """The journal cannot be used now."""

    state = JournalState.UNREADABLE


class LockedError(JournalError):
    """Another process has the journal open."""

    state = JournalState.LOCKED


class SupersededError(JournalError):
    """A later run of the session has the journal; this one must not write any more."""

    state = JournalState.SUPERSEDED

    def __init__(self, message: str, generation: int) -> None:
        """`generation` is that of the later run."""
        super().__init__(message)
        self.generation = generation


class AwaitingBundleError(JournalError):
    """The journal is empty, and begins with the state of another session, which has not come yet."""

    state = JournalState.AWAITING_BUNDLE


class KeyMismatchError(JournalError):
    """The data key is missing or another one."""

    state = JournalState.KEY_MISMATCH


class VolumeFullError(JournalError):
    """There is no room on the volume. Nothing is broken: what was to be written was not, and reading goes on."""

    def __init__(self) -> None:
        super().__init__("the volume of the session is full; delete files of its workspace, or have the volume grown")


class UnreadableError(JournalError):
    """The journal's files are damaged, or the volume fails."""


def unavailable(error: JournalError) -> RefusedError:
    """What it means to a caller that the journal cannot be used."""
    if isinstance(error, VolumeFullError):
        return RefusedError(507, "volume_full", str(error))
    return RefusedError(503, "journal_unavailable", str(error))


class HttpError(SidecarError):
    """A server that we call does not do its part."""


class ConnectError(HttpError):
    """It cannot be reached."""


class BrokenError(HttpError):
    """The connection ended before the answer did."""


class GarbageError(HttpError):
    """What it sends is not HTTP, not what the API says, or too much."""
