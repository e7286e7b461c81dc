"""Manifests that are only tried: the API server says what it thinks of them and keeps nothing."""

import copy
import json
from typing import Any

import pytest
import yaml

from harness import manifests
from harness.kube import Kube, KubectlError, Manifest
from tenure_api.crdgen import KINDS

URL = "http://model.example.com/v1"
Bad = tuple[Manifest, str, str]
"""A manifest, the field that its refusal must name, and the words in which it must say what to write instead."""


def agent(*path: str, value: Any = None, name: str = "helper", **model: Any) -> Manifest:
    """An agent; the value at `path` in its spec is replaced, and so are parts of its model."""
    made = manifests.agent(name, model={"name": "m", "baseURL": URL, **model})
    return changed(made, *path, value=value)


def changed(manifest: Manifest, *path: str, value: Any) -> Manifest:
    """The manifest with one value of its spec replaced, or taken out if it is None. Objects on the way are made."""
    made = copy.deepcopy(manifest)
    if path:
        *parents, last = path
        node = made["spec"]
        for key in parents:
            node = node.setdefault(key, {})
        if value is None:
            del node[last]
        else:
            node[last] = value
    return made


def attempt(kube: Kube, manifest: Manifest) -> str:
    """What the API server says to a manifest, which is not kept. Raises `KubectlError` if it refuses."""
    return kube.run("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=yaml.safe_dump(manifest))


def must_be_refused(kube: Kube, bad: Bad) -> None:
    """The API server refuses a manifest, names the field, and says what to write instead."""
    manifest, field, fix = bad
    with pytest.raises(KubectlError) as refusal:
        attempt(kube, manifest)
    assert field in str(refusal.value)
    assert fix in str(refusal.value)


def must_be_read_and_written_back(kube: Kube, manifest: Manifest) -> None:
    """Nothing is lost, renamed or refused on the way from the API server into a model and back."""
    (kind,) = [kind for kind in KINDS if kind.model.__name__ == manifest["kind"]]
    served = json.loads(attempt(kube, manifest))
    read = kind.model.model_validate(served)
    written = {**manifest, "spec": read.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]}
    assert filled(written["spec"]) == filled(served["spec"])
    again = json.loads(attempt(kube, written))
    assert kind.model.model_validate(again) == read


def filled(value: Any) -> Any:
    """The value without empty objects and lists, which say the same as nothing."""
    if isinstance(value, list):
        return [filled(part) for part in value]
    if not isinstance(value, dict):
        return value
    parts = {key: filled(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part not in ({}, [])}
