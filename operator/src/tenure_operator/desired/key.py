"""The Secret of a session."""

import base64

from tenure_api import names
from tenure_operator.desired.parts import manifest
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import CLAIMS, SECRETS, Manifest, Meta

DATA_KEY = "data-key"
POD_TOKEN = "pod-token"
DATA_KEY_BYTES = 32
"""AES-256."""
POD_TOKEN_BYTES = 32
"""Of randomness: nobody guesses 256 bits."""


def key(of: SetOf, claim: Meta, data_key: bytes, pod_token: str) -> Manifest:
    """The key that seals the journal, and the token by which the agent container speaks to its sidecar.

    It belongs to the volume's claim, and goes and stays with it. Immutable, and labelled so that the chart's admission
    policy can protect it against deletion.
    """
    content = {DATA_KEY: data_key, POD_TOKEN: pod_token.encode()}
    return manifest(
        SECRETS,
        names.session_key(of.name, claim.uid),
        (CLAIMS, claim),
        of.labels() | {names.KEY_LABEL: "true"},
        type="Opaque",
        immutable=True,
        data={name: base64.b64encode(value).decode() for name, value in content.items()},
    )
