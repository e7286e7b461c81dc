"""The few questions `up` asks the API server. Not kubectl: starting that costs more than the answer."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .layout import API_SERVER


class Api:
    def __init__(self, pki: Path) -> None:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def _get(self, path: str) -> bytes | None:
        try:
            with self._opener.open(API_SERVER + path, timeout=3) as response:
                return bytes(response.read())
        except (urllib.error.URLError, OSError):
            return None

    def ready(self) -> bool:
        return self._get("/readyz") == b"ok"

    def object(self, path: str) -> dict[str, Any] | None:
        body = self._get(path)
        if body is None:
            return None
        decoded: dict[str, Any] = json.loads(body)
        return decoded

    def node_ready(self, name: str) -> bool:
        return _condition(self.object(f"/api/v1/nodes/{name}"), "Ready")

    def deployment_available(self, namespace: str, name: str) -> bool:
        found = self.object(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        return _condition(found, "Available")


def _condition(found: dict[str, Any] | None, kind: str) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
