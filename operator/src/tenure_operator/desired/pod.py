"""The pod of a session.

The sidecar holds volume, keys and credentials; the agent holds nothing, nor does the workspace, where code runs.
"""

import hashlib
import json
from dataclasses import dataclass

from tenure_api import names
from tenure_api.agent import AgentSpec, Isolation
from tenure_api.fields import Amounts, Resources
from tenure_api.names import GENERATION_ANNOTATION, POD_HASH_ANNOTATION
from tenure_api.session import Source
from tenure_api.wire import METRICS_PORT, MODEL_PROXY_PORT, RUNTIME_PORT, SIDECAR_PORT
from tenure_operator.desired.containers import AFTER_THE_TURN, GROUP_ID, PodSettings, amounts, security, with_defaults
from tenure_operator.desired.credentials import credential_volumes
from tenure_operator.desired.key import DATA_KEY, POD_TOKEN
from tenure_operator.desired.parts import manifest
from tenure_operator.desired.sets import SetOf
from tenure_operator.desired.workspace import workspace
from tenure_operator.kinds import AGENTS, PODS, Manifest, Meta

SIDECAR = "sidecar"
AGENT = "agent"
SIDECAR_USER = 65501
AGENT_USER = 65502

KEY_MOUNT = "/var/run/tenure/key"
CONFIG_MOUNT = "/etc/tenure"

AGENT_DEFAULTS = Resources(requests=Amounts(cpu="10m", memory="96Mi"), limits=Amounts(memory="512Mi"))

GRACE_SECONDS = 60
"""How long the turn that runs may take to end when the pod is evicted; a pod that is idle ends at once."""
NODE_SECONDS = 30
"""How long a pod stays bound to a node that does not answer. The session's pods are few and its lease keeps the old one
from writing, so it need not be the five minutes that Kubernetes gives by default."""


@dataclass(frozen=True)
class Run:
    """One run of a session: what its pod is told besides what the agent says."""

    identity: str
    """UID of the claim: what journal, key and tokens are bound to."""
    generation: int
    """Of the lease."""
    source: Source | None = None
    """Where the first state comes from."""
    prepared: bool = False
    """A sidecar has worked on this volume before."""


_ANY_SET = SetOf("", "", (AGENTS, Meta("", "", "")))
_ANY_RUN = Run("", 0)


def _get(path: str, **timing: int) -> Manifest:
    return {"httpGet": {"path": path, "port": SIDECAR_PORT}, **timing}


STARTED = _get("/healthz", periodSeconds=1, failureThreshold=60, timeoutSeconds=5)


def _source(source: Source | None) -> list[Manifest]:
    if source is None:
        return []
    if source.import_from is None:
        return [{"name": "TENURE_SOURCE", "value": "Fork"}]
    digest = {"name": "TENURE_SOURCE_DIGEST", "value": source.import_from.digest}
    return [{"name": "TENURE_SOURCE", "value": "Import"}, digest]


