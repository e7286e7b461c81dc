"""A session of a host while it is open."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from tenure_api.configuration import EffectivePolicy, SessionConfig
from tenure_sidecar.activity import Activity
from tenure_sidecar.bundle.writer import About, Writer
from tenure_sidecar.clock import SteadyClock
from tenure_sidecar.errors import RefusedError
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.opened import read
from tenure_sidecar.retention import Sweeper
from tenure_sidecar.settings import AGENT_GROUP
from tenure_sidecar.shared.aside import Aside
from tenure_sidecar.shared.places import Place
from tenure_sidecar.shared.summary import Summary, summary_of
from tenure_sidecar.tools.results import fitting
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.turn.engine import Surroundings, Turns
from tenure_sidecar.turn.runtime_client import Answered, RuntimeClient
from tenure_sidecar.turn.workflow import Pace, Underway
from tenure_sidecar.workspace.door import receiving
from tenure_sidecar.workspace.files import Files

_RETRY_WRITE_SECONDS = 1.0


class Runs:
    """The runs of the agent that go on now, by the names that only the agent was told."""

    def __init__(self) -> None:
        self._by_name: dict[str, Callable[[], Underway | None]] = {}

    def find(self, name: str) -> Underway | None:
        """What the agent may ask for in this run."""
        found = self._by_name.get(name)
        return found() if found is not None else None

    @contextlib.contextmanager
    def named(self, underway: Callable[[], Underway | None]) -> Iterator[str]:
        """A name for a run, as long as it goes on."""
        name = secrets.token_urlsafe(24)
        self._by_name[name] = underway
        try:
            yield name
        finally:
            del self._by_name[name]


@dataclass(frozen=True)
class Means:
    """What all sessions of a host work with."""

    config: Callable[[], SessionConfig | None]
    runtime: RuntimeClient
    runs: Runs
    toolbox: Toolbox
    activity: Activity
    lease: Lease
    clock: SteadyClock
    metrics: Metrics
    make_room: Callable[[], bool]
    """Gives up the reserve of the volume, and says if there was one."""
    has_room: Callable[[], Awaitable[bool]]
    """Whether the volume has room for what is about to begin."""
    aside: Aside
    pace: Pace

    def policy(self) -> EffectivePolicy | None:
        """The policy in force."""
        config = self.config()
        return config.policy if config is not None else None


class _Agent:
    """The agent container as one session sees it: every run has a name."""

    def __init__(self, means: Means, underway: Callable[[], Underway | None]) -> None:
        self._means = means
        self._underway = underway

    async def reach(self) -> None:
        """See `RuntimeClient.reach`."""
        await self._means.runtime.reach()

    async def run(self, body: bytes, on_text: Callable[[str], None]) -> Answered:
        """See `RuntimeClient.run`."""
        with self._means.runs.named(self._underway) as name:
            return await self._means.runtime.run(body, on_text, name)


class Work:
    """An open session: its journal, turns and files."""

    def __init__(self, place: Place, name: str, means: Means, unclean: bool) -> None:
        """Open and read the journal; blocks. Raises `JournalError`. Then it must be started.

        `name` is `namespace/name`. `unclean`: traces of what was deleted may be left.
        """
        self._place = place
        self._name = name
        self._means = means
        self.unclean = unclean
        """Whether traces of what was deleted may be left."""
        self.activity = means.activity
        """What happens in the pod."""
        self.files = Files(place.workspace, AGENT_GROUP)
        self.journal = Journal(place.state, place.sealer, place.uid, means.clock, means.lease)
        try:
            opened = read(self.journal)
        except BaseException:
            self.journal.abandon()
            raise
        self.transcript = opened.transcript
        """What was said."""
        self._unended = opened.unended

    def start(self) -> None:
        """Take up what was left open, in the event loop."""
        means = self._means
        means.clock.not_before(self.journal.last_at / 1e6)
        pen = Pen(self.journal, _RETRY_WRITE_SECONDS, means.make_room, means.activity.happened)
        self._turns = Turns(pen, self.transcript, self._around(), self._unended)
        self._sweeper = Sweeper(
            self.journal, self.transcript, means.policy, means.clock, means.metrics, self.files.erase_turn
        )

    @property
    def turns(self) -> Turns:
        """The turn engine. Raises `RefusedError` without configuration."""
        if self._means.config() is None:
            raise RefusedError(503, "not_configured", "the session has no configuration yet")
        return self._turns

    @property
    def active(self) -> str | None:
        """The turn that is running."""
        return self._turns.active

    def admit(self) -> None:
        """The workspace is about to be changed. Raises `RefusedError` if it may not be."""
        self.activity.admit()

    @property
    def resting(self) -> bool:
        """Whether nothing goes on that must not be interrupted: a turn that waits for a person or a time may be."""
        return self._turns.resting

    def summary(self) -> Summary:
        """What must be known of it when it is closed."""
        return summary_of(self.journal.sequence, self.transcript, self._turns, self.unclean)

    def bundle(self, subject: str, key: bytes | None) -> Writer:
        """Writes the session as a bundle."""
        config = self._means.config()
        agent = config.agent if config is not None else ""
        return Writer(self.journal, self.files, About(self._name, agent, subject, []), key)

    async def sweep(self) -> None:
        """Delete what is due. Raises `JournalError`."""
        self.unclean = True
        erased = await self._sweeper.sweep()
        self.unclean = erased is not None and erased.residue > 0

    async def run(self) -> None:
        """Work until cancelled, or until the journal breaks: raises `JournalError` then."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._turns.run())
            group.create_task(self.journal.until_broken())

    async def wind_up(self, seconds: float) -> None:
        """Take no more turns, and give the running one this long."""
        await self._turns.close(seconds)

    def _around(self) -> Surroundings:
        means = self._means
        return Surroundings(
            identity=self._place.uid,
            runtime=_Agent(means, lambda: self._turns.running),
            config=means.config,
            toolbox=means.toolbox,
            fit=fitting(self.files),
            receive=receiving(self.files, means.has_room),
            clock=means.clock,
            metrics=means.metrics,
            pace=means.pace,
            admit=means.activity.admit,
        )
