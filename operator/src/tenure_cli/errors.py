"""What can go wrong, in terms of what a person can do about it.

The exit code is part of the contract:

| code | when |
|---|---|
| 0 | it is done |
| 1 | it failed or was refused: the message says by whom and why |
| 2 | the command line makes no sense |
| 3 | there is no such agent, session or file, or not for this caller |
| 4 | this caller may not do that, or has no credential that the gateway takes |
| 5 | not now: the API server, the gateway or the session cannot be reached; the same again may succeed |
| 6 | `chat` without a terminal: the turn waits for an approval that nobody is there to give |
| 130 | interrupted by Ctrl-C |
"""


class CliError(Exception):
    """Ends the command with a message for a person, and an exit code for a program."""

    code = 1


class NotFoundError(CliError):
    """There is no such thing, or not for this caller."""

    code = 3


class NotAllowedError(CliError):
    """This caller may not do that."""

    code = 4


class NotNowError(CliError):
    """Something cannot be reached; the same again may succeed."""

    code = 5


class ApprovalNeededError(CliError):
    """A turn waits for a person's approval, and nobody can be asked."""

    code = 6


class AlreadyExistsError(CliError):
    """There is something of this name already."""


class GatewayLostError(NotNowError):
    """The way to the gateway broke; what was begun there may go on."""
