"""Whose an object is, and what a child needs to be as it should: pure."""

from enum import Enum, auto
from typing import NamedTuple

from tenure_api.names import API_VERSION
from tenure_operator.difference import has_drifted
from tenure_operator.kinds import Kind, Manifest, Meta


class Standing(Enum):
    """Whose a child's name is."""

    ABSENT = auto()
    OURS = auto()
    STALE = auto()
    """Of a deleted owner of the same name. The garbage collector will delete it."""
    FOREIGN = auto()


class Child(NamedTuple):
    """A child as it is."""

    kind: Kind
    live: Manifest | None
    standing: Standing

    @property
    def ours(self) -> Manifest | None:
        """The object if it is ours."""
        return self.live if self.standing is Standing.OURS else None

    @property
    def name(self) -> str:
        """Its name, for sentences."""
        return f"{self.kind.name} {self.live['metadata']['name']}" if self.live else self.kind.name


class Create(NamedTuple):
    """Create a child."""

    kind: Kind
    manifest: Manifest


class Repair(NamedTuple):
    """Set a child right."""

    kind: Kind
    manifest: Manifest


def child(kind: Kind, live: Manifest | None, owner_kind: Kind, owner: Meta) -> Child:
    """A child with its standing."""
    return Child(kind, live, _standing(live, owner_kind, owner))


def _standing(live: Manifest | None, owner_kind: Kind, owner: Meta) -> Standing:
    if live is None:
        return Standing.ABSENT
    for reference in live["metadata"].get("ownerReferences", []):
        if reference["uid"] == owner.uid:
            return Standing.OURS
        same_kind = (reference["apiVersion"], reference["kind"]) == (API_VERSION, owner_kind.name)
        if same_kind and reference["name"] == owner.name:
            return Standing.STALE
    return Standing.FOREIGN


def step(have: Child, desired: Manifest) -> list[Create | Repair]:
    """What makes a child as it should be; nothing if it is. Only for one that is absent or ours."""
    if have.live is None:
        return [Create(have.kind, desired)]
    if has_drifted(desired, have.live) and not is_deleting(have.live):
        return [Repair(have.kind, desired)]
    return []


def is_deleting(live: Manifest) -> bool:
    """Whether it is on its way out."""
    return "deletionTimestamp" in live["metadata"]


class Owner(NamedTuple):
    """Tells an object's children from others of the same name, by the owner that they name."""

    kind: Kind
    meta: Meta

    def child(self, kind: Kind, live: Manifest | None) -> Child:
        """An object with its standing."""
        return child(kind, live, self.kind, self.meta)
