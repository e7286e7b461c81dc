"""A stand-in for the API server: keeps objects, tells of events, counts writes, fails when told to."""

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

from tenure_operator.errors import ConflictError, ExistsError, NotFoundError
from tenure_operator.kinds import PODS, SECRETS, Kind, Manifest

Told = Callable[[Kind, str | None, Manifest], None]


class Killed(BaseException):
    """The process is dead: no `except` of the code under test may see it go on."""


def merged(old: Any, new: Any) -> Any:
    """As server-side apply does it, roughly: mappings key by key, all else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    return copy.deepcopy(new)


class FakeApi:
    """`Api` in memory. A pod's deletion takes until `finish`; all else goes at once."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str, str], Manifest] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.dry_runs = 0
        self.told: Told = lambda *_: None
        self.before: Callable[[str, Kind, str], None] = lambda *_: None
        self.after: Callable[[str, Kind, str], None] = lambda *_: None
        self.time: Callable[[], str] = lambda: "2026-01-01T12:00:00+00:00"
        self._count = 100

    # --- what tests do as users and as other controllers --------------------------------------------------------

    def put(self, kind: Kind, manifest: Manifest, **metadata: Any) -> Manifest:
        """Creates or changes an object; the generation goes up if anything but metadata and status changes."""
        where = (kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        old = self.objects.get(where)
        new = copy.deepcopy(manifest)
        meta = new["metadata"] | metadata
        spec = {k: v for k, v in new.items() if k not in ("metadata", "status")}
        if old is None:
            meta = {"uid": f"{self._next():08x}-uid", "generation": 1, "creationTimestamp": self.time()} | meta
        else:
            old_spec = {k: v for k, v in old.items() if k not in ("metadata", "status")}
            meta = {key: old["metadata"][key] for key in ("uid", "creationTimestamp")} | meta
            meta["generation"] = old["metadata"]["generation"] + (0 if spec == old_spec else 1)
        if (
            old is not None
            and {**new, "metadata": {**meta, "resourceVersion": old["metadata"]["resourceVersion"]}} == old
        ):
            return old
        new["metadata"] = meta | {"resourceVersion": str(self._next())}
        self.objects[where] = new
        self.told(kind, "ADDED" if old is None else "MODIFIED", copy.deepcopy(new))
        return new

    def change(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """Merges a change into an object."""
        return self.put(kind, merged(self.objects[kind, namespace, name], change))

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """An object is gone."""
        gone = self.objects.pop((kind, namespace, name))
        gone["metadata"]["resourceVersion"] = str(self._next())
        self.told(kind, "DELETED", copy.deepcopy(gone))

    def find(self, kind: Kind, name: str, namespace: str = "shop") -> Manifest | None:
        """An object as it is."""
        return self.objects.get((kind, namespace, name))

    # --- the API ------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        if (found := self.objects.get((kind, namespace, name))) is None:
            raise NotFoundError(f"no {kind.name} {name}")
        return copy.deepcopy(found)

    async def pages(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        found = [
            copy.deepcopy(m)
            for (k, ns, _), m in self.objects.items()
            if k is kind and namespace in (None, ns) and _selected(m, selector)
        ]
        yield found, self._count

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        self.before("create", kind, meta["name"])
        if (kind, meta["namespace"], meta["name"]) in self.objects:
            raise ExistsError(f"{kind.name} {meta['name']} exists")
        if kind is PODS:
            manifest = {**manifest, "status": {"phase": "Pending"}}
        return self._written("create", kind, self.put(kind, manifest))

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        self.before("apply", kind, meta["name"])
        old = self.objects.get((kind, meta["namespace"], meta["name"]), {})
        return self._written("apply", kind, self.put(kind, merged(old, manifest)))

    async def merge(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        self.before("merge", kind, meta["name"])
        old = await self.get(kind, meta["namespace"], meta["name"])
        if old["metadata"]["uid"] != meta["uid"]:
            raise ConflictError("another object")
        return self._written("merge", kind, self.put(kind, _without_none(merged(old, manifest))))

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        self.before("status", kind, meta["name"])
        if (old := self.objects.get((kind, meta["namespace"], meta["name"]))) is None:
            raise NotFoundError(f"no {kind.name} {meta['name']}")
        if old["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise ConflictError("changed")
        return self._written("status", kind, self.put(kind, {**old, "status": copy.deepcopy(manifest["status"])}))

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        meta = manifest["metadata"]
        self.before("replace", kind, meta["name"])
        old = await self.get(kind, meta["namespace"], meta["name"])
        if old["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise ConflictError("changed")
        return self._written("replace", kind, self.put(kind, manifest))

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        uid: str,
        resource_version: str | None = None,
        grace: int | None = None,
    ) -> Manifest:
        self.before("delete", kind, name)
        found = await self.get(kind, namespace, name)
        if found["metadata"]["uid"] != uid or resource_version not in (None, found["metadata"]["resourceVersion"]):
            raise ConflictError("another object")
        if kind is PODS and grace != 0:
            ending = merged(found, {"metadata": {"deletionTimestamp": self.time()}, "kind": "Pod"})
            return self._written("delete", kind, self.put(kind, ending))
        self.remove(kind, namespace, name)
        return self._written("delete", kind, {**found, "kind": "Status"})

    async def secret_exists(self, namespace: str, name: str) -> bool:
        self.dry_runs += 1
        return (SECRETS, namespace, name) in self.objects

    def _written(self, verb: str, kind: Kind, manifest: Manifest) -> Manifest:
        self.writes.append((verb, kind.name, manifest["metadata"]["name"]))
        self.after(verb, kind, manifest["metadata"]["name"])
        return copy.deepcopy(manifest)

    def _next(self) -> int:
        self._count += 1
        return self._count


def _without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_none(each) for key, each in value.items() if each is not None}


def _selected(manifest: Manifest, selector: str) -> bool:
    key, _, value = selector.partition("=")
    return not selector or manifest["metadata"].get("labels", {}).get(key) == value
