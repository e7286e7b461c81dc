"""Events in the namespace of the object they are about: one for each transition worth telling, never on every look."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from tenure_operator.api_client import Api
from tenure_operator.errors import OperatorError
from tenure_operator.kinds import EVENTS, Kind, Meta

WINDOW_SECONDS = 600.0
"""An event of the same object and reason is not told again for so long."""
CONTROLLER = "tenure.dev/operator"
NOTE_BYTES = 1000  # the API server refuses more than 1 kB

logger = logging.getLogger(__name__)


class Events:
    """Records events. Best effort: what cannot be recorded is logged, and nothing fails for it."""

    def __init__(self, api: Api, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._instance = instance
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    async def tell(
        self, about: tuple[Kind, Meta], type_: Literal["Normal", "Warning"], reason: str, action: str, note: str
    ) -> None:
        """Records an event unless the same was told lately."""
        kind, meta = about
        now = self._clock()
        while self._told and (first := next(iter(self._told))) and self._told[first] <= now - WINDOW_SECONDS:
            del self._told[first]
        if (meta.uid, reason) in self._told:
            return
        self._told[meta.uid, reason] = now
        try:
            await self._api.create(EVENTS, self._manifest(kind, meta, type_, reason, action, note))
        except OperatorError as error:
            logger.info("the event %s about %s %s/%s is lost: %s", reason, kind.name, meta.namespace, meta.name, error)

    def _manifest(self, kind: Kind, meta: Meta, type_: str, reason: str, action: str, note: str) -> dict[str, object]:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.name,
            "metadata": {"name": f"{meta.name}.{uuid4().hex[:16]}", "namespace": meta.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "type": type_,
            "reason": reason,
            "action": action,
            "note": note.encode()[:NOTE_BYTES].decode(errors="ignore"),
            "regarding": {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
            },
        }
