"""Runs one command, and turns whatever happens into an exit code and a message."""

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from tenure_cli.console import Console
from tenure_cli.errors import CliError
from tenure_cli.options import parser
from tenure_cli.reach import Reach

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main() -> None:
    """`kubectl tenure`."""
    # Who ends us by a signal wants the way to the gateway ended too.
    for name in ("SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, lambda got, _: sys.exit(128 + got))
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], console: Console | None = None, reach: Callable[..., Reach] = Reach) -> int:
    """Runs a command line and returns its exit code; usage errors and --help exit by themselves."""
    options = parser().parse_args(arguments)
    console = console or Console()
    console.as_json = options.output == "json"
    try:
        with reach(options, console) as world:
            _command(options)(world, options)
        return 0
    except CliError as error:
        console.note(f"error: {error}")
        return error.code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has seen enough. Python would complain once more when it flushes.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), console.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - nobody is helped by a traceback that they did not ask for
        if os.environ.get("TENURE_DEBUG"):
            console.note(traceback.format_exc())
        console.note(
            f"error: this should not happen ({type(error).__name__}: {error}). Set TENURE_DEBUG=1 for a traceback."
        )
        return 1


def _command(options: argparse.Namespace) -> Callable[[Reach, argparse.Namespace], None]:
    """What does it. Loaded only now: the clients that some need take longer than most commands."""
    match options.command:
        case "chat":
            from tenure_cli.chat import run as chosen
        case "history":
            from tenure_cli.history import run as chosen
        case "sessions":
            from tenure_cli.sessions import listing as chosen
        case "wake":
            from tenure_cli.sessions import wake as chosen
        case "sleep":
            from tenure_cli.sessions import sleep as chosen
        case "fork":
            from tenure_cli.sessions import fork as chosen
        case "export":
            from tenure_cli.bundles import export as chosen
        case "import":
            from tenure_cli.bundles import import_ as chosen
        case "verify":
            from tenure_cli.bundles import verify as chosen
        case _:
            from tenure_cli.why import run as chosen
    return chosen
