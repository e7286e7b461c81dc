"""A data key is not deleted by accident: only together with its session or its namespace."""

from collections.abc import Iterator

import pytest

from harness import manifests
from harness.kube import KubectlError, Manifest, eventually
from harness.tenure import Place
from tenure_api.names import KEY_LABEL, SESSION_LABEL


def data_key(name: str) -> Manifest:
    """A Secret such as the operator makes it for a session, save that nothing owns it."""
    labels = {KEY_LABEL: "true", SESSION_LABEL: "chat-1"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "immutable": True,
        "stringData": {"data-key": "of no use"},
    }


@pytest.fixture
def key(place: Place) -> Iterator[str]:
    """A data key, taken away afterwards in the name of the garbage collector."""
    place.kube.apply(data_key("chat-1-key"))
    yield "chat-1-key"
    place.kube.acting_as("system:serviceaccount:kube-system:generic-garbage-collector").delete("secret", "chat-1-key")


@pytest.mark.parametrize("how", [("secret", "chat-1-key"), ("secrets", "--all")])
def test_an_administrator_cannot_delete_a_data_key_and_is_told_what_to_delete(
    place: Place, key: str, how: tuple[str, str]
) -> None:
    def refused() -> bool:  # a policy takes effect a moment after it was made
        with pytest.raises(KubectlError) as refusal:
            place.kube.run("delete", *how, "--dry-run=server")
        said = str(refusal.value)
        assert "holds the data key of AgentSession chat-1, without which the session can never be read again" in said
        assert f"kubectl delete agentsession -n {place.name} chat-1" in said
        return True

    eventually(refused, 30)
    with pytest.raises(KubectlError):
        place.kube.run("delete", *how)
    assert place.kube.find("secret", key)


def test_other_secrets_are_deleted_as_ever(place: Place, key: str) -> None:
    place.kube.run("create", "secret", "generic", "other")
    place.kube.run("delete", "secret", "other")
    assert place.kube.find("secret", key)


def test_the_namespace_of_a_data_key_can_be_deleted(place: Place) -> None:
    name = f"{place.name}-gone"
    place.kube.apply(manifests.namespace(name))
    place.kube.within(name).apply(data_key("chat-1-key"))
    place.kube.run("delete", "namespace", name, "--timeout=60s")
