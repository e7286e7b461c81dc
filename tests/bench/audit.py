"""Writes, as the API server's audit log has them. The local cluster logs every mutating request."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.tenure import SYSTEM

TENURE = f"system:serviceaccount:{SYSTEM}:tenure-"


@dataclass(frozen=True)
class Write:
    """A request that has changed something. Dry runs and refused requests change nothing; reviews are questions."""

    who: str
    verb: str
    namespace: str
    what: str

    @property
    def by_tenure(self) -> bool:
        return self.who.startswith(TENURE)

    def __str__(self) -> str:
        return f"{self.who.rsplit(':', 1)[-1]}: {self.verb} {self.what}"


@contextmanager
def audited(log: Path, namespace: str) -> Iterator[list[Write]]:
    """The writes to a namespace inside the block; the list is filled at its end."""
    writes: list[Write] = []
    with log.open() as file:
        file.seek(0, 2)
        yield writes
        time.sleep(1)
        complete, _, _ = file.read().rpartition("\n")
    writes += written(complete.splitlines(), namespace)


def written(lines: Sequence[str], namespace: str) -> Iterator[Write]:
    for line in lines:
        record = json.loads(line)
        target, status = record.get("objectRef", {}), record.get("responseStatus", {})
        if target.get("namespace") != namespace or record["stage"] != "ResponseComplete":
            continue
        if status.get("code", 500) < 300 and "dryRun=" not in record["requestURI"]:
            parts = (target["resource"], target.get("subresource"))
            yield Write(record["user"]["username"], record["verb"], namespace, "/".join(part for part in parts if part))
