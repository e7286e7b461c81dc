"""What every reconciler works with: what is known, whom to ask, and how to write."""

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pydantic import BaseModel

from tenure_api.configuration import SessionConfig
from tenure_operator.api_client import Api
from tenure_operator.cache import Cache, Change, Name, name_of, warm_for
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.key import DATA_KEY_BYTES, POD_TOKEN_BYTES, key
from tenure_operator.desired.sets import SetOf
from tenure_operator.desired.warm import adopted
from tenure_operator.errors import ConflictError, ContendedError, ExistsError, NotFoundError, WaitingError
from tenure_operator.events import Events
from tenure_operator.kinds import PODS, SECRETS, SESSIONS, Key, Kind, Manifest, Meta
from tenure_operator.reconcile.children import Child, Standing
from tenure_operator.reconcile.forks import Needs
from tenure_operator.reconcile.pool_sets import Pools
from tenure_operator.restraint import Restraint
from tenure_operator.sightings import Sightings
from tenure_operator.wakes import wakes

Ask = Callable[[Key, float], None]


@dataclass(frozen=True)
class Fixed:
    """What does not change while the process runs."""

    namespace: str
    """Of the release."""
    pods: PodSettings
    public_keys: dict[str, str]
    """PEMs by issuer."""
    gateway_url: str
    """Base URL of the gateway, as session pods reach it."""
    excepted_networks: tuple[str, ...] = ()
    """What session pods must not reach, by the settings."""


@dataclass
class Wanted:
    """The configuration that an agent's sidecars must have."""

    config: SessionConfig
    digest: str


class Of(Protocol):
    """Whose children are looked at."""

    @property
    def meta(self) -> Meta:
        """The owner."""

    def child(self, kind: Kind, live: Manifest | None) -> Child:
        """An object with its standing."""


@dataclass
class World:
    """Shared state of the reconcilers. Everything in it can be had again from the API server and the sidecars."""

    api: Api
    cache: Cache
    events: Events
    restraint: Restraint
    fixed: Fixed
    ask: Ask
    """Asks for a reconcile, in some seconds."""
    visit: Ask
    """Asks for a visit to a session's sidecar, in some seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sightings: Sightings = field(default_factory=Sightings)
    hosts: Sightings = field(default_factory=Sightings)
    """Of the sidecars that are hosts of many sessions, by set."""
    wanted: dict[Name, Wanted] = field(default_factory=dict)
    """By agent."""
    needs: Needs = field(default_factory=Needs)
    """Sessions that others are made from just now: they must run."""
    pools: Pools = field(default_factory=Pools)
    unused_leases: dict[Name, int] = field(default_factory=dict)
    """By session, a lease generation that was taken for a pod which the API server then surely did not make."""
    growth_refused: dict[Name, str] = field(default_factory=dict)
    """By session, the size that its StorageClass does not let its volume grow to."""
    api_networks: tuple[str, ...] = ()
    """The API server's addresses, as networks."""

    def learn(self, kind: Kind, manifest: Manifest) -> None:
        """An object is as it is here, by whichever way that was learned."""
        if change := self.cache.put(kind, manifest):
            self.learned(change)

    def learned(self, change: Change) -> None:
        """The cache has changed: asks for whatever depends on it."""
        for wanted, delay in wakes(self.cache, change):
            self.ask(wanted, delay)

    def release(self, fork: Name) -> None:
        """A session is not made from another any more: that one may sleep again."""
        for source in self.needs.release(fork):
            self.ask(Key(SESSIONS, *source), 0.0)

    async def refresh(self, kind: Kind, name: Name) -> Manifest | None:
        """The object as the API server has it now."""
        try:
            live = await self.api.get(kind, *name)
        except NotFoundError:
            known = self.cache.get(kind, *name)
            if known is not None and (
                change := self.cache.forget(kind, name, int(known["metadata"]["resourceVersion"]))
            ):
                self.learned(change)
            return None
        if change := self.cache.put(kind, live, read_now=True):
            self.learned(change)
        return self.cache.get(kind, *name)

    async def child(self, kind: Kind, name: str, of: "Of") -> Child:
        """A child as it is. Another's object is looked at anew, since no watch tells when it is gone."""
        found = of.child(kind, self.cache.get(kind, of.meta.namespace, name))
        if found.standing is Standing.FOREIGN:
            found = of.child(kind, await self.refresh(kind, (of.meta.namespace, name)))
        return found

    async def delete(self, kind: Kind, live: Manifest) -> None:
        """Deletes this very object, if it is still there."""
        meta = live["metadata"]
        try:
            ended = await self.api.delete(kind, meta["namespace"], meta["name"], meta["uid"])
        except (NotFoundError, ConflictError):
            await self.refresh(kind, name_of(live))
            return
        if ended.get("kind") == kind.name:
            self.learn(kind, ended)

    async def give_up(self, pod: Manifest) -> None:
        """Deletes a pod without waiting for its node, which does not answer."""
        meta = pod["metadata"]
        with contextlib.suppress(NotFoundError, ConflictError):
            await self.api.delete(PODS, meta["namespace"], meta["name"], meta["uid"], grace=0)
        await self.refresh(PODS, name_of(pod))

    async def write_status(self, kind: Kind, meta: Meta, status: BaseModel) -> None:
        """Writes a status. What is unknown is left out, and so removed.

        Raises `ConflictError` if the object has changed since it was seen: it may even be another of the same name, and
        for a status the API server does not compare UIDs.
        """
        applied = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {
                "namespace": meta.namespace,
                "name": meta.name,
                "resourceVersion": meta.resource_version,
            },
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            self.learn(kind, await self.api.apply_status(kind, applied))
        except NotFoundError:
            return  # deleted meanwhile

    async def create(self, kind: Kind, manifest: Manifest) -> None:
        """Creates a child.

        Raises `WaitingError` if the name is taken: by what we made but did not know of, or by another's object, which
        the next look will tell apart.
        """
        try:
            self.learn(kind, await self.api.create(kind, manifest))
        except ExistsError:
            await self.refresh(kind, name_of(manifest))
            raise WaitingError(f"{kind.name} {manifest['metadata']['name']} was there already") from None

    async def create_key(self, of: SetOf, claim: Meta) -> None:
        """Makes the key of a claim. If it is there, a run of ours made it that got no further: its name has the UID."""
        made = key(
            of, claim, data_key=secrets.token_bytes(DATA_KEY_BYTES), pod_token=secrets.token_urlsafe(POD_TOKEN_BYTES)
        )
        with contextlib.suppress(ExistsError):
            await self.api.create(SECRETS, made)

    async def repair(self, kind: Kind, manifest: Manifest) -> None:
        """Sets a child right that has drifted. Raises `ContendedError` if that did not last the last times."""
        live = self.cache.get(kind, *name_of(manifest))
        if live is not None and warm_for(live) and not warm_for(manifest):
            self.learn(kind, await self.api.merge(kind, adopted(manifest, live)))
            return
        what = (kind, name_of(manifest))
        if self.restraint.delay(what) > 0:
            raise ContendedError(
                f"{kind.name} {manifest['metadata']['name']} is changed by someone else again and again. "
                "It is set right ever more slowly; see who changes it with `kubectl get --show-managed-fields`."
            )
        self.restraint.note(what)
        self.learn(kind, await self.api.apply(kind, manifest))
