"""Retention: what is due, and the sweeper that deletes it and proves that it is gone."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from tenure_api.configuration import EffectivePolicy
from tenure_sidecar.clock import Clock
from tenure_sidecar.errors import JournalError, VolumeFullError
from tenure_sidecar.journal.erasure import Erased
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.turn.transcript import RecordedTurn, Transcript

log = logging.getLogger(__name__)

_WITHOUT_POLICY_SECONDS = 3_600
"""How often the sweeper looks when nothing is to be deleted; a policy wakes it at once."""


def due(turns: Iterable[RecordedTurn], policy: EffectivePolicy | None, now: float) -> list[str]:
    """The turns that may not be kept any longer at `now` (seconds since the epoch), oldest first.

    Age counts from the beginning of a turn. A turn that has not ended is never due; it is judged when it has. Turns
    that failed are no part of the conversation and are counted apart, so that they do not push it out.
    """
    if policy is None:
        return []
    ended = [turn for turn in turns if turn.end is not None]
    surplus: set[str] = set()
    if policy.transcript_max_count is not None:
        for kind in (True, False):
            alike = [turn.turn for turn in ended if turn.completed is kind]
            surplus.update(alike[: max(0, len(alike) - policy.transcript_max_count)])
    max_age = policy.transcript_max_age_seconds
    return [
        turn.turn
        for turn in ended
        if turn.turn in surplus or (max_age is not None and turn.started_at + max_age <= now)
    ]


class Sweeper:
    """Deletes what is due: at start, every `interval_seconds`, and at once after a change of the policy."""

    def __init__(
        self,
        journal: Journal,
        transcript: Transcript,
        policy: Callable[[], EffectivePolicy | None],
        clock: Clock,
        metrics: Metrics,
        erase_files: Callable[[str], int] = lambda _: 0,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """`erase_files` deletes what the workspace keeps of the results of a turn; it blocks.

        `make_room` gives up a reserve, and says if there was one: to delete takes room at first.
        """
        self._make_room = make_room
        self._erase_files = erase_files
        self._journal = journal
        self._transcript = transcript
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._doomed: list[str] = []
        """Turns that are gone from memory but not yet, for all we know, from the disk."""
        self._traces_possible = True
        """Before the first sweep: the process before may have been killed between deleting and cleaning."""

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self.sweep()
            except JournalError:
                log.exception("retention could not be enforced; it is tried again at the next interval")
            policy = self._policy()
            try:
                async with asyncio.timeout(policy.interval_seconds if policy else _WITHOUT_POLICY_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def sweep(self) -> Erased | None:
        """Delete what is due now. None if there was nothing to do."""
        turns = due(self._transcript, self._policy(), self._clock.now())
        # Out of memory first: a turn that begins meanwhile must not show the model what is being deleted.
        self._transcript.drop(turns)
        self._doomed += turns
        if not self._doomed and not self._traces_possible:
            return None
        self._traces_possible = True
        for turn in self._doomed:
            await asyncio.to_thread(self._erase_files, turn)
        erased = await self._erase()
        turns, self._doomed = self._doomed, []
        self._traces_possible = erased.residue > 0
        self._metrics.swept(len(turns), erased)
        if turns:
            log.info("deleted %d turns (%d records) that were due", len(turns), erased.records)
        if erased.residue:
            log.error("%d places of the journal could not be cleaned; the next sweep tries again", erased.residue)
        return erased

    async def _erase(self) -> Erased:
        try:
            return await self._journal.erase(self._doomed)
        except VolumeFullError:
            if not self._make_room():
                raise
        return await self._journal.erase(self._doomed)
