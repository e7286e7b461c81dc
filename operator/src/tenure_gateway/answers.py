"""Answers with a turn: whole, as a stream, or as soon as it is recorded."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

from starlette.responses import Response

from tenure_api.wire import Turn, TurnStatus
from tenure_gateway.events import Event
from tenure_gateway.faults import Fault
from tenure_gateway.front import EventStream
from tenure_gateway.openai.errors import ApiError, from_fault, turn_failed
from tenure_gateway.places import Place
from tenure_gateway.sessions import Sessions
from tenure_gateway.sidecar import Ask
from tenure_gateway.turns import Step, Turns


class Writer(Protocol):
    """Writes a turn as it comes."""

    def again(self) -> None:
        """The events of the turn come from the beginning again: what was written is not to be written again."""

    def write(self, events: Iterable[Event]) -> bytes:
        """What these events add."""

    def end(self, turn: Turn) -> bytes:
        """The turn has ended, or waits for approvals."""

    def error(self, error: ApiError) -> bytes:
        """The stream cannot go on."""


class Answers:
    """Answers to requests for turns."""

    def __init__(self, sessions: Sessions, turns: Turns) -> None:
        self._sessions = sessions
        self._turns = turns

    async def whole(self, place: Place, ask: Ask) -> Turn:
        """The turn, when it has ended or waits for approvals. Raises `ApiError` if it failed, or a `Fault`.

        A session made for it whose id the client will not learn is deleted.
        """
        known = False
        try:
            async with aclosing(self._follow(place, ask)) as steps:
                turn = [step.turn async for step in steps if step.turn is not None][-1]
            if turn.status is TurnStatus.FAILED:
                raise turn_failed(turn)
            known = place.kept or _waits(turn)
            return turn
        finally:
            if place.fresh and not known:
                self._sessions.discard(place.session)

    async def begun(self, place: Place, ask: Ask) -> Turn:
        """The turn, as soon as it is recorded. Raises a `Fault`."""
        try:
            async with aclosing(self._follow(place, ask)) as steps:
                first = await anext(steps)
        except BaseException:
            if place.fresh:
                self._sessions.discard(place.session)
            raise
        return next(event.turn for event in reversed(first.events) if event.turn is not None)

    async def stream(self, place: Place, ask: Ask, writer: Writer) -> Response:
        """The turn as a stream, once it is recorded: what is refused before that is an answer of its own."""
        steps = self._follow(place, ask)
        try:
            first = await anext(steps)
        except BaseException:
            if place.fresh:
                self._sessions.discard(place.session)
            raise
        waits = False

        async def written() -> AsyncGenerator[bytes, None]:
            nonlocal waits
            async with aclosing(steps):
                try:
                    yield _written(first, writer)
                    async for step in steps:
                        waits = step.turn is not None and _waits(step.turn)
                        yield _written(step, writer)
                except Fault as fault:
                    yield writer.error(from_fault(fault))

        def closed() -> None:
            if place.fresh and not place.kept and not waits:
                self._sessions.discard(place.session)

        return EventStream(written(), closed)

    def _follow(self, place: Place, ask: Ask) -> AsyncGenerator[Step, None]:
        return self._turns.follow(place.session.key, place.asker, ask)


def _written(step: Step, writer: Writer) -> bytes:
    if step.again:
        writer.again()
    data = writer.write(step.events)
    return data if step.turn is None else data + writer.end(step.turn)


def _waits(turn: Turn) -> bool:
    """Whether somebody is to decide on a call: then its session must live on."""
    return turn.status is TurnStatus.AWAITING_APPROVAL
