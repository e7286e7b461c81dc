"""What every cluster can do, and which one is used here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from .shell import ClusterError


class NodeChange(StrEnum):
    """What can be done to a node of a cluster that runs."""

    ADD = "add"
    REMOVE = "remove"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True)
class Info:
    """What tests need to know about the cluster. Paths are strings: this is printed as JSON."""

    provider: str
    kubeconfig: str
    bin_dir: str | None
    """Holds kubectl and helm; None when those on PATH are meant."""
    audit_log: str | None
    """JSON lines of every mutating request; None where the API server's log cannot be read."""
    nodes: list[str]
    volume_root: str | None
    """Host directory below which the directories of volumes live (one folder per node); None if out of reach."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Provider(Protocol):
    name: str

    def up(self, nodes: int) -> Info: ...

    def down(self) -> None: ...

    def info(self) -> Info: ...

    def load(self, images: Sequence[str]) -> None: ...

    def build(self, names: Sequence[str], tag: str) -> None: ...


@dataclass(frozen=True)
class Candidate:
    """A provider and how to learn why it cannot be used here (None: it can)."""

    name: str
    refusal: Callable[[], str | None]
    make: Callable[[], Provider]


def choose(candidates: Sequence[Candidate], environ: Mapping[str, str] = os.environ) -> Provider:
    """The first candidate that can be used; `TENURE_TEST_PROVIDER` insists on one."""
    wanted = environ.get("TENURE_TEST_PROVIDER")
    if wanted:
        candidates = [c for c in candidates if c.name == wanted]
        if not candidates:
            raise ClusterError(f"TENURE_TEST_PROVIDER names no provider: {wanted}")
    reasons = []
    for candidate in candidates:
        reason = candidate.refusal()
        if reason is None:
            return candidate.make()
        reasons.append(f"  {candidate.name}: {reason}")
    raise ClusterError(
        "no Kubernetes cluster can be made here:\n" + "\n".join(reasons) + "\n"
        "Install docker and kind, or name a cluster's kubeconfig in TENURE_TEST_KUBECONFIG."
    )
