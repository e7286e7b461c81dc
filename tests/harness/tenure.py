"""An installed Tenure: the chart by Helm, the scripted model, and callers with their OpenAI clients."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import openai

import cluster
from harness import manifests
from harness.forward import Forward
from harness.kube import Kube, KubectlError, eventually, is_ready
from tenure_api import names

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tenure"
SYSTEM = "tenure-system"
RELEASE = "tenure"


def kube() -> Kube:
    """kubectl against the cluster that is up."""
    return Kube({**os.environ, **cluster.environment(cluster.info())})


def helm(kube: Kube, *arguments: str, timeout: float = 300) -> str:
    """What Helm prints. Raises `KubectlError` with what it said."""
    command = ["helm", "--namespace", SYSTEM, *arguments]
    done = subprocess.run(command, env=kube.environment, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise KubectlError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install(kube: Kube, *options: str, tag: str = "dev") -> None:
    """Installs or upgrades Tenure with the images of one tag and waits until it serves."""
    kube.apply({**manifests.namespace(SYSTEM)})
    values = [f"image.tag={tag}", f"runtimeImage.tag={tag}"]
    sets = [part for value in values for part in ("--set", value)]
    helm(kube, "upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout", "3m", *sets, *options)


@dataclass(frozen=True)
class Installed:
    """A Tenure that serves, and the way to its gateway."""

    kube: Kube
    gateway: Forward

    def client(self, token: str, **options: object) -> openai.OpenAI:
        """An OpenAI client for a bearer token."""
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/v1",
            api_key=token,
            timeout=180,
            **{"max_retries": 0, **options},  # type: ignore[arg-type]
        )

    def async_client(self, token: str) -> openai.AsyncOpenAI:
        """The same for code that does not block."""
        return openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", api_key=token, timeout=180, max_retries=0)


@dataclass(frozen=True)
class Place:
    """A namespace of its own with agents, and callers who may use them."""

    tenure: Installed
    kube: Kube
    name: str

    def caller(self, account: str = "alice", role: str = "tenure-session-user") -> str:
        """A token of a ServiceAccount that holds a role in this namespace."""
        self.kube.apply(manifests.account(account), manifests.bind(role, account, self.name))
        return self.kube.token(account)

    def client(self, account: str = "alice") -> openai.OpenAI:
        """The OpenAI client of a caller who may use the agents of this namespace."""
        return self.tenure.client(self.caller(account))

    def subject(self, account: str = "alice") -> str:
        """The subject of a ServiceAccount's sessions."""
        return f"system:serviceaccount:{self.name}:{account}"

    def agent(self, name: str = "helper", **spec: object) -> str:
        """Applies an agent, waits until it is ready, and returns its model name for clients."""
        self.kube.apply(manifests.agent(name, **spec))
        eventually(lambda: is_ready(self.kube.get("agent", name)), 30)
        return f"{self.name}/{name}"

    def session(self, name: str, agent: str = "helper", account: str = "alice", **spec: object) -> str:
        """Applies a session, waits until it is ready, and returns its conversation for clients."""
        self.kube.apply(manifests.session(name, agent, self.subject(account), **spec))
        eventually(lambda: is_ready(self.kube.get("agentsession", name)), 90)
        return f"{self.name}/{name}"

    def key(self, session: str) -> str:
        """Name of the Secret with a session's data key."""
        status = self.kube.get("agentsession", session)["status"]
        return names.session_key(status["setName"], status["identity"])


def unique(prefix: str) -> str:
    """A name that no earlier run has used, of always the same length."""
    return f"{prefix}-{int(time.time() * 1000) % 10**9:09}"
