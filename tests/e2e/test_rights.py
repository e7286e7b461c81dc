"""What the control plane itself may not do, whatever becomes of it: admission holds it to what it is for."""

from typing import Any

import pytest

from harness.kube import KubectlError
from harness.manifests import agent, session
from harness.tenure import SYSTEM, Place
from tenure_api.names import WAKE_ANNOTATION

GATEWAY = f"system:serviceaccount:{SYSTEM}:tenure-gateway"
OPERATOR = f"system:serviceaccount:{SYSTEM}:tenure-operator"


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"operatingMode": "Running"}},
        {"spec": {"expiresAt": "2999-01-01T00:00:00Z"}},
        {"metadata": {"labels": {"stolen": "true"}}},
        {"metadata": {"annotations": {"tenure.dev/recovered": "x"}}},
        {"metadata": {"annotations": {WAKE_ANNOTATION: "0", "another": "x"}}},
        {"metadata": {"finalizers": ["example.com/forever"]}},
    ],
)
def test_the_gateway_can_change_nothing_of_a_session_but_that_it_is_to_wake(place: Place, change: Any) -> None:
    place.kube.apply(agent("bounded"), session("bounded", "bounded", operatingMode="Hibernated"))
    as_gateway = place.kube.acting_as(GATEWAY)
    with pytest.raises(KubectlError) as refusal:
        as_gateway.patch("agentsession", "bounded", change, "--dry-run=server")
    assert "may change nothing of a session but the annotation" in str(refusal.value)
    wish = {"metadata": {"annotations": {WAKE_ANNOTATION: "7"}}}
    as_gateway.patch("agentsession", "bounded", wish, "--dry-run=server")
    place.kube.patch("agentsession", "bounded", change, "--dry-run=server")  # others may, whom RBAC lets


def test_the_operator_cannot_delete_the_volume_of_a_session(place: Place) -> None:
    name = place.agent("keeper")
    conversation = place.session("keeper", "keeper")
    assert place.client().responses.create(model=name, conversation=conversation, input="say: kept").output_text
    with pytest.raises(KubectlError) as refusal:
        place.kube.acting_as(OPERATOR).run("delete", "persistentvolumeclaim", "keeper-state", "--dry-run=server")
    assert "only volumes of warm pools" in str(refusal.value)
