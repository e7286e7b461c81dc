"""The session: opens its journal, and keeps trying; then runs turns, retention and the probe of the model."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tenure_api.configuration import EffectivePolicy, SessionConfig
from tenure_api.report import DRAIN_SECONDS, Binding, JournalState, Report
from tenure_sidecar.activity import Activity
from tenure_sidecar.bundle.beginning import Beginning
from tenure_sidecar.bundle.staging import Staging
from tenure_sidecar.bundle.writer import About, Writer
from tenure_sidecar.clock import SteadyClock, moment
from tenure_sidecar.config import mounted, newer
from tenure_sidecar.errors import (
    AwaitingBundleError,
    ConnectError,
    JournalError,
    RefusedError,
    SupersededError,
    UnreadableError,
)
from tenure_sidecar.http_client import Client
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.records import Bound, ConfigAccepted, FunctionsSeen
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.opened import Opened, read
from tenure_sidecar.pod import Pod
from tenure_sidecar.retention import Sweeper
from tenure_sidecar.settings import AGENT_GROUP, Settings
from tenure_sidecar.tools.results import fitting
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.turn.engine import Surroundings, Turns
from tenure_sidecar.turn.transcript import Transcript
from tenure_sidecar.turn.workflow import Pace, Underway
from tenure_sidecar.volume import Gauge, data_key, prepare
from tenure_sidecar.workspace.door import receiving
from tenure_sidecar.workspace.files import Files

_RETRY_SECONDS = {
    JournalState.LOCKED: 0.2,
    JournalState.SUPERSEDED: 5.0,
    JournalState.KEY_MISMATCH: 1.0,
    JournalState.UNREADABLE: 5.0,
}
_FIRST_ATTEMPT_SECONDS = 5.0
_RETRY_WRITE_SECONDS = 1.0
_LOOK_SECONDS = 0.05

log = logging.getLogger(__name__)


@dataclass
class _Running:
    """The parts that work on an open journal."""

    journal: Journal
    pen: Pen
    transcript: Transcript
    turns: Turns
    sweeper: Sweeper


class Session:
    """One session."""

    def __init__(
        self, settings: Settings, clock: SteadyClock, metrics: Metrics, client: Client, toolbox: "ToolboxOf"
    ) -> None:
        """`toolbox` makes the tools for a session."""
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._config: SessionConfig | None = None
        pod = self.pod = Pod(settings, clock, metrics, client, lambda: self._config)
        self.credentials, self.health, self.pod_token = pod.credentials, pod.health, pod.token
        self.files = Files(settings.workspace, AGENT_GROUP)
        """The workspace."""
        self._toolbox = toolbox(self)
        self._functions: dict[str, str] = {}
        self._bound: Binding | None = None
        self.activity = Activity(clock.elapsed, lambda: self._running is not None and not self._running.turns.resting)
        """What happens in it."""
        staging = Staging(settings.state, settings.workspace, AGENT_GROUP)
        self.beginning = Beginning(settings.source, staging, clock)
        """What it begins with, if that is the state of another session."""
        self._gauge = Gauge(settings.data, clock.elapsed)
        self._running: _Running | None = None
        self._problem: JournalError | None = None
        self._tried = asyncio.Event()
        self._prepared = False
        self._closing = False

    # --- what others ask of it -----------------------------------------------------------------------------------

    @property
    def config(self) -> SessionConfig | None:
        """The configuration that holds."""
        return self._config

    @property
    def name(self) -> str:
        """`namespace/name`; empty before it is known, in a pod that was started ahead."""
        return self._bound.session if self._bound is not None else self._settings.session

    @property
    def underway(self) -> Underway | None:
        """The turn whose agent is running."""
        return self._running.turns.running if self._running is not None else None

    def remembered(self) -> dict[str, bytes]:
        """The functions of tools as they were last remembered, by tool."""
        return {tool: functions.encode() for tool, functions in self._functions.items()}

    async def remember(self, tool: str, functions: bytes) -> None:
        """Keep the functions of a tool, for a start at which it cannot be asked. Raises `JournalError`."""
        self._functions[tool] = functions.decode()
        await self._open().pen.replace(FunctionsSeen(functions=self._functions))

    @property
    def turns(self) -> Turns:
        """The turn engine. Raises `JournalError` without an open journal, `RefusedError` without configuration."""
        if self._config is None:
            raise RefusedError(503, "not_configured", "the session has no configuration yet")
        return self._open().turns

    @property
    def transcript(self) -> Transcript:
        """The transcript. Raises `JournalError` while the journal is not open."""
        return self._open().transcript

    @property
    def unhealthy(self) -> str | None:
        """Why the process cannot do its part, if it cannot; a journal that cannot be opened is no such reason."""
        return None if self._prepared else f"the volume is not ready: {self._problem or 'it is being looked at'}"

    @property
    def unready(self) -> str | None:
        """Why no turn can be taken, if none can."""
        if self._closing:
            return "the session is shutting down"
        if self._running is None:
            return str(self._problem or "the journal is being opened")
        if self._config is None:
            return "there is no configuration: the agent's ConfigMap is missing or not valid"
        return None

    async def report(self) -> Report:
        """As the operator is told. Waits for the first attempt to open the journal, so as not to tell half a truth."""
        try:
            async with asyncio.timeout(_FIRST_ATTEMPT_SECONDS):
                await self._tried.wait()
        except TimeoutError:
            pass
        config, running, problem = self._config, self._running, self._problem
        state = problem.state if problem is not None else JournalState.UNREADABLE
        common = {
            "identity": self._settings.identity,
            "generation": problem.generation if isinstance(problem, SupersededError) else self._settings.generation,
            "volume": await asyncio.to_thread(self._gauge.use),
            "config_digest": config.digest() if config is not None else None,
            "agent_generation": config.agent_generation if config is not None else None,
            "policy": config.policy if config is not None else None,
            "model": self.health.report(),
        }
        if running is None:
            return Report(journal=state, journal_message=str(problem or "the journal is being opened"), **common)
        last, begun = running.transcript.last_activity, self.beginning.begun
        return Report(
            journal=JournalState.OPEN,
            origin=begun.origin if begun is not None else None,
            bound=self._bound.uid if self._bound is not None else None,
            idle_seconds=self.activity.idle_seconds,
            draining=self.activity.draining,
            ready=await self._is_ready(),
            sequence=running.journal.sequence,
            turns=len(running.transcript),
            active_turn=running.turns.active,
            suspended=running.turns.suspension(),
            unknown=running.turns.unknown(),
            tools=self._toolbox.health(),
            last_activity=moment(last) if last is not None else None,
            **common,
        )

    async def _is_ready(self) -> bool:
        """Whether it takes turns and the agent container is there for them."""
        if self.unready is not None or self.activity.draining:
            return False
        try:
            await self.pod.runtime.reach()
        except ConnectError:
            return False
        return True

    async def configure(self, offered: SessionConfig) -> None:
        """Accept a configuration; it holds when it is on disk. Raises `JournalError`."""
        running = self._open()
        config = newer(self._config, offered)
        if config is None or config == self._config:
            return
        await running.pen.replace(ConfigAccepted(config=config))
        log.info("accepted generation %d of agent %s", config.agent_generation, config.agent)
        self._config = config
        running.sweeper.wake()
        self.pod.prober.wake()
        self._toolbox.wake()

    async def bind(self, binding: Binding) -> None:
        """Give it to a session, which holds when it is on disk. Raises `RefusedError` if another has it."""
        if self._bound is None:
            self.activity.admit()
            record = await self._open().journal.append("", 0, Bound.kind, Bound(binding=binding).payload())
            self._bound = Bound.model_validate_json(record.payload).binding  # of two at once, the first one
            self.activity.happened()
        if self._bound.uid != binding.uid:
            raise RefusedError(409, "already_bound", "the sidecar belongs to another session")

    def bundle(self, subject: str, key: bytes | None) -> Writer:
        """Writes the session as a bundle. Raises `JournalError` while the journal is not open."""
        begun, config = self.beginning.begun, self._config
        lineage = [] if begun is None else [*begun.lineage, begun.origin]
        agent = config.agent if config is not None else ""
        return Writer(self._open().journal, self.files, About(self.name, agent, subject, lineage), key)

    async def drain(self, idle_seconds: float) -> None:
        """Take nothing more for a while, and have little to do at the end. Raises `RefusedError` unless it is idle."""
        running = self._open()
        suspension = running.turns.suspension()
        until = suspension.until if suspension is not None else None
        if until is not None and until.timestamp() < self._clock.now() + DRAIN_SECONDS:
            raise RefusedError(409, "busy", "a turn that waits for a time is about to go on")
        self.activity.drain(idle_seconds)
        try:
            await running.journal.flush()
        except JournalError as error:
            log.warning("the journal could not be flushed: %s", error)

    def admit(self) -> None:
        """The workspace is about to be changed. Raises `RefusedError` or `JournalError` if it may not be."""
        if isinstance(self._problem, SupersededError):
            raise self._problem
        self.activity.admit()

    async def drained(self, seconds: float) -> None:
        """Wait until no turn runs or is queued, but no longer than this."""
        until = self._clock.elapsed() + seconds
        while self._running is not None and not self._running.turns.resting and not self._closing:
            if self._clock.elapsed() >= until:
                break
            await asyncio.sleep(_LOOK_SECONDS)

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open the journal as soon as it can be opened, then work.

        Raises `JournalError` if the journal breaks. The process then ends: a fresh start sees what is on the disk.
        """
        opened = await self._opened()
        self._clock.not_before(opened.journal.last_at / 1e6)
        pen = Pen(opened.journal, _RETRY_WRITE_SECONDS, self.pod.ballast.give_up, self.activity.happened)
        turns = Turns(pen, opened.transcript, self._surroundings(), opened.unended)
        sweeper = Sweeper(
            opened.journal,
            opened.transcript,
            self._policy,
            self._clock,
            self._metrics,
            self.files.erase_turn,
            self.pod.ballast.give_up,
        )
        self._functions, self._bound = opened.functions, opened.bound
        self._config = newer(opened.config, self._config)
        self._running = _Running(opened.journal, pen, opened.transcript, turns, sweeper)
        self._problem, self.pod.shrink = None, opened.journal.shrink
        self._metrics.journal(JournalState.OPEN)
        log.info("the journal is open at record %d", opened.journal.sequence)
        self._tried.set()
        self.beginning.go()
        if self._config is not None and self._config != opened.config:
            await self._keep(self._config, pen, opened.journal)
        await _together(
            turns.run(),
            sweeper.run(),
            self.pod.prober.run(),
            self._toolbox.run(),
            self.pod.keep_ballast(),
            opened.journal.until_broken(),
        )

    async def close(self, seconds: float) -> None:
        """Give the running turn this long to end, and close the journal."""
        self._closing = True
        if self._running is not None:
            await self._running.turns.close(seconds)

    async def release(self) -> None:
        """Close the journal, so that another process can open it."""
        if self._running is not None:
            await self._running.journal.close()

    async def _keep(self, config: SessionConfig, pen: Pen, journal: Journal) -> None:
        """Record the mounted configuration. It holds anyhow: a full volume must not keep the session from starting."""
        try:
            await pen.replace(ConfigAccepted(config=config))
        except JournalError:
            if journal.broken is not None:
                raise
            log.warning("the mounted configuration cannot be recorded yet")

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            identity=self._settings.identity,
            runtime=self.pod.runtime,
            config=lambda: self._config,
            toolbox=self._toolbox,
            fit=fitting(self.files),
            receive=receiving(self.files, self.pod.has_room),
            admit=self.activity.admit,
            clock=self._clock,
            metrics=self._metrics,
            pace=Pace(),
        )

    def _open(self) -> _Running:
        if self._running is None:
            raise self._problem or UnreadableError("the journal is being opened")
        return self._running

    def _policy(self) -> EffectivePolicy | None:
        return self._config.policy if self._config is not None else None

    async def _opened(self) -> Opened:
        """The journal, after as many attempts as it takes."""
        while True:
            self._config = self._config or mounted(self._settings.config)
            try:
                return await self._read(await asyncio.to_thread(self._attempt))
            except JournalError as error:
                self._tell(error)
                await asyncio.sleep(_RETRY_SECONDS[error.state])

    def _tell(self, problem: JournalError) -> None:
        if str(problem) != str(self._problem):
            log.warning("the journal cannot be used: %s", problem)
        self._problem = problem
        self._metrics.journal(problem.state)
        self._tried.set()

    async def _read(self, journal: Journal) -> Opened:
        """What an open journal holds, as soon as it holds what the session begins with. Raises `JournalError`."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.beginning.settle, journal)
                    return await asyncio.to_thread(read, journal)
                except AwaitingBundleError as awaiting:
                    self._tell(awaiting)
                    await _first(self.beginning.wait(journal), journal.until_broken())
        except BaseException:
            await asyncio.to_thread(journal.abandon)
            raise

    def _attempt(self) -> Journal:
        """Open the journal; blocks. Raises `JournalError`."""
        prepare(self._settings)
        self._prepared = True
        sealer = Sealer(data_key(self._settings.key), self._settings.identity)
        lease = Lease(self._settings.state, self._settings.generation)
        return Journal(self._settings.state, sealer, self._settings.identity, self._clock, lease)


ToolboxOf = Callable[[Session], Toolbox]


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run until one fails or all are cancelled."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


async def _first(work: Coroutine[Any, Any, None], failing: Coroutine[Any, Any, None]) -> None:
    """Do this, unless the other fails before."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(failing)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
