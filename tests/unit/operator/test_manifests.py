"""The manifests: what each must say, and above all what it must not."""

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api import names
from tenure_api.agent import AgentSpec
from tenure_api.fields import Resources
from tenure_api.policy import MemoryPolicySpec
from tenure_operator.desired.config import config_map, effective_policy, session_config
from tenure_operator.desired.containers import with_defaults
from tenure_operator.desired.credentials import CREDENTIALS_MOUNT
from tenure_operator.desired.key import key
from tenure_operator.desired.network import network
from tenure_operator.desired.pod import AGENT_DEFAULTS, KEY_MOUNT, Run, pod, pod_hash
from tenure_operator.desired.sets import SetOf
from tenure_operator.difference import differs
from tenure_operator.kinds import Manifest, Meta
from unit.operator.bench import GATEWAY_URL, SETTINGS, set_of

AGENT = Meta("shop", "helper", "agent-uid", 3)
SESSION = Meta("shop", "chat", "12345678-aaaa", 1)
CLAIM = Meta("shop", "chat-state", "12345678-aaaa")
SET = set_of(SESSION)
RUN = Run(CLAIM.uid, 1)
PLAIN: dict[str, Any] = {"model": {"name": "m", "baseURL": "http://model/v1"}}
FULL: dict[str, Any] = {
    "instructions": "Be brief.",
    "model": {
        "name": "m",
        "baseURL": "https://one/v1",
        "api": "Responses",
        "contextWindowTokens": 4096,
        "credentialsSecretRef": {"name": "vendor", "key": "key"},
        "parameters": {"temperature": "0.7", "topP": "0.9", "maxOutputTokens": 100},
        "fallbacks": [
            {"name": "same-endpoint"},
            {"name": "elsewhere", "baseURL": "https://two/v1"},
            {"name": "with-its-own", "baseURL": "https://three/v1", "credentialsSecretRef": {"name": "other"}},
            {"name": "same-endpoint-said", "baseURL": "https://one/v1"},
        ],
    },
}


def spec(given: dict[str, Any]) -> AgentSpec:
    return AgentSpec.model_validate(given)


def a_pod(given: dict[str, Any]) -> Manifest:
    return pod(SET, RUN, spec(given), SETTINGS)


def test_a_credential_goes_only_to_the_endpoint_that_it_was_given_for() -> None:
    targets = session_config(AGENT, spec(FULL), None, GATEWAY_URL).model.targets
    assert [(t.name, t.base_url, t.credential) for t in targets] == [
        ("m", "https://one/v1", "vendor/key"),
        ("same-endpoint", "https://one/v1", "vendor/key"),
        ("elsewhere", "https://two/v1", None),
        ("with-its-own", "https://three/v1", "other/api-key"),
        ("same-endpoint-said", "https://one/v1", None),
    ]


def test_the_configuration_says_what_the_agent_says() -> None:
    policy = effective_policy(
        Meta("shop", "month", "policy-uid", 7),
        MemoryPolicySpec.model_validate(
            {"classes": [{"name": "transcript", "maxAgeSeconds": 60}], "enforcement": {"intervalSeconds": 5}}
        ),
    )
    config = session_config(AGENT, spec(FULL), policy, GATEWAY_URL)
    assert (config.agent, config.agent_uid, config.agent_generation) == ("helper", "agent-uid", 3)
    assert (config.instructions, config.model.api, config.model.context_window_tokens) == (
        "Be brief.",
        "Responses",
        4096,
    )
    assert (config.model.temperature, config.model.top_p, config.model.max_output_tokens) == (0.7, 0.9, 100)
    assert config.policy is not None
    assert (config.policy.uid, config.policy.generation) == ("policy-uid", 7)
    assert (config.policy.transcript_max_age_seconds, config.policy.transcript_max_count) == (60, None)
    assert config.policy.interval_seconds == 5
    found = config_map(AGENT, config, {"operator": "PEM"})
    assert json.loads(found["data"]["config.json"])["model"]["targets"][0]["baseUrl"] == "https://one/v1"


def containers(manifest: Manifest) -> tuple[Manifest, Manifest]:
    (sidecar,), (agent,) = manifest["spec"]["initContainers"], manifest["spec"]["containers"]
    return sidecar, agent


@pytest.mark.parametrize("given", [PLAIN, FULL], ids=["plain", "full"])
def test_the_agent_container_gets_nothing_but_its_workspace(given: dict[str, Any]) -> None:
    _, agent = containers(a_pod(given))
    assert [(m["name"], m["mountPath"], m.get("subPath")) for m in agent["volumeMounts"]] == [
        ("state", "/workspace", "workspace"),
        ("agent-tmp", "/tmp", None),
    ]
    secrets = [e["valueFrom"]["secretKeyRef"] for e in agent["env"] if "valueFrom" in e]
    assert secrets == [{"name": "chat-12345678-key", "key": "pod-token"}]


def test_the_sidecar_gets_volume_key_configuration_and_credentials() -> None:
    sidecar, _ = containers(a_pod(FULL))
    assert {m["mountPath"] for m in sidecar["volumeMounts"]} == {
        "/data",
        KEY_MOUNT,
        "/etc/tenure",
        CREDENTIALS_MOUNT,
        "/tmp",
    }
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_missing_credential_never_hangs_the_pod() -> None:
    (volume,) = [v for v in a_pod(FULL)["spec"]["volumes"] if v["name"] == "credentials"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "other", "optional": True, "items": [{"key": "api-key", "path": "other/api-key"}]}},
        {"secret": {"name": "vendor", "optional": True, "items": [{"key": "key", "path": "vendor/key"}]}},
    ]
    assert not [v for v in a_pod(PLAIN)["spec"]["volumes"] if v["name"] == "credentials"]


