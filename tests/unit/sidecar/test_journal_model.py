"""The journal against a simple model of it: appends, repetitions, deletions, restarts and kills in any order."""

import asyncio
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenure_sidecar.journal.store import Journal, Record
from unit.sidecar.support import HandClock, files_of, open_journal

turns = st.sampled_from([f"{n:032x}" for n in range(6)])
steps = st.integers(0, 3)
kinds = st.sampled_from(["turn.start", "model.result", "turn.end"])
sizes = st.sampled_from([0, 30, 700, 3900, 9000])


class JournalMachine(RuleBasedStateMachine):
    """What a user of the journal may do, and what must hold after each act."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.clock = HandClock()
        self.model: dict[tuple[str, int, str], Record] = {}
        self.highest = 0
        self.gone: list[bytes] = []
        self.directory = self.root / "0"
        self.directory.mkdir()
        self.journal: Journal = open_journal(self.directory, clock=self.clock)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.journal.close())
        self.loop.close()
        shutil.rmtree(self.root)

    def append(self, turn: str, step: int, kind: str, payload: bytes) -> None:
        async def appended() -> Record:
            return await self.journal.append(turn, step, kind, payload)

        record = self.loop.run_until_complete(appended())
        known = self.model.get((turn, step, kind))
        if known is not None:
            assert record == known
            return
        assert record.sequence == self.highest + 1
        assert record.payload == payload
        self.highest = record.sequence
        self.model[turn, step, kind] = record

    @rule(turn=turns, step=steps, kind=kinds, size=sizes)
    def one(self, turn: str, step: int, kind: str, size: int) -> None:
        self.append(turn, step, kind, bytes([size % 251]) * size)

    @rule(seconds=st.integers(-1000, 1000))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(doomed=st.lists(turns, min_size=1, max_size=4, unique=True))
    def erase(self, doomed: list[str]) -> None:
        marks = ",".join("?" * len(doomed))
        found = self.journal._db.execute(f"SELECT sealed FROM record WHERE turn IN ({marks})", doomed)
        self.gone += [blob[start : start + 16] for (blob,) in found for start in range(0, len(blob) - 16, 64)]
        erased = self.loop.run_until_complete(self.journal.erase(doomed))
        before = len(self.model)
        self.model = {key: record for key, record in self.model.items() if record.turn not in doomed}
        assert (erased.records, erased.residue) == (before - len(self.model), 0)

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.journal.close())
        self.journal = open_journal(self.directory, clock=self.clock)

    @rule()
    def kill(self) -> None:
        """The files as they are at this moment are all that the next process has."""
        self.lives += 1
        after = self.root / str(self.lives)
        after.mkdir()
        for name, content in files_of(self.directory).items():
            (after / name).write_bytes(content)
        self.loop.run_until_complete(self.journal.close())
        self.directory, self.journal = after, open_journal(after, clock=self.clock)

    @invariant()
    def the_journal_holds_what_the_model_holds(self) -> None:
        records = list(self.journal.records())
        assert records == sorted(self.model.values())
        assert all(later.at >= earlier.at for earlier, later in pairwise(records))
        assert self.journal.sequence == self.highest

    @precondition(lambda self: self.gone)
    @invariant()
    def nothing_is_left_of_what_was_deleted(self) -> None:
        raw = b"".join(files_of(self.directory).values())
        assert not [piece for piece in self.gone if piece in raw]


JournalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJournal = JournalMachine.TestCase
