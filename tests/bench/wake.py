"""A session that sleeps is asked for something: how long until the answer begins, and where the time goes.

The baseline is a bare pod of the same shape on the volume of a session like it: made by hand, awaited, and asked by its
sidecar's own API. The client is in the cluster, so that no port-forward is part of either.
"""

import base64
import json
import secrets
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster
from bench.api import Api, is_ready
from bench.figure import Aim, Figure, compared, in_turn
from bench.place import measured_place
from bench.sessions import bare
from bench.turns import client_pod, gateway_url
from harness.kube import Manifest, eventually
from harness.sleeping import asleep
from harness.tenure import SYSTEM, Place
from tenure_api.names import session_claim, session_pod
from tenure_api.tokens import Signer
from tenure_api.wire import sidecar_url

RUNS = 15
SCRIPT = Path(__file__).with_name("first_byte.py").read_text()
SAID = "say: hello"
DROWSY = {"storage": {"size": "64Mi"}, "idleTimeoutSeconds": 2}
STAGES = ("gateway and operator", "scheduling", "volume and network", "containers", "sidecar", "runtime", "answer")


class Client:
    """The script in the client pod."""

    def __init__(self, place: Place) -> None:
        command = place.kube.command("exec", "-i", "client", "-c", "client", "--", "python3", "-u", "-c", SCRIPT)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=place.kube.environment, stdin=pipe, stdout=pipe, text=True)

    def ask(self, url: str, token: str, body: dict[str, Any], until: str) -> float:
        """Seconds until the answer to a request began. Raises `RuntimeError`."""
        job = {"url": url, "headers": {"authorization": f"Bearer {token}"}, "body": body, "until": until}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line.strip() or json.loads(line) is None:
            raise RuntimeError(f"no answer from {url}")
        return float(json.loads(line))

    def close(self) -> None:
        """Ends the script."""
        self._process.kill()
        self._process.wait()


@dataclass
class Watched:
    """When a pod got how far, as a watch tells of it."""

    began: float
    at: dict[str, float] = field(default_factory=dict)

    def saw(self, pod: Manifest) -> None:
        """One more state of the pod."""
        now, status = time.monotonic(), pod.get("status", {})
        conditions = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        sidecar: Manifest = next(iter(status.get("initContainerStatuses", [])), {})
        agent: Manifest = next(iter(status.get("containerStatuses", [])), {})
        reached = {
            "gateway and operator": True,
            "scheduling": "nodeName" in pod["spec"],
            "volume and network": "PodReadyToStartContainers" in conditions,
            "containers": "running" in sidecar.get("state", {}),
            "sidecar": bool(sidecar.get("ready")),
            "runtime": bool(agent.get("ready")) and "Ready" in conditions,
        }
        for stage, holds in reached.items():
            if holds:
                self.at.setdefault(stage, now)

    def seconds(self, total: float) -> dict[str, float]:
        """How long each stage took, of so many seconds in all; a stage that was not seen took none."""
        found, before = {}, self.began
        for stage in STAGES:
            reached = self.began + total if stage == "answer" else max(self.at.get(stage, before), before)
            found[stage], before = reached - before, reached
        return found


@contextmanager
def watching(api: Api, place: Place, pod: str) -> Iterator[Watched]:
    """Watches a pod that is about to be made."""
    watched, over = Watched(time.monotonic()), threading.Event()

    def look() -> None:
        for state in api.changes("v1", "Pod", place.name, pod, 30):
            watched.saw(state)
            if over.is_set() or len(watched.at) == len(STAGES) - 1:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    time.sleep(0.3)
    watched.began = time.monotonic()
    yield watched
    thread.join(2)
    over.set()


class Baseline:
    """A bare pod on the volume of a session that sleeps, as often as one likes."""

    def __init__(self, place: Place, api: Api, client: Client) -> None:
        self._place, self._api, self._client = place, api, client
        self._conversation = place.session("bare")
        place.client().responses.create(model=f"{place.name}/helper", conversation=self._conversation, input=SAID)
        claim = place.kube.get("pvc", session_claim("bare"))
        _, self._pod = bare(place.kube.get("pod", session_pod("bare")), claim, session_claim("bare"))
        self._identity = claim["metadata"]["uid"]
        keys = place.kube.within(SYSTEM).get("secret", "tenure-signing-keys")["data"]
        self._signer = Signer("gateway", base64.b64decode(keys["gateway.key"]).decode())
        asleep(place, "bare")
        self._count = 0

    def seconds(self) -> float:
        """From the creation of the pod until its answer begins."""
        self._count += 1
        name = f"bare-{self._count}"
        began = time.monotonic()
        made = self._api.create(self._place.name, {**self._pod, "metadata": {"name": name}})
        address = self._api.until(made, is_ready)["status"]["podIP"]
        turn = {"turn": secrets.token_hex(16), "input": [{"role": "user", "text": SAID}]}
        token = self._signer.token(self._identity, time.time())
        ready = time.monotonic() - began
        seconds = ready + self._client.ask(sidecar_url(address, "/v1/turns"), token, turn, '"delta"')
        self._place.kube.delete("pod", name, "--grace-period=5")
        return seconds


def waking(place: Place) -> Figure:
    """Request → first byte of its answer, over the bare pod."""
    agent = place.agent(session=DROWSY)
    place.kube.apply(client_pod())
    place.kube.run("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    eventually(lambda: place.kube.execute("client", "client", "true") == "", 10)
    api, client, token = Api(cluster.info().kubeconfig), Client(place), place.caller()
    baseline, conversation = Baseline(place, api, client), place.session("woken")
    place.client().responses.create(model=agent, conversation=conversation, input=SAID)
    url, stages = f"{gateway_url(place)}/responses", []

    def value() -> float:
        asleep(place, "woken")
        body = {"model": agent, "conversation": conversation, "input": SAID, "stream": True}
        with watching(api, place, session_pod("woken")) as watched:
            seconds = client.ask(url, token, body, "response.output_text.delta")
        stages.append(watched.seconds(seconds))
        return seconds

    baselines, values = in_turn(RUNS, baseline.seconds, value)
    client.close()
    for stage in STAGES:
        print(f"    {statistics.median(run[stage] for run in stages):6.3f} s  {stage}")
    what = "bare pod on the same kind of volume, asked by its sidecar's API"
    return compared("wake", "s", what, baselines, values, Aim("ratio", 1.3))


def measure() -> Iterator[Figure]:
    """The figure of this module."""
    with measured_place("bench-wake") as place:
        yield waking(place)
