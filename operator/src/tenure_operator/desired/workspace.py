"""The container in which an agent's code runs. It is there only if a tool of the agent is code."""

import hashlib
from dataclasses import dataclass

from tenure_api.agent import AgentSpec
from tenure_api.fields import Amounts, Resources
from tenure_api.tools import CODE_CPU_REQUEST, CODE_MEMORY_REQUEST, CodeSource
from tenure_operator.desired.containers import AFTER_THE_TURN, PodSettings, amounts, security
from tenure_operator.kinds import Manifest

WORKSPACE = "workspace"
EXECUTOR = "executor"
EXECUTOR_USER = 65503
FIRST_USER = 1_000_000_000
USERS = 1_000_000_000

CODE_MOUNT = "/workspace"
EXECUTOR_MOUNT = "/opt/tenure"
SOCKET_MOUNT = "/run/tenure/exec"

CPU_LIMIT = "1"
MEMORY_LIMIT = "512Mi"
EXECUTOR_RESOURCES = Resources(requests=Amounts(cpu="10m", memory="32Mi"), limits=Amounts(memory="128Mi"))


@dataclass(frozen=True)
class Workspace:
    """What the code of an agent adds to its pods."""

    init: list[Manifest]
    """Containers that must have run before the sidecar starts."""
    containers: list[Manifest]
    volumes: list[Manifest]
    sidecar_mounts: list[Manifest]


def code_source(spec: AgentSpec) -> CodeSource | None:
    """The agent's tool that is code; admission lets an agent have one at most."""
    return next((tool.code for tool in spec.tools if tool.code is not None), None)


def code_resources(given: Resources | None) -> Resources:
    """What the container gets.

    There is always a limit: of an amount with a request only, the request is the limit. And there is always a request,
    since Kubernetes would reserve the whole limit for a container that idles most of the time.
    """
    requests, limits = (given and given.requests) or Amounts(), (given and given.limits) or Amounts()
    return Resources(
        requests=Amounts(cpu=requests.cpu or CODE_CPU_REQUEST, memory=requests.memory or CODE_MEMORY_REQUEST),
        limits=Amounts(
            cpu=limits.cpu or requests.cpu or CPU_LIMIT, memory=limits.memory or requests.memory or MEMORY_LIMIT
        ),
    )


def code_user(identity: str) -> int:
    """The user that a session's code runs as.

    RLIMIT_NPROC counts the processes of a user on the whole node, so sessions must not share one.
    """
    number = int(hashlib.sha256(identity.encode()).hexdigest()[:8], 16)
    return FIRST_USER + number % USERS


def workspace(spec: AgentSpec, identity: str, settings: PodSettings) -> Workspace:
    """The parts of a session's pod that run code; none if no tool of the agent is code."""
    source = code_source(spec)
    if source is None:
        return Workspace([], [], [], [])
    socket = {"name": "exec", "mountPath": SOCKET_MOUNT}
    return Workspace(
        init=[_executor(settings)],
        containers=[_container(source, code_user(identity), socket, settings)],
        volumes=[
            {"name": EXECUTOR, "emptyDir": {}},
            # In memory, where the size is a hard limit: code cannot have its pod evicted by filling the node's disk.
            {"name": "exec", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "workspace-tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
        sidecar_mounts=[socket],
    )


def _executor(settings: PodSettings) -> Manifest:
    """Puts the program that runs code where a user's own image finds it."""
    return {
        "name": EXECUTOR,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python3", "-m", "tenure_executor.install", EXECUTOR_MOUNT],
        "resources": amounts(EXECUTOR_RESOURCES),
        "securityContext": security(EXECUTOR_USER) | {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": EXECUTOR, "mountPath": EXECUTOR_MOUNT}],
    }


def _container(source: CodeSource, user: int, socket: Manifest, settings: PodSettings) -> Manifest:
    limit = {"resourceFieldRef": {"containerName": WORKSPACE, "resource": "limits.memory"}}
    return {
        "name": WORKSPACE,
        "image": source.image or settings.image,
        "imagePullPolicy": settings.pull_policy,
        # Isolated: else Python would run what code has put into its home, before the executor's walls stand.
        "command": ["python3", "-I", f"{EXECUTOR_MOUNT}/executor.pyz"],
        "workingDir": CODE_MOUNT,
        "env": [
            {"name": "HOME", "value": CODE_MOUNT},
            {"name": "TMPDIR", "value": "/tmp"},  # noqa: S108 - of the container, not ours
            {"name": "TENURE_EXEC_SOCKET", "value": f"{SOCKET_MOUNT}/exec.sock"},
            {"name": "TENURE_MAX_PROCESSES", "value": str(source.max_processes)},
            {"name": "TENURE_MEMORY_BYTES", "valueFrom": limit},
            {"name": "TENURE_NETWORK", "value": source.network.value},
        ],
        "resources": amounts(code_resources(source.resources)),
        "lifecycle": AFTER_THE_TURN,
        "securityContext": security(user) | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "state", "mountPath": CODE_MOUNT, "subPath": "workspace"},
            socket,
            {"name": "workspace-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
            {"name": EXECUTOR, "mountPath": EXECUTOR_MOUNT, "readOnly": True},
        ],
    }
