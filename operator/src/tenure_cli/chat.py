"""`chat`: a conversation on a terminal, or one turn of it in a pipe."""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from openai.types.responses import Response

from tenure_cli.choice import choose, waiting_turn
from tenure_cli.console import safe
from tenure_cli.errors import ApprovalNeededError, CliError, NotAllowedError, NotFoundError
from tenure_cli.gateway import Decision
from tenure_cli.names import Key
from tenure_cli.prompt import Pipe, Prompt, Terminal
from tenure_cli.reach import Reach
from tenure_cli.screen import Screen, described, message_text
from tenure_cli.turns import Run

_LAST = 2
"""Items of the transcript that are shown to remind of where the conversation stands."""

Json = dict[str, Any]


class Chat:
    """One conversation. `waiting` tells which turn of it waits for a person, as far as that is known."""

    def __init__(self, reach: Reach, session: Key, prompt: Prompt, waiting: Callable[[], str | None]) -> None:
        self._console = reach.console
        self._gateway = reach.gateway
        self._session = session
        self._prompt = prompt
        self._waiting = waiting
        self._screen = Screen(reach.console)

    def hold(self) -> None:
        """Until nothing more is said. Raises `CliError`; on a terminal one that may pass is only shown."""
        while True:
            try:
                text = self._prompt.message()
            except KeyboardInterrupt:
                continue
            if text is None:
                return
            if not text.strip():
                continue
            try:
                self._turn(text)
            except (NotAllowedError, NotFoundError):
                raise
            except CliError as error:
                if not self._console.interactive:
                    raise
                self._screen.finish()
                self._console.note(f"error: {error}")

    def resume(self) -> None:
        """Shows where a conversation stands, and goes on with the turn that waits in it."""
        recent = list(itertools.islice(self._gateway.items(self._session, newest_first=True), _LAST))
        for item in reversed(recent):
            if item["type"] == "message":
                self._console.line(self._console.dim(safe(f"{item['role']}: {message_text(item)}")))
        self._take_up()

    def _turn(self, text: str) -> None:
        run = Run(self._gateway, self._screen)
        say = self._gateway.say(self._session, text)
        try:
            self._watched(run, lambda: run.follow(say))
        except ApprovalNeededError:
            if run.response is not None or not self._console.interactive or not self._take_up():
                raise
            self._turn(text)

    def _take_up(self) -> bool:
        """Goes on with the turn that waits for a person, if there is one that is known."""
        turn = self._waiting()
        response = None if turn is None else self._gateway.response(self._session, turn)
        if response is None or not _waits(response):
            return False
        self._console.note("A turn waits for you:")
        run = Run(self._gateway, self._screen)
        self._watched(run, lambda: run.take_up(response))
        return True

    def _watched(self, run: Run, go: Callable[[], Response]) -> None:
        try:
            response = go()
            while _waits(response):
                response = self._decide(run, response)
        except KeyboardInterrupt:
            self._cancel(run)
            return
        self._screen.finish()
        self._end(response)

    def _cancel(self, run: Run) -> None:
        self._screen.finish()
        if run.response is None:
            self._console.note("Given up before the turn had begun. If it begins all the same, `history` will show it.")
        else:
            self._gateway.cancel(run.response)
            self._console.note("Cancelled.")
        if not self._console.interactive:
            raise KeyboardInterrupt

    def _end(self, response: Response) -> None:
        if self._console.as_json:
            self._console.result(document(self._session, response), "")
        if response.status == "failed":
            raise CliError(f"The turn failed: {response.error.message if response.error else 'for a reason unknown'}")
        if response.status == "cancelled":
            self._console.note("The turn was cancelled.")
        elif response.incomplete_details and response.incomplete_details.reason == "max_output_tokens":
            self._console.note("The answer was cut at the token limit.")

    def _decide(self, run: Run, response: Response) -> Response:
        self._screen.finish()
        decisions = []
        for waiting in pending(response):
            shown = safe(described(waiting["server_label"], waiting["name"], waiting["arguments"], whole=True))
            answer = self._prompt.agrees(f"The agent wants to call {shown}\nApprove?")
            if answer is None:
                if self._console.as_json:
                    self._console.result(document(self._session, response), "")
                raise ApprovalNeededError(
                    f"The turn waits for approval of {shown}, for as long as it takes. To decide, chat on a terminal: "
                    f"kubectl tenure chat {response.model} --session {self._session}"
                )
            decisions.append(Decision(waiting["id"], answer))
        return run.decide(decisions)


def run(reach: Reach, options: argparse.Namespace) -> None:
    """`chat AGENT`."""
    prompt: Prompt = Terminal() if reach.console.interactive else Pipe(reach.console)
    if isinstance(prompt, Pipe) and prompt.empty:
        raise CliError("There is nothing to say: standard input is empty.")
    agent = reach.key(options.agent)
    session, known = choose(reach, agent, options)
    chat = Chat(reach, session, prompt, lambda: waiting_turn(reach, session))
    if reach.console.interactive:
        reach.console.note(f"Session {session}. Ctrl-D ends the conversation, Ctrl-C the turn, Alt-Enter makes a line.")
        if known:
            chat.resume()
    chat.hold()


def _waits(response: Response) -> bool:
    details: Any = response.incomplete_details
    return details is not None and details.reason == "approval_required"


def pending(response: Response) -> list[Json]:
    """The requests for approval that nobody has decided on."""
    output = [item.to_dict() for item in response.output]
    decided = {item.get("approval_request_id") for item in output if item["type"] == "mcp_call"}
    return [item for item in output if item["type"] == "mcp_approval_request" and item["id"] not in decided]


def document(session: Key, response: Response) -> Json:
    """What is told of a turn in JSON."""
    output = [item.to_dict() for item in response.output]
    return {
        "session": str(session),
        "response": response.id,
        "status": response.status,
        "text": "\n\n".join(message_text(item) for item in output if item["type"] == "message"),
        "calls": [item for item in output if item["type"] == "mcp_call"],
        "approvals": pending(response) if _waits(response) else [],
        "error": response.error.message if response.error else None,
    }
