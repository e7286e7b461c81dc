"""Follows a turn to where it ends or waits for a person, over all breaks of the way to the gateway."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent

from tenure_cli.errors import GatewayLostError, NotNowError
from tenure_cli.gateway import Decision, Events, Gateway, fault

_TRIES = 6
"""How often in a row the way is made anew before we give up; with the waits between them, for about a minute."""
_LONGEST_WAIT = 20.0
_GAVE_UP_WAITING = ("session_not_ready", "service_unavailable", "turn_timeout")
"""Codes of errors in a stream after which the turn goes on."""


class View(Protocol):
    """Where a turn is shown."""

    def text(self, delta: str) -> None:
        """More text of a message."""

    def message(self, text: str) -> None:
        """A message is complete."""

    def void(self) -> None:
        """What was shown of the message counts no more: the model is asked again."""

    def call(self, item: dict[str, Any]) -> None:
        """A call of a tool is settled; an item `mcp_call`."""

    def broken(self, why: str) -> None:
        """The way to the gateway broke; it is tried again."""


@dataclass
class Run:
    """One turn of one session. `response` is known as soon as the turn is recorded, and is what `cancel` takes."""

    gateway: Gateway
    view: View
    sleep: Callable[[float], None] = time.sleep
    response: str | None = None
    _last: int | None = field(default=None, init=False)

    def follow(self, ask: Callable[[], Events]) -> Response:
        """To its end, or to where it waits for a person. Raises `CliError`.

        `ask` is called again after a break, until something new has come; then the turn is followed by its id.
        """
        failures = 0
        begun = self._last
        while True:
            seen = self._last
            try:
                return self._read(ask())
            except GatewayLostError as lost:
                failures = 1 if self._last != seen else failures + 1
                if failures > _TRIES:
                    raise
                self.view.broken(str(lost))
                self.sleep(min(2.0 ** (failures - 1), _LONGEST_WAIT))
                self._renew()
            if self.response is not None and self._last != begun:
                ask = self._rest

    def _rest(self) -> Events:
        assert self.response is not None  # noqa: S101 - asked for only when it is known
        return self.gateway.follow(self.response, self._last)

    def take_up(self, response: Response) -> Response:
        """Shows a turn that was begun before from its beginning, and follows it."""
        self.response = response.id
        return self.follow(lambda: self.gateway.follow(response.id))

    def decide(self, decisions: list[Decision]) -> Response:
        """Lets the turn go on with what a person has decided."""
        assert self.response is not None  # noqa: S101 - a turn that waits is known
        known = self.response
        # After a break the decision may have been taken or not: the same one again changes nothing.
        return self.follow(lambda: self.gateway.decide(known, decisions))

    def _renew(self) -> None:
        try:
            self.gateway.renew()
        except NotNowError as error:
            self.view.broken(str(error))

    def _read(self, events: Events) -> Response:
        """Reads events to where the turn ends or waits. Raises `GatewayLostError` if they break off before."""
        for event in events:
            if event.type == "error":
                error = fault(503, event.code, event.message)
                if event.code in _GAVE_UP_WAITING:
                    raise GatewayLostError(str(error))
                raise error
            if self._last is not None and event.sequence_number <= self._last:
                continue
            self._last = event.sequence_number
            found = self._one(event)
            if found is not None:
                return found
        raise GatewayLostError("The stream ended before the turn did.")

    def _one(self, event: ResponseStreamEvent) -> Response | None:
        match event.type:
            case "response.created":
                self.response = event.response.id
            case "response.output_text.delta":
                self.view.text(event.delta)
            case "response.output_item.done":
                self._item(event.item)
            case "response.completed" | "response.failed" | "response.incomplete":
                return event.response
        return None

    def _item(self, item: ResponseOutputItem) -> None:
        if item.type == "mcp_call":
            self.view.call(item.to_dict())
        elif item.type == "message":
            text = "".join(part.text for part in item.content if part.type == "output_text")
            # A message that was given up is closed without its text; one that was cut has it.
            if item.status == "incomplete" and not text:
                self.view.void()
            else:
                self.view.message(text)
