"""The volume of a session."""

from tenure_api import names
from tenure_api.agent import Storage
from tenure_api.names import SUBJECT_ANNOTATION
from tenure_operator.desired.parts import manifest
from tenure_operator.desired.quantity import amount
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import CLAIMS, Manifest


def claim(of: SetOf, storage: Storage) -> Manifest:
    """The claim of a session's journal and workspace.

    The class is taken from the agent when the claim is made and holds for its life. ReadWriteOnce, since
    ReadWriteOncePod needs a CSI driver.
    """
    made = claim_as_kept(of)
    made["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storage_class_name is not None:
        made["spec"]["storageClassName"] = storage.storage_class_name
    return made


def claim_as_kept(of: SetOf) -> Manifest:
    """What is kept right on a claim besides its size: whose it is. One that is to be retained has no owner."""
    made = manifest(CLAIMS, names.session_claim(of.name), of.owner, of.labels())
    if of.subject:
        made["metadata"]["annotations"] = {SUBJECT_ANNOTATION: of.subject}
    if of.retained:
        made["metadata"]["ownerReferences"] = []
    return made


def requested(live: Manifest) -> str:
    """The size that a claim asks for, as a quantity."""
    size: str = live["spec"]["resources"]["requests"]["storage"]
    return size


def grown(of: SetOf, live: Manifest, storage: Storage) -> Manifest | None:
    """The claim at the size that the agent asks for; None if it has that or more. No volume ever shrinks."""
    if amount(storage.size) <= amount(requested(live)):
        return None
    return claim_as_kept(of) | {"spec": {"resources": {"requests": {"storage": storage.size}}}}