def _sidecar(of: SetOf, run: Run, spec: AgentSpec, settings: PodSettings, mounts: list[Manifest]) -> Manifest:
    session = of.session
    return {
        "name": SIDECAR,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["tenure-sidecar"],
        "restartPolicy": "Always",  # a native sidecar: starts before the agent container and stops after it
        "env": [
            {"name": "TENURE_IDENTITY", "value": run.identity},
            {"name": "TENURE_GENERATION", "value": str(run.generation)},
            *([{"name": "TENURE_SESSION", "value": f"{session.namespace}/{session.name}"}] if session else []),
            *_source(run.source),
            *([{"name": "TENURE_SHARED", "value": "true"}] if _is_shared(spec) else []),
        ],
        "ports": [
            {"name": "sidecar", "containerPort": SIDECAR_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": amounts(settings.sidecar),
        "securityContext": security(SIDECAR_USER) | {"readOnlyRootFilesystem": True},
        # On a new volume the agent's directory must be there before the kubelet mounts it. Later the containers start
        # side by side: a request may be waiting for them.
        **({} if run.prepared else {"startupProbe": STARTED}),
        "readinessProbe": _get("/readyz", periodSeconds=1, failureThreshold=2, timeoutSeconds=2),
        "livenessProbe": _get("/healthz", periodSeconds=10, failureThreshold=6, timeoutSeconds=5),
        "volumeMounts": mounts,
    }


def _is_shared(spec: AgentSpec) -> bool:
    return spec.session.isolation is Isolation.SHARED


def _agent(spec: AgentSpec, key: str, settings: PodSettings) -> Manifest:
    environment: list[Manifest] = [
        {"name": "OPENAI_BASE_URL", "value": f"http://127.0.0.1:{MODEL_PROXY_PORT}/v1"},
        {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": key, "key": POD_TOKEN}}},
        {"name": "PORT", "value": str(RUNTIME_PORT)},
        {"name": "TENURE_MODEL_API", "value": spec.model.api.value},
    ]
    if spec.model.context_window_tokens is not None:
        environment.append({"name": "TENURE_CONTEXT_WINDOW_TOKENS", "value": str(spec.model.context_window_tokens)})
    return {
        "name": AGENT,
        "image": spec.runtime.image or settings.image,
        "imagePullPolicy": settings.pull_policy,
        **({} if spec.runtime.image else {"command": ["tenure-runtime"]}),
        "env": environment,
        "ports": [{"name": "agent", "containerPort": RUNTIME_PORT}],
        "resources": amounts(with_defaults(spec.runtime.resources, AGENT_DEFAULTS)),
        "securityContext": security(AGENT_USER),
        "lifecycle": AFTER_THE_TURN,
        "readinessProbe": {"tcpSocket": {"port": RUNTIME_PORT}, "periodSeconds": 1, "failureThreshold": 3},
        "volumeMounts": [
            # The agent that many sessions share has none of their files.
            *([] if _is_shared(spec) else [{"name": "state", "mountPath": "/workspace", "subPath": "workspace"}]),
            {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
        ],
    }


def _spec(of: SetOf, run: Run, agent: str, spec: AgentSpec, settings: PodSettings) -> Manifest:
    key = names.session_key(of.name, run.identity)
    code = workspace(spec, run.identity, settings)
    credentials, credential_mounts = credential_volumes(spec, settings.audience)
    volumes: list[Manifest] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": names.session_claim(of.name)}},
        {
            "name": "key",
            "secret": {"secretName": key, "items": [{"key": name, "path": name} for name in (DATA_KEY, POD_TOKEN)]},
        },
        {"name": "config", "configMap": {"name": names.agent_config(agent)}},
        {"name": "sidecar-tmp", "emptyDir": {}},
        {"name": "agent-tmp", "emptyDir": {}},
        *credentials,
        *code.volumes,
    ]
    mounts: list[Manifest] = [
        {"name": "state", "mountPath": "/data"},
        {"name": "key", "mountPath": KEY_MOUNT, "readOnly": True},
        {"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True},
        {"name": "sidecar-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
        *credential_mounts,
        *code.sidecar_mounts,
    ]
    virtual = spec.runtime.runtime_class_name
    return {
        "serviceAccountName": names.agent_account(agent),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "tolerations": [_tolerated("not-ready"), _tolerated("unreachable")],
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": GROUP_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [*code.init, _sidecar(of, run, spec, settings, mounts)],
        "containers": [_agent(spec, key, settings), *code.containers],
        "volumes": volumes,
        **({"runtimeClassName": virtual} if virtual else {}),
    }


def _tolerated(trouble: str) -> Manifest:
    key = f"node.kubernetes.io/{trouble}"
    return {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_SECONDS}


def pod_hash(agent: str, spec: AgentSpec, settings: PodSettings) -> str:
    """A hash of all that the agent and the settings say about its pods, the same for all sessions of the agent."""
    text = json.dumps(_spec(_ANY_SET, _ANY_RUN, agent, spec, settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision_of(pod_hash: str, config_digest: str) -> str:
    """Names what an agent's sessions run: the template of their pods and the configuration of their sidecars."""
    return hashlib.sha256(f"{pod_hash} {config_digest}".encode()).hexdigest()[:10]


def pod(of: SetOf, run: Run, spec: AgentSpec, settings: PodSettings) -> Manifest:
    """The pod of a set."""
    made = manifest(
        PODS, names.session_pod(of.name), of.owner, of.labels(), spec=_spec(of, run, of.agent, spec, settings)
    )
    made["metadata"]["annotations"] = {
        POD_HASH_ANNOTATION: pod_hash(of.agent, spec, settings),
        GENERATION_ANNOTATION: str(run.generation),
    }
    return made


def pod_labels(of: SetOf) -> Manifest:
    """What is kept right on a pod that runs: its labels and owner. Its spec cannot be changed."""
    return manifest(PODS, names.session_pod(of.name), of.owner, of.labels())
