"""One run of the storm: the script is played by an agent, and its session is killed where the plan says."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import openai
from openai.types.responses import Response

from harness.control import Control
from harness.effects import Effects
from harness.killing import Killer
from harness.kube import Kube, KubectlError, Manifest, eventually
from harness.manifests import MCP_URL, http_tool
from harness.model import ScriptedModel, call, program
from harness.storm_plan import Kill, Moment, Run, Victim
from harness.tenure import Place
from harness.turns import RUNNING, decide, is_pending
from tenure_api.names import session_pod

T = TypeVar("T")

ANSWER = "Twelve steps are done."
CHILD_ANSWER = "The other agent says so."
RUN_SECONDS = 240
_CODE = """
import pathlib, time
def pause(name):
    hold, reached = pathlib.Path(f"/workspace/hold-{name}"), pathlib.Path(f"/workspace/reached-{name}")
    while hold.exists():
        reached.touch()
        time.sleep(0.05)
pause("before")
with open("/workspace/effects", "a") as effects:
    effects.write("x")
pause("after")
print("done")
"""


def tools() -> list[Manifest]:
    """The tools of the script."""
    return [
        http_tool("read", "/slow"),
        http_tool("book", "/orders", "POST", replay="IdempotencyKey"),
        http_tool("charge", "/payments", "POST"),
        {"name": "code", "code": {}},
        {"name": "desk", "mcp": {"url": MCP_URL}},
        {"name": "ask", "agent": {"name": "other"}, "description": "Asks the other agent.", "timeoutSeconds": 180},
        http_tool("pay", "/payments", "POST", approval="Required"),
    ]


def question(tag: str) -> str:
    """The user's message of a run."""
    return program(
        [
            call("read", {"seconds": 0, "tag": f"{tag}-read"}),
            call("book", {"item": "chair", "tag": f"{tag}-book"}),
            call("charge", {"order": "o1", "amount": 1, "tag": f"{tag}-charge"}),
        ],
        [
            call("code", {"language": "python", "code": _CODE}),
            call("desk__note", {"text": "done", "tag": f"{tag}-note"}),
        ],
        [call("ask", {"input": f"tag:{tag}-ask say: {CHILD_ANSWER}"})],
        [call("pay", {"order": "o1", "amount": 2, "tag": f"{tag}-pay"})],
        final=ANSWER,
        tag=tag,
    )


class Stop(Protocol):
    """A place at which a run can be held."""

    def hold(self) -> None:
        """Lets whoever comes by wait."""

    def waits(self) -> bool:
        """Whether somebody waits."""

    def release(self, drop: bool) -> None:
        """Lets who waits go on, or drops it as if it had never come; later ones pass."""


@dataclass(frozen=True)
class AtDouble(Stop):
    """A hold of a stand-in."""

    double: Control
    name: str

    def hold(self) -> None:
        self.double.hold(self.name)

    def waits(self) -> bool:
        return self.double.waiting(self.name) > 0

    def release(self, drop: bool) -> None:
        self.double.release(self.name, drop)


@dataclass(frozen=True)
class InCode(Stop):
    """The script in the workspace, before or after its effect."""

    kube: Kube
    pod: str
    moment: str

    def _sh(self, script: str) -> str:
        return self.kube.execute(self.pod, "workspace", "sh", "-c", script).strip()

    def hold(self) -> None:
        self._sh(f"touch /workspace/hold-{self.moment}")

    def waits(self) -> bool:
        return bool(self._sh(f"ls /workspace/reached-{self.moment} 2>/dev/null || true"))

    def release(self, drop: bool) -> None:
        eventually(lambda: self._sh(f"rm -f /workspace/hold-{self.moment} && echo gone"), 60)


@dataclass(frozen=True)
class Finished:
    """What came of a run."""

    run: Run
    session: str
    tag: str
    response: Response | None
    """None if it did not end in time."""
    struck: tuple[Kill, ...]
    """The kills that took place, where they were planned."""
    log: tuple[str, ...]
    """What happened, with the second of the run."""


