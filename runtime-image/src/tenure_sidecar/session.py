"""The session: opens its journal, and keeps trying; then runs turns, retention and the probe of the model."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenure_api.configuration import EffectivePolicy, SessionConfig
from tenure_api.wire import JournalState, Report, TurnRequest
from tenure_sidecar.clock import SteadyClock, moment
from tenure_sidecar.config import mounted, newer
from tenure_sidecar.errors import JournalError, KeyMismatchError, RefusedError, UnreadableError
from tenure_sidecar.http_client import Client
from tenure_sidecar.journal.lease import Lease
from tenure_sidecar.journal.pen import Pen
from tenure_sidecar.journal.records import TURN_KINDS, ConfigAccepted, FunctionsSeen
from tenure_sidecar.journal.sealing import Sealer
from tenure_sidecar.journal.store import Journal
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.model_health import HealthOfModel, Prober
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.retention import Sweeper
from tenure_sidecar.settings import AGENT_GROUP, Settings
from tenure_sidecar.tools.results import shown
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.turn.engine import Surroundings, Turns
from tenure_sidecar.turn.runtime_client import RuntimeClient
from tenure_sidecar.turn.steps import Steps
from tenure_sidecar.turn.transcript import Transcript
from tenure_sidecar.turn.workflow import Open, Pace, Underway
from tenure_sidecar.workspace.ballast import Ballast
from tenure_sidecar.workspace.door import receive_files
from tenure_sidecar.workspace.files import Files

_RETRY_SECONDS = {
    JournalState.LOCKED: 0.2,
    JournalState.SUPERSEDED: 5.0,
    JournalState.KEY_MISMATCH: 1.0,
    JournalState.UNREADABLE: 5.0,
}
_FIRST_ATTEMPT_SECONDS = 5.0
_RETRY_WRITE_SECONDS = 1.0
_BALLAST_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass
class _Opened:
    """What was read from the journal."""

    journal: Journal
    transcript: Transcript
    config: SessionConfig | None
    functions: dict[str, str]
    unended: Open | None


@dataclass
class _Running:
    """The parts that work on an open journal."""

    journal: Journal
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
        self._credentials = Credentials(settings.credentials)
        self.files = Files(settings.workspace, AGENT_GROUP)
        """The workspace."""
        self._ballast = Ballast(settings.state)
        self._toolbox = toolbox(self)
        self._functions: dict[str, str] = {}
        self._runtime = RuntimeClient(client, settings.runtime_port, self.pod_token)
        self.health = HealthOfModel(clock, metrics.model_called)
        self._prober = Prober(client, self._credentials, self.health, lambda: self._config)
        self._token: str | None = None
        self._running: _Running | None = None
        self._problem: JournalError | None = None
        self._tried = asyncio.Event()
        self._prepared = False
        self._closing = False

    # --- what others ask of it -----------------------------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """The model credentials."""
        return self._credentials

    @property
    def config(self) -> SessionConfig | None:
        """The configuration that holds."""
        return self._config

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
        seen = FunctionsSeen(functions=self._functions)
        await self._open().journal.replace(FunctionsSeen.kind, seen.payload())

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

    def pod_token(self) -> str | None:
        """The token between the two containers of this pod; None while it is not mounted."""
        if self._token is None:
            try:
                self._token = (self._settings.key / "pod-token").read_text().strip() or None
            except OSError:
                return None
        return self._token

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
            "generation": self._settings.generation,
            "config_digest": config.digest() if config is not None else None,
            "agent_generation": config.agent_generation if config is not None else None,
            "policy": config.policy if config is not None else None,
            "model": self.health.report(),
        }
        if running is None:
            return Report(journal=state, journal_message=str(problem or "the journal is being opened"), **common)
        last = running.transcript.last_activity
        return Report(
            journal=JournalState.OPEN,
            sequence=running.journal.sequence,
            turns=len(running.transcript),
            active_turn=running.turns.active,
            suspended=running.turns.suspension(),
            unknown=running.turns.unknown(),
            tools=self._toolbox.health(),
            last_activity=moment(last) if last is not None else None,
            **common,
        )

    async def configure(self, offered: SessionConfig) -> None:
        """Accept a configuration; it holds when it is on disk. Raises `JournalError`."""
        running = self._open()
        config = newer(self._config, offered)
        if config is None or config == self._config:
            return
        await running.journal.replace(ConfigAccepted.kind, ConfigAccepted(config=config).payload())
        log.info("accepted generation %d of agent %s", config.agent_generation, config.agent)
        self._config = config
        running.sweeper.wake()
        self._prober.wake()
        self._toolbox.wake()

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open the journal as soon as it can be opened, then work.

        Raises `JournalError` if the journal breaks. The process then ends: a fresh start sees what is on the disk.
        """
        opened = await self._opened()
        self._clock.not_before(opened.journal.last_at / 1e6)
        pen = Pen(opened.journal, _RETRY_WRITE_SECONDS, self._ballast.give_up)
        turns = Turns(pen, opened.transcript, self._surroundings(), opened.unended)
        sweeper = Sweeper(
            opened.journal, opened.transcript, self._policy, self._clock, self._metrics, self.files.erase_turn
        )
        self._functions = opened.functions
        self._config = newer(opened.config, self._config)
        self._running = _Running(opened.journal, opened.transcript, turns, sweeper)
        self._problem = None
        self._metrics.journal(JournalState.OPEN)
        log.info("the journal is open at record %d", opened.journal.sequence)
        self._tried.set()
        if self._config is not None and self._config != opened.config:
            await self._keep(self._config, opened.journal)
        await _together(
            turns.run(),
            sweeper.run(),
            self._prober.run(),
            self._toolbox.run(),
            self._keep_ballast(),
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

    async def _keep(self, config: SessionConfig, journal: Journal) -> None:
        """Record the mounted configuration. It holds anyhow: a full volume must not keep the session from starting."""
        try:
            await journal.replace(ConfigAccepted.kind, ConfigAccepted(config=config).payload())
        except JournalError:
            if journal.broken is not None:
                raise
            log.warning("the mounted configuration cannot be recorded yet")

    def _surroundings(self) -> Surroundings:
        async def fit(text: str, limit: int, turn: str, step: int) -> str:
            if len(text) * 4 <= limit:  # no character has more than four bytes
                return text
            return await asyncio.to_thread(shown, self.files, text, turn, step, limit)

        async def receive(request: TurnRequest) -> None:
            if request.files:
                await asyncio.to_thread(receive_files, self.files, request.files)

        return Surroundings(
            identity=self._settings.identity,
            runtime=self._runtime,
            config=lambda: self._config,
            toolbox=self._toolbox,
            fit=fit,
            receive=receive,
            clock=self._clock,
            metrics=self._metrics,
            pace=Pace(),
        )

    async def _keep_ballast(self) -> None:
        """Make the reserve again whenever there is room for it."""
        while True:
            await asyncio.to_thread(self._ballast.hold)
            await asyncio.sleep(_BALLAST_SECONDS)

    def _open(self) -> _Running:
        if self._running is None:
            raise self._problem or UnreadableError("the journal is being opened")
        return self._running

    def _policy(self) -> EffectivePolicy | None:
        return self._config.policy if self._config is not None else None

    async def _opened(self) -> _Opened:
        """The journal, after as many attempts as it takes."""
        while True:
            self._config = self._config or mounted(self._settings.config)
            try:
                return await asyncio.to_thread(self._attempt)
            except JournalError as error:
                if str(error) != str(self._problem):
                    log.warning("the journal cannot be opened: %s", error)
                self._problem = error
                self._metrics.journal(error.state)
                self._tried.set()
                await asyncio.sleep(_RETRY_SECONDS[error.state])

    def _attempt(self) -> _Opened:
        """Open and read the journal; blocks. Raises `JournalError`."""
        prepare(self._settings)
        self._prepared = True
        sealer = Sealer(_data_key(self._settings.key), self._settings.identity)
        lease = Lease(self._settings.state, self._settings.generation)
        journal = Journal(self._settings.state, sealer, self._settings.identity, self._clock, lease)
        try:
            return _read(journal)
        except BaseException:
            journal.abandon()
            raise


ToolboxOf = Callable[[Session], Toolbox]


def prepare(settings: Settings) -> None:
    """Make the two directories of the volume if they are missing. Raises `UnreadableError`."""
    try:
        settings.state.mkdir(mode=0o700, exist_ok=True)
        settings.state.chmod(0o700)  # kubelet opens a new volume to the group (fsGroup)
        if not settings.workspace.exists():
            settings.workspace.mkdir()
            if os.getgid() != AGENT_GROUP and os.geteuid() == 0:
                os.chown(settings.workspace, -1, AGENT_GROUP)
            settings.workspace.chmod(0o2770)  # what the agent makes there belongs to the common group
    except OSError as error:
        raise UnreadableError(f"the volume cannot be used: {error}") from error


def _data_key(directory: Path) -> bytes:
    try:
        key = (directory / "data-key").read_bytes()
    except OSError:
        raise KeyMismatchError("the data key is not mounted; restore the session's key Secret") from None
    if len(key) != 32:
        raise KeyMismatchError(f"the data key has {len(key)} bytes instead of 32; restore the session's key Secret")
    return key


def _read(journal: Journal) -> _Opened:
    transcript = Transcript(journal.records(TURN_KINDS))
    kept, functions = None, {}
    for record in journal.records((ConfigAccepted.kind, FunctionsSeen.kind)):
        if record.kind == ConfigAccepted.kind:
            kept = ConfigAccepted.model_validate_json(record.payload).config
        else:
            functions = dict(FunctionsSeen.model_validate_json(record.payload).functions)
    unended = None
    if (turn := transcript.open_turn()) is not None:
        unended = Open(turn, Steps(turn.turn))
        for record in journal.records(turn=turn.turn):
            unended.apply(record)
    return _Opened(journal, transcript, kept, functions, unended)


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run until one fails or all are cancelled."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)
