"""The pod of a session.

The sidecar holds volume, keys and credentials; the agent holds nothing, nor does the workspace, where code runs.
"""

import hashlib
import json

from tenure_api import names
from tenure_api.agent import AgentSpec
from tenure_api.fields import Amounts, Resources
from tenure_api.names import POD_HASH_ANNOTATION
from tenure_api.wire import METRICS_PORT, MODEL_PROXY_PORT, RUNTIME_PORT, SIDECAR_PORT
from tenure_operator.desired.containers import GROUP_ID, PodSettings, amounts, security, with_defaults
from tenure_operator.desired.credentials import credential_volumes
from tenure_operator.desired.key import DATA_KEY, POD_TOKEN
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.desired.workspace import workspace
from tenure_operator.kinds import PODS, SESSIONS, Manifest, Meta

SIDECAR = "sidecar"
AGENT = "agent"
SIDECAR_USER = 65501
AGENT_USER = 65502

KEY_MOUNT = "/var/run/tenure/key"
CONFIG_MOUNT = "/etc/tenure"

AGENT_DEFAULTS = Resources(requests=Amounts(cpu="10m", memory="96Mi"), limits=Amounts(memory="512Mi"))

_NOBODY = Meta("", "", "")


def _get(path: str, **timing: int) -> Manifest:
    return {"httpGet": {"path": path, "port": SIDECAR_PORT}, **timing}


def _sidecar(session: Meta, settings: PodSettings, mounts: list[Manifest]) -> Manifest:
    return {
        "name": SIDECAR,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["tenure-sidecar"],
        "restartPolicy": "Always",  # a native sidecar: starts before the agent container and stops after it
        "env": [
            {"name": "TENURE_SESSION_UID", "value": session.uid},
            {"name": "TENURE_SESSION", "value": f"{session.namespace}/{session.name}"},
        ],
        "ports": [
            {"name": "sidecar", "containerPort": SIDECAR_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": amounts(settings.sidecar),
        "securityContext": security(SIDECAR_USER) | {"readOnlyRootFilesystem": True},
        "startupProbe": _get("/healthz", periodSeconds=1, failureThreshold=60, timeoutSeconds=5),
        "readinessProbe": _get("/readyz", periodSeconds=1, failureThreshold=2, timeoutSeconds=2),
        "livenessProbe": _get("/healthz", periodSeconds=10, failureThreshold=6, timeoutSeconds=5),
        "volumeMounts": mounts,
    }


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
        "readinessProbe": {"tcpSocket": {"port": RUNTIME_PORT}, "periodSeconds": 1, "failureThreshold": 3},
        "volumeMounts": [
            {"name": "state", "mountPath": "/workspace", "subPath": "workspace"},
            {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
        ],
    }


def _spec(session: Meta, agent: str, spec: AgentSpec, settings: PodSettings) -> Manifest:
    key = names.session_key(session.name, session.uid)
    code = workspace(spec, session.uid, settings)
    credentials, credential_mounts = credential_volumes(spec, settings.audience)
    volumes: list[Manifest] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": names.session_claim(session.name)}},
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
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": GROUP_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [*code.init, _sidecar(session, settings, mounts)],
        "containers": [_agent(spec, key, settings), *code.containers],
        "volumes": volumes,
        **({"runtimeClassName": virtual} if virtual else {}),
    }


def pod_hash(agent: str, spec: AgentSpec, settings: PodSettings) -> str:
    """A hash of all that the agent and the settings say about its pods, the same for all sessions of the agent."""
    text = json.dumps(_spec(_NOBODY, agent, spec, settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pod(session: Meta, agent: str, spec: AgentSpec, settings: PodSettings) -> Manifest:
    """The pod of a session."""
    made = manifest(
        PODS,
        names.session_pod(session.name),
        (SESSIONS, session),
        labels("session", agent, session.name),
        spec=_spec(session, agent, spec, settings),
    )
    made["metadata"]["annotations"] = {POD_HASH_ANNOTATION: pod_hash(agent, spec, settings)}
    return made


def pod_labels(session: Meta, agent: str) -> Manifest:
    """What is kept right on a pod that runs: its labels and owner. Its spec cannot be changed."""
    return manifest(PODS, names.session_pod(session.name), (SESSIONS, session), labels("session", agent, session.name))
