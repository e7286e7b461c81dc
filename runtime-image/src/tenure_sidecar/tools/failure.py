"""Why a call of a tool gave no result, in terms of what may be done about it."""

from tenure_api.conditions import Reason
from tenure_sidecar.errors import SidecarError


class ToolFailedError(SidecarError):
    """A call gave no result, and trying again would not help. The message is for the model."""


class DownError(ToolFailedError):
    """The tool cannot be reached: the call surely took no effect."""


class ForgottenError(ToolFailedError):
    """The tool's server has forgotten the session, so it has not looked at the call."""


class BusyError(ToolFailedError):
    """The tool says that it cannot answer now. `pause` is for how many seconds, if it says that too."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class UnansweredError(ToolFailedError):
    """The call may have reached the tool, and its answer is not known."""


class SourceError(SidecarError):
    """A tool's functions cannot be found out. The message never holds a secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
