"""Errors of the operator.

    OperatorError
    ├── WaitingError          something outside is not as it must be; tried again later, without a traceback
    │   ├── UnavailableError  the API server or a sidecar does not answer, or not now
    │   ├── BusyError         the session is in use: it can neither sleep nor have its pod replaced
    │   ├── UnfitError        a session cannot be made from its source as its spec says
    │   ├── TakenError        the warm set is another session's
    │   ├── NoRoomError       a quota of the namespace leaves no room for what is to be made
    │   ├── ContendedError    someone undoes what we do, again and again
    │   ├── ConflictError     the object has changed since it was read
    │   ├── ExistsError       there is already an object of that name
    │   └── NotFoundError     there is no such object, or its namespace is going
    ├── RefusedError          the API server refuses what we say; tried again, ever more slowly
    └── LostLeaseError        another operator runs, or we cannot prove that none does

All other exceptions are bugs: logged with a traceback and counted.
"""


class OperatorError(Exception):
    """Base of the operator's own errors. Texts never hold a Secret's content."""


class WaitingError(OperatorError):
    """Something outside is not as it must be yet."""


class UnavailableError(WaitingError):
    """The API server or a sidecar does not answer, or not now."""


class BusyError(WaitingError):
    """The session is in use."""


class UnfitError(WaitingError):
    """A session cannot be made from its source as its spec says."""


class TakenError(WaitingError):
    """The warm set is another session's."""


class NoRoomError(WaitingError):
    """A quota of the namespace leaves no room for what is to be made. Nothing was made."""


class ContendedError(WaitingError):
    """Someone undoes what we do, again and again."""


class ConflictError(WaitingError):
    """The object has changed since it was read."""


class ExistsError(WaitingError):
    """There is already an object of that name."""


class NotFoundError(WaitingError):
    """There is no such object, or its namespace is gone or going."""


class RefusedError(OperatorError):
    """The API server refuses the request for what it says."""


class LostLeaseError(OperatorError):
    """This process must not write any more."""
