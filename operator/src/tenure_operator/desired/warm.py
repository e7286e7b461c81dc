"""A set that is made ahead: pod, claim, key and NetworkPolicy that no session has yet."""

import json
from dataclasses import dataclass
from decimal import Decimal

from tenure_api.agent import AgentSpec, Storage
from tenure_api.names import STORAGE_ANNOTATION, WARM_LABEL
from tenure_operator.desired.claim import claim
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.network import network
from tenure_operator.desired.parts import owner
from tenure_operator.desired.pod import Run, pod
from tenure_operator.desired.quantity import total
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import CLAIMS, Manifest, Meta

FIRST_GENERATION = 1
"""Of the lease of a session that claims a set: the set's pod is its first."""


def storage_of(storage: Storage) -> str:
    """What the claim of a set was made to, in a form that can be compared."""
    return json.dumps([storage.size, storage.storage_class_name])


def warm_claim(of: SetOf, storage: Storage) -> Manifest:
    """The claim of a set."""
    made = claim(of, storage)
    made["metadata"]["annotations"] = {STORAGE_ANNOTATION: storage_of(storage)}
    return made


def warm_network(of: SetOf, made: Meta, release_namespace: str, excepted: tuple[str, ...]) -> Manifest:
    """The NetworkPolicy of a set. It goes with the claim, as the key does, so that nobody need be let delete it."""
    found = network(of, release_namespace, excepted)
    found["metadata"]["ownerReferences"] = [owner(CLAIMS, made)]
    return found


def warm_pod(of: SetOf, identity: str, spec: AgentSpec, settings: PodSettings) -> Manifest:
    """The pod of a set."""
    return pod(of, Run(identity, FIRST_GENERATION), spec, settings)


def adopted(desired: Manifest, live: Manifest) -> Manifest:
    """What is merged into an object of a set that a session has claimed, so that it is the session's."""
    meta, wanted = live["metadata"], desired["metadata"]
    said = {key: wanted[key] for key in ("annotations", "ownerReferences") if key in wanted}
    named = {key: meta[key] for key in ("namespace", "name", "uid")}
    return {"metadata": {**named, **said, "labels": {**wanted["labels"], WARM_LABEL: None}}}


@dataclass(frozen=True)
class Reserve:
    """What one set keeps from others."""

    cpu: Decimal
    memory: Decimal
    storage: Decimal


def reserve(agent: Meta, spec: AgentSpec, settings: PodSettings) -> Reserve:
    """What each set of an agent reserves: its volume, and what the containers of its pod ask for that run on."""
    made = warm_pod(SetOf.warm(agent, agent.name), "", spec, settings)["spec"]
    sidecars = [container for container in made["initContainers"] if container.get("restartPolicy") == "Always"]
    asked = [container.get("resources", {}).get("requests", {}) for container in [*sidecars, *made["containers"]]]

    def of(what: str) -> Decimal:
        return total(requests[what] for requests in asked if what in requests)

    return Reserve(of("cpu"), of("memory"), total([spec.session.storage.size]))
