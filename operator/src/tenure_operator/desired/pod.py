"""The pod of a session: the sidecar, which holds volume, keys and credentials, and the agent, which holds nothing."""

import hashlib
import json
from dataclasses import dataclass

from tenure_api import names
from tenure_api.agent import AgentSpec
from tenure_api.fields import Amounts, Resources, SecretKeyRef
from tenure_api.names import POD_HASH_ANNOTATION
from tenure_api.wire import METRICS_PORT, MODEL_PROXY_PORT, RUNTIME_PORT, SIDECAR_PORT
from tenure_operator.desired.key import DATA_KEY, POD_TOKEN
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.kinds import PODS, SESSIONS, Manifest, Meta

SIDECAR = "sidecar"
AGENT = "agent"
GROUP_ID = 65500
SIDECAR_USER = 65501
AGENT_USER = 65502

KEY_MOUNT = "/var/run/tenure/key"
CONFIG_MOUNT = "/etc/tenure"
CREDENTIALS_MOUNT = "/var/run/tenure/credentials"

AGENT_DEFAULTS = Resources(requests=Amounts(cpu="10m", memory="96Mi"), limits=Amounts(memory="512Mi"))

_NOBODY = Meta("", "", "")


@dataclass(frozen=True)
class PodSettings:
    """What the operator's own settings say about every session pod."""

    image: str
    pull_policy: str
    sidecar: Resources


def _security(user: int) -> Manifest:
    """The restricted Pod Security Standard."""
    return {
        "runAsUser": user,
        "runAsGroup": GROUP_ID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(resources: Resources) -> Manifest:
    return resources.model_dump(exclude_none=True)


def agent_resources(given: Resources | None) -> Resources:
    """What the agent container gets.

    For each of CPU and memory the defaults hold only if nothing is said of it: a default limit could be below a given
    request, and a default request above a given limit.
    """
    requests, limits = (given.requests if given else None), (given.limits if given else None)

    def amount(of: Amounts | None, default: Amounts | None, what: str) -> str | None:
        said = any(getattr(amounts, what) for amounts in (requests, limits) if amounts)
        source = of if said else default
        return getattr(source, what) if source else None

    return Resources(
        requests=Amounts(**{what: amount(requests, AGENT_DEFAULTS.requests, what) for what in ("cpu", "memory")}),
        limits=Amounts(**{what: amount(limits, AGENT_DEFAULTS.limits, what) for what in ("cpu", "memory")}),
    )


def credentials(spec: AgentSpec) -> list[tuple[str, SecretKeyRef]]:
    """The Secrets that the agent refers to, each with the path of the field that does."""
    found = [("spec.model.credentialsSecretRef", spec.model.credentials_secret_ref)]
    for index, fallback in enumerate(spec.model.fallbacks):
        found.append((f"spec.model.fallbacks[{index}].credentialsSecretRef", fallback.credentials_secret_ref))
    return [(field, reference) for field, reference in found if reference is not None]


def _credential_sources(spec: AgentSpec) -> list[Manifest]:
    """One source for each Secret. All are optional: a missing one is for the sidecar to report, not to hang the pod."""
    keys: dict[str, set[str]] = {}
    for _, reference in credentials(spec):
        keys.setdefault(reference.name, set()).add(reference.key)
    return [
        {
            "secret": {
                "name": secret,
                "optional": True,
                "items": [{"key": key, "path": f"{secret}/{key}"} for key in sorted(keys[secret])],
            }
        }
        for secret in sorted(keys)
    ]


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
        "resources": _resources(settings.sidecar),
        "securityContext": _security(SIDECAR_USER) | {"readOnlyRootFilesystem": True},
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
        "resources": _resources(agent_resources(spec.runtime.resources)),
        "securityContext": _security(AGENT_USER),
        "readinessProbe": {"tcpSocket": {"port": RUNTIME_PORT}, "periodSeconds": 1, "failureThreshold": 3},
        "volumeMounts": [
            {"name": "state", "mountPath": "/workspace", "subPath": "workspace"},
            {"name": "agent-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
        ],
    }


def _spec(session: Meta, agent: str, spec: AgentSpec, settings: PodSettings) -> Manifest:
    key = names.session_key(session.name, session.uid)
    sources = _credential_sources(spec)
    volumes: list[Manifest] = [
        {"name": "state", "persistentVolumeClaim": {"claimName": names.session_claim(session.name)}},
        {
            "name": "key",
            "secret": {"secretName": key, "items": [{"key": name, "path": name} for name in (DATA_KEY, POD_TOKEN)]},
        },
        {"name": "config", "configMap": {"name": names.agent_config(agent)}},
        {"name": "sidecar-tmp", "emptyDir": {}},
        {"name": "agent-tmp", "emptyDir": {}},
    ]
    mounts: list[Manifest] = [
        {"name": "state", "mountPath": "/data"},
        {"name": "key", "mountPath": KEY_MOUNT, "readOnly": True},
        {"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True},
        {"name": "sidecar-tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container, not ours
    ]
    if sources:
        volumes.append({"name": "credentials", "projected": {"sources": sources}})
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_MOUNT, "readOnly": True})
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
        "initContainers": [_sidecar(session, settings, mounts)],
        "containers": [_agent(spec, key, settings)],
        "volumes": volumes,
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
