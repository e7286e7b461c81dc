"""The command line."""

import argparse

EXIT_CODES = """\
exit codes: 0 done; 1 failed or refused; 2 usage; 3 no such agent, session or file; 4 not allowed; 5 not now, try again;
6 the turn waits for an approval (chat without a terminal); 130 interrupted
"""
_NAME = "NAME or NAMESPACE/NAME"


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="kubectl tenure",
        description="Converse with agents, and put their sessions to sleep, wake, fork and carry them.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    _common(top, top_level=True)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=about, description=f"{about[0].upper()}{about[1:]}. {more}".strip(), allow_abbrev=False
        )
        _common(added, top_level=False)
        return added

    chat = command(
        "chat",
        "converse with an agent",
        "Goes on in your latest session with the agent, if Kubernetes lets you list them, else begins one. On a "
        "terminal Ctrl-C cancels the turn, Ctrl-D ends the conversation, and Alt-Enter begins a new line; a pasted "
        "text is one message. In a pipe, all of standard input is one message, and only the answer goes to "
        "standard output.",
    )
    chat.add_argument("agent", metavar="AGENT", help=_NAME)
    chat.add_argument("--session", metavar="NAME", help="converse in this session")
    chat.add_argument("--new", action="store_true", help="begin a new session, with the name of --session if given")

    sessions = command("sessions", "list sessions")
    sessions.add_argument("agent", metavar="AGENT", nargs="?", help=f"only of this agent: {_NAME}")
    sessions.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")

    _of_session(command("history", "show what was said in a session"))

    wake = command(
        "wake", "wake a session that sleeps", "It sleeps again when it is idle, unless its agent says that it does not."
    )
    _of_session(wake)
    wake.add_argument("--keep", action="store_true", help="undo `sleep`: any use wakes it from now on")

    _of_session(
        command(
            "sleep", "put a session to sleep", "It sleeps as soon as it is idle; from then on only `wake` wakes it."
        )
    )

    fork = command(
        "fork",
        "begin a session with the history of another",
        "The new one has the same agent and subject, and the files as they are now.",
    )
    _of_session(fork)
    fork.add_argument(
        "--at", metavar="N", type=_sequence, help="only turns that had ended by this record of the journal"
    )
    fork.add_argument("--name", help="name of the new session")

    export = command(
        "export",
        "write a session into a file",
        "Conversation and files are sealed in it with a new key, which is written to FILE.key: keep the two apart. "
        "With --plain they are not.",
    )
    _of_session(export)
    export.add_argument("-o", "--out", metavar="FILE", required=True, help="where to")
    export.add_argument(
        "--at", metavar="N", type=_sequence, help="only turns that had ended by this record of the journal"
    )
    export.add_argument("--plain", action="store_true", help="do not seal it")
    export.add_argument("--force", action="store_true", help="replace files that are there")

    import_ = command("import", "make a session from a file of `export`", "It is yours, whoever had it before.")
    import_.add_argument("file", metavar="FILE")
    import_.add_argument("--agent", required=True, help=f"the agent that it goes on with: {_NAME}")
    import_.add_argument("--name", help="name of the new session; that of the exported one if left out")
    import_.add_argument("--key", metavar="FILE", help="where the key is; FILE.key if left out")

    _of_session(command("why", "say what state a session is in, since when, why, and what to do"))

    verify = command(
        "verify", "check a file of `export`", "Checks the digest of everything in it, and by whom it is signed."
    )
    verify.add_argument("file", metavar="FILE")
    verify.add_argument("--public-key", metavar="FILE", help="it must be signed with one of the keys in this PEM file")
    return top


def _of_session(command: argparse.ArgumentParser) -> None:
    command.add_argument("session", metavar="SESSION", help=_NAME)


def _common(command: argparse.ArgumentParser, top_level: bool) -> None:
    """Options of all commands. They may stand before the command or after it, where they win."""

    def default(value: str | None) -> str | None:
        return value if top_level else argparse.SUPPRESS

    group = command.add_argument_group("options of all commands")
    group.add_argument("-n", "--namespace", default=default(None), help="namespace of names that say none")
    group.add_argument("--context", default=default(None), help="context of the kubeconfig")
    group.add_argument("--kubeconfig", metavar="FILE", default=default(None), help="the kubeconfig")
    group.add_argument(
        "--output", choices=("text", "json"), default=default("text"), help="how results are shown; stable is json"
    )
    group.add_argument(
        "--gateway",
        metavar="URL",
        default=default(None),
        help="URL of the gateway, or NAMESPACE/NAME of its Service (also TENURE_GATEWAY); found if left out",
    )
    group.add_argument(
        "--token",
        default=default(None),
        help="token for the gateway (also TENURE_TOKEN, which other users of the machine do not see)",
    )
    group.add_argument(
        "--as-serviceaccount",
        metavar="NAME",
        default=default(None),
        help=f"call the gateway as this ServiceAccount: {_NAME}",
    )
    group.add_argument(
        "--audience", default=default("tenure"), help="audience that the gateway wants of tokens (default: tenure)"
    )


def _sequence(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number
