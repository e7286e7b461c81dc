"""The API server by a bare client, so that no start of kubectl and no polling is part of what is measured."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from kubernetes import config
from kubernetes.dynamic import DynamicClient

Manifest = dict[str, Any]


class Api:
    """Creates objects and watches them. Plain dicts in and out."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = DynamicClient(config.new_client_from_config(kubeconfig))  # type: ignore[no-untyped-call]

    def create(self, namespace: str, manifest: Manifest) -> Manifest:
        """The object as it was created."""
        made: Manifest = self._of(manifest).create(body=manifest, namespace=namespace).to_dict()
        return made

    def write_status(self, made: Manifest, status: Manifest) -> None:
        """Says something in an object's status."""
        meta = made["metadata"]
        self._of(made).status.patch(
            body={**made, "metadata": {"name": meta["name"]}, "status": status},
            name=meta["name"],
            namespace=meta["namespace"],
            content_type="application/merge-patch+json",
        )

    def changes(self, api_version: str, kind: str, namespace: str, name: str, seconds: int) -> Iterator[Manifest]:
        """The states of an object that may not be there yet, from now on for so long."""
        resource = self._client.resources.get(api_version=api_version, kind=kind)
        for event in resource.watch(namespace=namespace, field_selector=f"metadata.name={name}", timeout=seconds):
            if event["type"] != "DELETED":
                yield event["raw_object"]

    def seen(self, made: Manifest, seconds: int = 120) -> Iterator[Manifest]:
        """The states of an object since it was created, as a watch tells of them. Raises `TimeoutError`."""
        meta = made["metadata"]
        for event in self._of(made).watch(
            namespace=meta["namespace"],
            field_selector=f"metadata.name={meta['name']}",
            resource_version=str(int(meta["resourceVersion"]) - 1),
            timeout=seconds,
        ):
            yield event["raw_object"]
        raise TimeoutError(f"{made['kind']} {meta['name']} is not as awaited after {seconds} s")

    def events(self, api_version: str, kind: str, namespace: str, seconds: int = 3600) -> Iterator[Manifest]:
        """The states of all objects of a kind, those that are there and those that come, as a watch tells of them."""
        found = self._client.resources.get(api_version=api_version, kind=kind)
        for event in found.watch(namespace=namespace, timeout=seconds):
            yield event["raw_object"]

    def until(self, made: Manifest, holds: Callable[[Manifest], bool]) -> Manifest:
        """The first state of an object in which something holds."""
        return next(state for state in self.seen(made) if holds(state))

    def all(self, api_version: str, kind: str, namespace: str) -> Iterator[Manifest]:
        """All objects of a kind, asked for in pages as the operator does."""
        token = None
        while token != "":
            page = self._client.resources.get(api_version=api_version, kind=kind).get(
                namespace=namespace, limit=500, _continue=token, serialize=False
            )
            found = json.loads(page.data)
            yield from found["items"]
            token = found["metadata"].get("continue", "")

    def _of(self, manifest: Manifest) -> Any:
        return self._client.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])


def is_ready(manifest: Manifest) -> bool:
    """Whether an object says that it is Ready; what Tenure says must be of its present generation."""
    meta = manifest["metadata"]
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and condition.get("observedGeneration", meta.get("generation")) == meta.get("generation")
        for condition in manifest.get("status", {}).get("conditions", [])
    )
