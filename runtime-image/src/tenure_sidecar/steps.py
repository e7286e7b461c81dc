"""The steps of a turn: its model calls, numbered in the order in which one run of the agent makes them.

A step that has a result is answered from the journal, so a run after a crash asks the model only for what is new. That
holds for an agent that is a function of its input; one that makes another request at the same step is told so.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tenure_api.wire import Usage
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.records import ModelIntent, ModelResult
from tenure_sidecar.journal.store import Journal


class Steps:
    """The steps of one run of a turn."""

    def __init__(self, journal: Journal, turn: str, oldest: int, results: dict[int, ModelResult]) -> None:
        """`results` are those of earlier runs, by step; it is brought forward here.

        `oldest` is the sequence of the oldest turn in the history of this run, 0 if there is none.
        """
        self._journal = journal
        self._turn = turn
        self._oldest = oldest
        self._results = results
        self._next = 0
        self._calls: set[asyncio.Task[object]] = set()
        self.abandoned = False
        self.diverged: str | None = None
        """Why the agent's requests cannot be matched with the recorded ones."""
        self.last: ModelResult | None = None
        """The result that was given to the agent last."""

    def next(self, digest: str) -> tuple[int, ModelResult | None]:
        """The number of a new call, and its result if it has one.

        Raises `RefusedError` if the recorded call was another one. Where retention has shortened the history between
        two runs, the request must differ and the recorded result still holds.
        """
        if self.diverged is not None:
            raise RefusedError(409, "determinism_error", self.diverged)
        step = self._next
        self._next += 1
        result = self._results.get(step)
        if result is not None:
            if result.digest != digest and result.oldest == self._oldest:
                self.diverged = f"model call {step} differs from the one recorded before the agent was restarted"
                raise RefusedError(409, "determinism_error", self.diverged)
            self.last = result
        return step, result

    async def intend(self, step: int, digest: str, cut_turns: int) -> None:
        """Record that the model is about to be called. Raises `JournalError`."""
        intent = ModelIntent(digest=digest, cut_turns=cut_turns)
        await self._journal.append(self._turn, step, ModelIntent.kind, intent.payload())

    async def settle(self, step: int, digest: str, cut_turns: int, answer: tuple[int, str, Usage]) -> None:
        """Record what came of it: status, body and usage. Raises `JournalError`."""
        status, body, usage = answer
        result = ModelResult(
            digest=digest, oldest=self._oldest, cut_turns=cut_turns, status=status, body=body, usage=usage
        )
        await self._journal.append(self._turn, step, ModelResult.kind, result.payload())
        self._results[step] = self.last = result

    @property
    def usage(self) -> Usage:
        """The tokens of all calls of the turn."""
        used = [result.usage for result in self._results.values()]
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in used),
            output_tokens=sum(usage.output_tokens for usage in used),
        )

    @property
    def cut_turns(self) -> int:
        """How many turns the agent left out of its last call."""
        return self.last.cut_turns if self.last is not None else 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """While a call is in progress: it ends with the run."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self._calls.add(task)
        try:
            yield
        finally:
            self._calls.discard(task)

    def abandon(self) -> None:
        """The run is over; nobody waits for its calls any more."""
        self.abandoned = True
        for call in self._calls:
            call.cancel()