@dataclass
class Storm:
    """Plays runs, each in a session of its own."""

    place: Place
    agent: str
    client: openai.OpenAI
    model: ScriptedModel
    http: Effects
    mcp: Effects
    killer: Killer
    prefix: str

    def play(self, run: Run) -> Finished:
        """Plays one run to its end, or until its time is over."""
        session = f"run-{run.number}"
        self.place.session(session, self.agent.rpartition("/")[2])
        return _Performance(self, run, session, f"{self.prefix}-{run.number}").play()

    def clear(self, finished: Finished) -> None:
        """Takes a run's session away: a hundred pods are more than a small machine holds."""
        self.place.kube.delete("agentsession", finished.session, "--wait=false")


@dataclass
class _Performance:
    storm: Storm
    run: Run
    session: str
    tag: str
    began: float = field(default_factory=time.monotonic)
    log: list[str] = field(default_factory=list)
    struck: list[Kill] = field(default_factory=list)

    def play(self) -> Finished:
        stops = [(kill, self._stop(kill)) for kill in self.run.kills]
        for _, stop in stops:
            stop.hold()
        response = self.storm.client.responses.create(
            model=self.storm.agent,
            conversation=f"{self.storm.place.name}/{self.session}",
            input=question(self.tag),
            background=True,
        )
        self._note(f"asked: {response.id}")
        while_pending, stray_at = self.run.while_pending, self._stray_at(stops)
        while time.monotonic() < self.began + RUN_SECONDS:
            if stops and self._waits(stops[0][1]):
                self._strike(*stops.pop(0))
                stray_at = self._stray_at(stops)
            if self.run.stray and stray_at and time.monotonic() > stray_at:
                self._kill(self.run.stray.victim, str(self.run.stray))
                stray_at = None
            found = _asked(lambda: self.storm.client.responses.retrieve(response.id, timeout=20))
            if found and is_pending(found):
                if while_pending:
                    self._kill(while_pending, f"{while_pending} killed while the approval is pending")
                    while_pending = None
                self._approve(found)
            elif found and found.status not in RUNNING:
                self._note(f"ended as {found.status}")
                return self._finished(found)
            time.sleep(0.25)
        self._note("did not end in time")
        return self._finished(None)

    def _waits(self, stop: Stop) -> bool:
        return bool(_asked(stop.waits))

    def _approve(self, response: Response) -> None:
        if _asked(lambda: decide(self.storm.client, self.storm.agent, response, background=True)):
            self._note("approved")

    def _finished(self, response: Response | None) -> Finished:
        return Finished(self.run, self.session, self.tag, response, tuple(self.struck), tuple(self.log))

    def _stop(self, kill: Kill) -> Stop:
        storm, moment = self.storm, "before" if kill.moment is Moment.BEFORE_EFFECT else "after"
        if kill.moment is Moment.BEFORE_INTENT:
            return AtDouble(storm.model, f"{self.tag}/{kill.round}/after")
        if kill.moment is Moment.AFTER_RESULT:
            return AtDouble(storm.model, f"{self.tag}/{kill.round + 1}/before")
        match kill.call:
            case "code":
                return InCode(storm.place.kube, session_pod(self.session), moment)
            case "ask":
                return AtDouble(storm.model, f"{self.tag}-ask/0/{moment}")
            case "note":
                return AtDouble(storm.mcp, f"{self.tag}-note/{moment}")
            case name:
                return AtDouble(storm.http, f"{self.tag}-{name}/{moment}")

    def _strike(self, kill: Kill, stop: Stop) -> None:
        self._kill(kill.victim, str(kill))
        self.struck.append(kill)
        stop.release(drop=kill.drop)

    def _kill(self, victim: Victim, what: str) -> None:
        pod, killer = session_pod(self.session), self.storm.killer

        def strike() -> bool:
            if victim is Victim.POD:
                killer.kill_pod(pod)
            else:
                killer.kill_container(pod, victim)
            return True

        eventually(strike, 60)  # a container that was killed before may not run again yet
        self._note(what)

    def _stray_at(self, stops: list[tuple[Kill, Stop]]) -> float | None:
        """A kill at a random time comes after those at a place: it would make their places uncertain."""
        return time.monotonic() + self.run.stray.after_seconds if self.run.stray and not stops else None

    def _note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:6.2f} {what}")


def _asked(question: Callable[[], T]) -> T | None:
    """The answer, or None while who is asked is away."""
    try:
        return question()
    except (openai.APIConnectionError, openai.APIStatusError, KubectlError, OSError):
        return None
