"""Many sessions in one sidecar: what an idle one costs, and how many turns a second they take together."""

import asyncio
import secrets
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from bench.figure import Aim, Baseline, Figure
from bench.pod import SESSION, Pod
from tenure_api.report import Binding
from tenure_api.tokens import Signer
from tenure_api.wire import Message, Role, TurnRequest

IDLE = 1_000
"""Sessions that have talked and are idle."""
ACTIVE = 100
"""Sessions that talk at once."""
AT_ONCE = 32
TURNS = 3
"""Of each session, before it is idle."""
SECONDS = 10
LIMIT_MIB = 256
_CLOSING_SECONDS = 15
"""Longer than an idle session stays open."""


class HostPod(Pod):
    """A pod whose sidecar is a host of many sessions."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environment["TENURE_SHARED"] = "true"

    @property
    def signing_key(self) -> str:
        """By which operator and gateway sign."""
        return self._key

    def memory(self) -> float:
        """Resident memory of the sidecar, in KiB."""
        assert self._sidecar is not None
        text = Path(f"/proc/{self._sidecar.pid}/status").read_text()
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")))


class Callers:
    """Operator and gateway."""

    def __init__(self, pod: HostPod, http: aiohttp.ClientSession) -> None:
        self._pod = pod
        self._http = http
        self._gateway = Signer("gateway", pod.signing_key)
        self._operator = Signer("operator", pod.signing_key)
        self._tokens: dict[str, tuple[float, str]] = {}

    async def register(self) -> str:
        """A session; its UID."""
        uid = str(uuid.uuid4())
        body = Binding(session=f"bench/{uid}", uid=uid).model_dump_json(by_alias=True)
        headers = {"authorization": f"Bearer {self._operator.token(SESSION, time.time())}"}
        async with self._http.put(self._pod.url(f"/v1/sessions/{uid}"), data=body, headers=headers) as answer:
            answer.raise_for_status()
        return uid

    async def turn(self, uid: str) -> None:
        """A turn, to its end. Raises `RuntimeError` if it does not complete."""
        request = TurnRequest(turn=secrets.token_hex(16), input=[Message(role=Role.USER, text="Where is my order?")])
        body = request.model_dump_json(by_alias=True)
        headers = {"authorization": f"Bearer {self._token(uid)}"}
        async with self._http.post(self._pod.url("/v1/turns"), data=body, headers=headers) as answer:
            said = await answer.read()
        if answer.status != 200 or b'"status":"completed"' not in said.splitlines()[-1]:
            raise RuntimeError(f"the turn did not complete: {said[-2000:]!r}")

    def _token(self, uid: str) -> str:
        """As the gateway does it, a token is used again for half of its life."""
        known = self._tokens.get(uid)
        if known is None or known[0] < time.time():
            known = self._tokens[uid] = time.time() + 30, self._gateway.token(uid, time.time())
        return known[1]


async def idle(pod: HostPod) -> tuple[float, float]:
    """KiB of the host before and after so many sessions have talked and are idle."""
    before = pod.memory()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        callers, turn = Callers(pod, http), asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with turn:
                uid = await callers.register()
                for _ in range(TURNS):
                    await callers.turn(uid)

        await asyncio.gather(*(one() for _ in range(IDLE)))
    await asyncio.sleep(_CLOSING_SECONDS)
    return before, pod.memory()


async def rate(pod: HostPod, sessions: int) -> float:
    """Turns a second of so many sessions that talk at once."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        callers = Callers(pod, http)
        uids = [await callers.register() for _ in range(sessions)]
        await asyncio.gather(*(callers.turn(uid) for uid in uids))
        end, count = time.perf_counter() + SECONDS, 0

        async def talk(uid: str) -> None:
            nonlocal count
            while time.perf_counter() < end:
                await callers.turn(uid)
                count += 1

        began = time.perf_counter()
        await asyncio.gather(*(talk(uid) for uid in uids))
        return count / (time.perf_counter() - began)


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as directory, HostPod(Path(directory)) as pod:
        pod.start_model()
        pod.start_runtime()
        pod.start()
        before, after = asyncio.run(idle(pod))
        alone = Baseline("a sidecar of its own that has done nothing yet", before)
        each = (after - before) / IDLE
        yield Figure("shared-idle-session", "KiB", each, None, alone, (Aim("ratio", 0.01),), 1)
        aim = Aim("value", LIMIT_MIB)
        yield Figure(f"shared-host-{IDLE}-idle", "MiB", after / 1024, None, None, (aim,), 1)
    with tempfile.TemporaryDirectory() as directory, HostPod(Path(directory)) as pod:
        pod.start_model()
        pod.start_runtime()
        pod.start()
        one = asyncio.run(rate(pod, 1))
        many = asyncio.run(rate(pod, ACTIVE))
        base = Baseline("one session of the same host, one turn after the other", one)
        yield Figure(f"shared-turns-{ACTIVE}", "turns/s", many, None, base, (Aim("ratio", 1.0, at_least=True),), 1)
        yield Figure(f"shared-host-{ACTIVE}-active", "MiB", pod.memory() / 1024, None, None, (aim,), 1)
