"""What the API server logs of the requests it gets."""

from __future__ import annotations

import json

MUTATING = ("create", "update", "patch", "delete", "deletecollection")


def policy() -> str:
    """Every write, with its user and user agent, so that tests and benches can count them; no reads."""
    return json.dumps(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "verbs": list(MUTATING)}, {"level": "None"}],
        }
    )
