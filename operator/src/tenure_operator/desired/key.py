"""The Secret of a session."""

import base64

from tenure_api import names
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.kinds import SECRETS, SESSIONS, Manifest, Meta

DATA_KEY = "data-key"
POD_TOKEN = "pod-token"
DATA_KEY_BYTES = 32
"""AES-256."""


def key(session: Meta, agent: str, data_key: bytes, pod_token: str) -> Manifest:
    """The key that seals the journal, and the token by which the agent container speaks to its sidecar.

    Immutable, and labelled so that the chart's admission policy can protect it against deletion.
    """
    content = {DATA_KEY: data_key, POD_TOKEN: pod_token.encode()}
    return manifest(
        SECRETS,
        names.session_key(session.name, session.uid),
        (SESSIONS, session),
        labels("session", agent, session.name) | {names.KEY_LABEL: "true"},
        type="Opaque",
        immutable=True,
        data={name: base64.b64encode(value).decode() for name, value in content.items()},
    )