def test_the_pod_meets_the_restricted_standard() -> None:
    found = a_pod(FULL)["spec"]
    assert found["automountServiceAccountToken"] is False
    assert found["enableServiceLinks"] is False
    allowed = {"persistentVolumeClaim", "secret", "configMap", "emptyDir", "projected"}
    assert all(len(set(v) & allowed) == 1 for v in found["volumes"])
    users = set()
    for container in containers(a_pod(FULL)):
        security = container["securityContext"]
        users.add(security["runAsUser"])
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert len(users) == 2


def test_a_users_own_image_keeps_its_own_command() -> None:
    _, built_in = containers(a_pod(PLAIN))
    _, own = containers(a_pod({**PLAIN, "runtime": {"image": "acme/agent:1"}}))
    assert (built_in["image"], built_in["command"]) == ("tenure/runtime:1", ["tenure-runtime"])
    assert own["image"] == "acme/agent:1"
    assert "command" not in own


def test_the_hash_is_of_the_template_and_not_of_the_session() -> None:
    base = pod_hash("helper", spec(PLAIN), SETTINGS)
    another = SetOf.of_session(Meta("shop", "other", "87654321-bbbb", 1), "other", "helper", "bob")
    other = pod(another, Run("5678", 9), spec(PLAIN), SETTINGS)
    assert other["metadata"]["annotations"][names.POD_HASH_ANNOTATION] == base
    assert a_pod(PLAIN)["metadata"]["annotations"][names.POD_HASH_ANNOTATION] == base
    assert pod_hash("helper", spec({**PLAIN, "instructions": "Be brief."}), SETTINGS) == base
    assert pod_hash("helper", spec({**PLAIN, "runtime": {"image": "acme/agent:1"}}), SETTINGS) != base
    assert pod_hash("helper", spec(FULL), SETTINGS) != base


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}),
        ({"limits": {"memory": "64Mi"}}, {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}),
        ({"requests": {"memory": "2Gi"}}, {"requests": {"cpu": "10m", "memory": "2Gi"}, "limits": {}}),
        (
            {"limits": {"cpu": "1"}},
            {"requests": {"memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        ),
    ],
)
def test_default_amounts_never_contradict_given_ones(given: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    resources = Resources.model_validate(given) if given else None
    assert with_defaults(resources, AGENT_DEFAULTS).model_dump(exclude_none=True) == expected


def test_a_key_is_immutable_labelled_and_owned() -> None:
    found = key(SET, CLAIM, b"k" * 32, "token")
    assert found["immutable"] is True
    assert found["metadata"]["name"] == "chat-12345678-key"
    assert found["metadata"]["labels"][names.KEY_LABEL] == "true"
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == (
        "PersistentVolumeClaim",
        "12345678-aaaa",
        False,
    )


def egress_allows(policy: Manifest, address: str) -> bool:
    ip = ipaddress.ip_address(address)
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
    return any(
        ip in ipaddress.ip_network(block["cidr"])
        and not any(ip in ipaddress.ip_network(hole) for hole in block.get("except", []))
        for block in blocks
    )


def test_a_session_reaches_models_but_neither_the_api_server_nor_the_metadata_service() -> None:
    policy = network(SET, "tenure-system", ["10.96.0.1/32", "192.168.1.5/32", "fd00::1/128"])
    for refused in ("10.96.0.1", "192.168.1.5", "fd00::1", "169.254.169.254", "fd00:ec2::254"):
        assert not egress_allows(policy, refused), refused
    for allowed in ("10.96.0.2", "8.8.8.8", "fd00::2", "10.244.1.7"):
        assert egress_allows(policy, allowed), allowed


def test_only_operator_and_gateway_of_the_release_reach_a_sidecar() -> None:
    rules = network(SET, "tenure-system", [])["spec"]["ingress"]
    (peer,) = next(rule["from"] for rule in rules if rule["ports"][0]["port"] == 8081)
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "tenure-system"}}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "tenure"}
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["gateway", "operator"]
    assert {rule["ports"][0]["port"] for rule in rules} == {8081, 9090}


def test_the_policy_is_the_same_whatever_the_order_of_the_addresses() -> None:
    one = network(SET, "s", ["10.0.0.2/32", "fd00::1/128", "10.0.0.1/32"])
    two = network(SET, "s", ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "10.0.0.1/32"])
    assert one == two


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("xy"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert not differs(value, value)


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.dictionaries(st.sampled_from("def"), JSON))
def test_what_others_add_is_no_difference(desired: dict[str, Any], added: dict[str, Any]) -> None:
    assert not differs(desired, {**desired, **added})


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
        ({"a": []}, {"a": [1]}),
        ({"a": False}, {}),
    ],
)
def test_a_difference_is_found(desired: Any, live: Any) -> None:
    assert differs(desired, live)


@pytest.mark.parametrize("empty", [{}, []])
def test_what_is_empty_equals_what_the_api_server_drops(empty: Any) -> None:
    assert not differs({"a": empty}, {})
