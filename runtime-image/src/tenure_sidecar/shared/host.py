"""A host of many sessions: keeps them on its volume, and opens those that are called, due or under way."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tenure_api.configuration import SessionConfig
from tenure_api.report import Binding, JournalState, Report, Reports
from tenure_sidecar.activity import Activity
from tenure_sidecar.clock import SteadyClock, moment
from tenure_sidecar.config import mounted, newer
from tenure_sidecar.errors import ConnectError, JournalError, RefusedError, SupersededError, UnreadableError
from tenure_sidecar.http_client import Client
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.model_health import HealthOfModel
from tenure_sidecar.pod import Pod
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.settings import Settings
from tenure_sidecar.shared.aside import Aside
from tenure_sidecar.shared.ground import Ground
from tenure_sidecar.shared.places import Place
from tenure_sidecar.shared.resident import NAME, Resident
from tenure_sidecar.shared.seats import Seats
from tenure_sidecar.shared.upkeep import Upkeep
from tenure_sidecar.shared.work import Means, Runs
from tenure_sidecar.tools.tool import Toolbox
from tenure_sidecar.turn.workflow import Pace
from tenure_sidecar.volume import Gauge, data_key, prepare

_LOOK_SECONDS = 1.0
_HOOK_SECONDS = 0.05
_RETRY_SECONDS = {JournalState.LOCKED: 0.2, JournalState.KEY_MISMATCH: 1.0}
_RETRY_OTHERWISE_SECONDS = 5.0
_FIRST_ATTEMPT_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """What the sessions of a host have together."""

    open: int = 128
    """Sessions that are open at once: so many turns can be answered at the same time."""
    patience_seconds: float = 20.0
    """How long a call waits for its session to be opened while as many are busy."""
    idle_seconds: float = 10.0
    """How long a session stays open after its last use."""


class Host:
    """Many sessions of one agent."""

    def __init__(
        self,
        settings: Settings,
        clock: SteadyClock,
        metrics: Metrics,
        client: Client,
        toolbox: "ToolboxOf",
        pace: Pace,
        room: Room,
    ) -> None:
        """`toolbox` makes the tools of the agent."""
        self._settings = settings
        self._pace = pace
        self._clock = clock
        self._config: SessionConfig | None = None
        self._pod = Pod(settings, clock, metrics, client, lambda: self._config)
        self._toolbox = toolbox(self)
        self._functions: dict[str, str] = {}
        self._seats = Seats(room.open, room.patience_seconds)
        self._runs = Runs()
        self._residents: dict[str, Resident] = {}
        self._ground: Ground | None = None
        self._problem: JournalError | None = None
        self._superseded: SupersededError | None = None
        self._tried = asyncio.Event()
        self._registering = asyncio.Lock()
        self._aside = Aside()
        self._upkeep = Upkeep(self._residents, self._seats, lambda: self._config, clock, self._aside, room.idle_seconds)
        self._gauge = Gauge(settings.data, clock.elapsed)
        self.activity = Activity(clock.elapsed, self._answers)
        """What happens in the pod."""
        self._leaving = self._closing = False

    # --- what others ask of it -----------------------------------------------------------------------------------

    @property
    def config(self) -> SessionConfig | None:
        """The configuration that holds."""
        return self._config

    @property
    def credentials(self) -> Credentials:
        """The model credentials."""
        return self._pod.credentials

    @property
    def name(self) -> str:
        """For logs: the session of the task that is running, or that it is none."""
        return NAME.get()

    @property
    def health(self) -> HealthOfModel:
        """What is known of the model endpoint."""
        return self._pod.health

    @property
    def runs(self) -> Runs:
        """The runs of the agent that go on."""
        return self._runs

    @property
    def identity(self) -> str:
        """What tokens for the host itself are made out to."""
        return self._settings.identity

    def pod_token(self) -> str | None:
        """The token between the two containers of this pod; None while it is not mounted."""
        return self._pod.token()

    @property
    def unhealthy(self) -> str | None:
        """Why the process cannot do its part."""
        return None if self._ground is not None or self._problem is not None else "the volume is being looked at"

    @property
    def unready(self) -> str | None:
        """Why no turn can be taken, if none can."""
        if self._closing:
            return "the host is shutting down"
        if self._ground is None:
            return str(self._problem or "the volume is being looked at")
        if self._config is None:
            return "there is no configuration: the agent's ConfigMap is missing or not valid"
        return None

    def remembered(self) -> dict[str, bytes]:
        """The functions of tools as they were last remembered, by tool."""
        return {tool: functions.encode() for tool, functions in self._functions.items()}

    async def remember(self, tool: str, functions: bytes) -> None:
        """Keep the functions of a tool, for a start at which it cannot be asked. Raises `JournalError`."""
        self._functions[tool] = functions.decode()
        await asyncio.to_thread(self._stands().keep_functions, dict(self._functions))

    def find(self, uid: str) -> Resident | None:
        """The session of this UID; None if it is not here."""
        return self._residents.get(uid)

    def check_open(self) -> None:
        """Raises `JournalError` while it is not known which sessions are here, `RefusedError` when none can be asked.

        To those that wait for their sessions, it must not look as if these were not here.
        """
        self._stands()
        if self._closing:
            raise RefusedError(503, "shutting_down", "the pod is being replaced; send the turn again")

    async def keep(self, uid: str, binding: Binding) -> Resident:
        """Take a session in; it is on disk then. Raises `JournalError` or `RefusedError`."""
        if uid != binding.uid:
            raise RefusedError(400, "invalid_binding", "the binding is another session's")
        ground = self._stands()
        async with self._registering:
            if uid not in self._residents:
                about = binding.model_dump_json(by_alias=True).encode()
                place = await asyncio.to_thread(ground.places.make, uid, about)
                self._residents[uid] = self._resident(place, binding.session, ground)
            return self._residents[uid]

    async def erase(self, uid: str) -> None:
        """Destroy a session with all that is kept of it. Raises `JournalError`."""
        ground = self._stands()
        async with self._registering:
            resident = self._residents.get(uid)
            if resident is not None:
                await resident.erase()
            await asyncio.to_thread(ground.places.erase, uid)
            self._residents.pop(uid, None)

    def drain(self, idle_seconds: float) -> None:
        """Take no more turns for a while. Raises `RefusedError` unless nothing has happened for so long."""
        self.activity.drain(idle_seconds)

    def check_taking(self) -> None:
        """Raises `RefusedError` if the pod is about to go, so that no turn begins in it any more."""
        if self._leaving:
            raise RefusedError(503, "draining", "the pod is about to be replaced; send the turn again")

    async def drained(self, seconds: float) -> None:
        """The pod ends. Take no more turns, and wait until none is being answered, but no longer than this.

        With many sessions there may never be a moment without turns by itself.
        """
        self._leaving = True
        until = self._clock.elapsed() + seconds
        while self._answers() and self._clock.elapsed() < until:  # noqa: ASYNC110 - there are many, and no hurry
            await asyncio.sleep(_HOOK_SECONDS)

    async def configure(self, offered: SessionConfig) -> None:
        """Accept a configuration; it holds when it is on disk. Raises `JournalError`."""
        ground = self._stands()
        config = newer(self._config, offered)
        if config is None or config == self._config:
            return
        await asyncio.to_thread(ground.keep_config, config)
        log.info("accepted generation %d of agent %s", config.agent_generation, config.agent)
        self._config = config
        self._upkeep.sweep_soon()
        self._pod.prober.wake()
        self._toolbox.wake()

    async def report(self) -> Report:
        """As the operator is told of the host. Waits for the first attempt to take the volume."""
        try:
            async with asyncio.timeout(_FIRST_ATTEMPT_SECONDS):
                await self._tried.wait()
        except TimeoutError:
            pass
        problem, stands = self._problem, self._ground is not None
        state = problem.state if problem is not None else JournalState.UNREADABLE
        return Report(
            identity=self.identity,
            journal=JournalState.OPEN if stands else state,
            journal_message="" if stands else str(problem or "the volume is being looked at"),
            idle_seconds=self.activity.idle_seconds,
            ready=await self._is_ready(),
            volume=await asyncio.to_thread(self._gauge.use),
            sessions=sorted(self._residents),
            **self._common(),
        )

    def report_of(self, resident: Resident) -> Report:
        """As the operator is told of a session. It need not be open for that."""
        known, problem, work = resident.known(), resident.problem, resident.work
        last = known.last_activity
        used = asyncio.get_running_loop().time() - resident.used_at
        return Report(
            identity=resident.uid,
            bound=resident.uid,
            ready=problem is None and self._takes_turns,
            journal=JournalState.OPEN if problem is None else problem.state,
            journal_message="" if problem is None else str(problem),
            sequence=known.sequence,
            turns=known.completed,
            active_turn=work.active if work is not None else None,
            idle_seconds=None if resident.busy else used,
            last_activity=moment(last) if last is not None else None,
            suspended=known.suspended,
            unknown=known.unknown,
            **self._common(),
        )

    def reports(self) -> Reports:
        """As the operator is told of all sessions."""
        return Reports(data=[self.report_of(resident) for resident in self._residents.values()])

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the volume as soon as it can be taken, then work.

        Raises `SupersededError` when a later run of the host has it. The process then ends.
        """
        ground = await self._taken()
        self._config = newer(ground.config(), self._config)
        self._ground, self._problem = ground, None
        self._pod.metrics.journal(JournalState.OPEN)
        log.info("the host keeps %d sessions", len(self._residents))
        self._tried.set()
        async with asyncio.TaskGroup() as group:
            for work in (
                self._upkeep.run(),
                self._pod.prober.run(),
                self._toolbox.run(),
                self._pod.keep_ballast(),
                self._until_superseded(ground),
            ):
                group.create_task(work)

    async def close(self, seconds: float) -> None:
        """Give all running turns this long to end, and close all sessions."""
        self._closing = self._upkeep.closing = True
        await asyncio.gather(*(r.end(seconds) for r in self._residents.values() if r.work is not None))

    async def release(self) -> None:
        """Let the next run have the volume."""
        await self.close(0)
        await self._aside.over()
        if self._ground is not None:
            self._ground.release()

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _takes_turns(self) -> bool:
        return self.unready is None and not self._leaving and not self.activity.draining

    async def _is_ready(self) -> bool:
        """Whether it takes turns and the agent container is there for them."""
        try:
            await self._pod.runtime.reach()
        except ConnectError:
            return False
        return self._takes_turns

    def _stands(self) -> Ground:
        if self._ground is None:
            raise self._problem or UnreadableError("the volume is being looked at")
        return self._ground

    def _common(self) -> dict[str, Any]:
        config = self._config
        return {
            "generation": self._settings.generation,
            "draining": self.activity.draining,
            "config_digest": config.digest() if config is not None else None,
            "agent_generation": config.agent_generation if config is not None else None,
            "policy": config.policy if config is not None else None,
            "model": self._pod.health.report(),
            "tools": self._toolbox.health(),
        }

    def _answers(self) -> bool:
        """Whether a turn is being answered, or waits for that."""
        return any(r.work is not None and not r.work.resting for r in self._residents.values())

    async def _taken(self) -> Ground:
        """The volume, after as many attempts as it takes."""
        while True:
            self._config = self._config or mounted(self._settings.config)
            try:
                return await asyncio.to_thread(self._attempt)
            except JournalError as error:
                if str(error) != str(self._problem):
                    log.warning("the volume cannot be taken: %s", error)
                self._problem = error
                self._tried.set()
                await asyncio.sleep(_RETRY_SECONDS.get(error.state, _RETRY_OTHERWISE_SECONDS))

    def _attempt(self) -> Ground:
        """Take the volume, and see what is on it; blocks. Raises `JournalError`."""
        settings = self._settings
        prepare(settings)
        ground = Ground(
            settings.state, settings.workspace, data_key(settings.key), settings.identity, settings.generation
        )
        try:
            self._functions = ground.functions()
            self._residents.update((resident.uid, resident) for resident in self._recalled(ground))
        except BaseException:
            ground.release()
            raise
        return ground

    def _recalled(self, ground: Ground) -> Iterator[Resident]:
        for place in ground.places.found():
            about = place.about.read()
            name = Binding.model_validate_json(about).session if about is not None else place.uid
            resident = self._resident(place, name, ground)
            resident.recall()
            yield resident

    def _resident(self, place: Place, name: str, ground: Ground) -> Resident:
        means = Means(
            config=lambda: self._config,
            runtime=self._pod.runtime,
            runs=self._runs,
            toolbox=self._toolbox,
            activity=self.activity,
            lease=ground.lease,
            clock=self._clock,
            metrics=self._pod.metrics,
            make_room=self._pod.ballast.give_up,
            has_room=self._pod.has_room,
            aside=self._aside,
            pace=self._pace,
        )
        return Resident(place, name, means, self._seats, self._lost)

    def _lost(self, error: SupersededError) -> None:
        self._superseded = error

    async def _until_superseded(self, ground: Ground) -> None:
        while self._superseded is None:
            await asyncio.sleep(_LOOK_SECONDS)
            ground.lease.check()
        raise self._superseded


ToolboxOf = Callable[[Host], Toolbox]
