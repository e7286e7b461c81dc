"""The volume of a session."""

from tenure_api import names
from tenure_api.agent import Storage
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.kinds import CLAIMS, SESSIONS, Manifest, Meta


def claim(session: Meta, agent: str, storage: Storage) -> Manifest:
    """The claim of a session's journal and workspace.

    Size and class are taken from the agent when the session is made and hold for its life: a claim's spec cannot be
    changed, save for growth where the StorageClass allows it. ReadWriteOnce, since ReadWriteOncePod needs a CSI driver.
    """
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    name = names.session_claim(session.name)
    return manifest(CLAIMS, name, (SESSIONS, session), labels("session", agent, session.name), spec=spec)
