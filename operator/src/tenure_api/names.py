"""Names and labels that every part of Tenure derives in the same way.

A derived name is the owner's name plus a suffix. The CRDs limit the owner's name to `MAX_NAME` characters, so a
derived name always fits a DNS label (63 characters, RFC 1123; for a Secret it need only fit 253) and needs no hash.
"""

GROUP = "tenure.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_NAME = 52

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "tenure"
AGENT_LABEL = f"{GROUP}/agent"
SESSION_LABEL = f"{GROUP}/session"
KEY_LABEL = f"{GROUP}/data-key"
SET_LABEL = f"{GROUP}/set"
"""Pods, claims, keys and NetworkPolicies: what they are named after. Never changes, unlike the session's label."""
WARM_LABEL = f"{GROUP}/warm"
"""The same objects, while no session has claimed them."""
HOST_LABEL = f"{GROUP}/host"
"""The same objects, if they are those of a host of many sessions."""
SUBJECT_ANNOTATION = f"{GROUP}/subject"
"""Claims: whose session it is, so that a volume that was retained goes to nobody else."""
STORAGE_ANNOTATION = f"{GROUP}/storage"
"""Claims of a warm pool: the size and class that they were made to."""
GENERATION_ANNOTATION = f"{GROUP}/generation"
"""Pods: the lease generation that the pod was made for. Claims of hosts: the one of the latest pod."""
WAKE_ANNOTATION = f"{GROUP}/wake"
"""AgentSession: a lease generation; if the session sleeps and its own is not higher, it is woken."""
COMPONENT_LABEL = "app.kubernetes.io/component"
METADATA_ANNOTATION = f"{GROUP}/metadata"
POD_HASH_ANNOTATION = f"{GROUP}/pod-hash"
PARENT_LABEL = f"{GROUP}/parent"
"""AgentSession made for a call of another agent: the session that called."""
CALL_ANNOTATION = f"{GROUP}/call"
"""AgentSession made for a call of another agent: `<turn>/<step>` of the session that called."""
RECOVERED_ANNOTATION = f"{GROUP}/recovered"
"""AgentSession: `<turn>/<step>` of the latest call with an unknown outcome that a person has looked into."""


def agent_account(agent: str) -> str:
    """ServiceAccount under which the agent's session pods run; it has no rights and its token is never mounted."""
    return f"{agent}-agent"


def agent_config(agent: str) -> str:
    """ConfigMap with the agent's `SessionConfig`, read by the sidecar when it starts."""
    return f"{agent}-agent"


def session_pod(set_name: str) -> str:
    """Pod of a session. The name is fixed, so that the API server itself refuses a second pod."""
    return f"{set_name}-session"


def session_claim(set_name: str) -> str:
    """PersistentVolumeClaim with the session's journal and workspace."""
    return f"{set_name}-state"


def session_key(set_name: str, claim_uid: str) -> str:
    """Secret with the session's data key and the token between its two containers.

    The operator cannot read Secrets, so the name itself must tell the key of this volume from the one of a deleted
    volume of the same name that is not collected yet: it has the first group of the claim's UID.
    """
    return f"{set_name}-{claim_uid.split('-', 1)[0]}-key"


def session_network(set_name: str) -> str:
    """NetworkPolicy of the session's pod."""
    return f"{set_name}-session"


def warm_set(agent: str, suffix: str) -> str:
    """Name of a set of pod, claim and key that is made ahead; fits as a session's name does."""
    return f"{agent[: MAX_NAME - len(suffix) - 6].rstrip('-')}-warm-{suffix}"


def host_set(agent: str, number: int) -> str:
    """Name of the set of one of the pods that all sessions of an agent share."""
    return f"{agent}-shared-{number}"
