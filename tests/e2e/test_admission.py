"""Bad input is refused by the API server with a sentence that names the field and says what to write instead.

Nothing here needs a pod: manifests are only tried (`--dry-run=server`), or applied in a namespace of their own.
"""

import json
from typing import Any

import pytest

from harness import manifests
from harness.admission import (
    URL,
    Bad,
    agent,
    attempt,
    changed,
    must_be_read_and_written_back,
    must_be_refused,
)
from harness.kube import KubectlError, Manifest
from harness.tenure import Place
from tenure_api.names import API_VERSION


def session(*path: str, value: Any = None, name: str = "chat") -> Manifest:
    """A session; the value at `path` in its spec is replaced."""
    return changed(manifests.session(name, "helper", "system:serviceaccount:shop:storefront"), *path, value=value)


def policy(*path: str, value: Any = None, name: str = "short") -> Manifest:
    """A policy; the value at `path` in its spec is replaced."""
    return changed(manifests.policy(name, maxCount=3), *path, value=value)


BASE_URL = "spec.model.baseURL"
PARAMETERS = "spec.model.parameters"
RESOURCES = "spec.runtime.resources"
CLASS = {"name": "transcript", "maxCount": 1}

BAD: dict[str, Bad] = {
    "agent without a model": (agent("model"), "spec.model", "Required value"),
    "model without a name": (agent("model", value={"baseURL": URL}), "spec.model.name", "Required value"),
    "model with an empty name": (
        agent("model", "name", value=""),
        "spec.model.name",
        "should be at least 1 chars long",
    ),
    "model without a base URL": (agent("model", value={"name": "m"}), BASE_URL, "Required value"),
    "base URL without a scheme": (
        agent(baseURL="model.example.com/v1"),
        BASE_URL,
        "must be an http:// or https:// URL",
    ),
    "base URL with a password": (
        agent(baseURL="https://a:b@c/v1"),
        BASE_URL,
        "without credentials or query, such as https",
    ),
    "base URL with a query": (agent(baseURL=f"{URL}?key=1"), BASE_URL, "without credentials or query, such as https"),
    "base URL with a space": (agent(baseURL="http://my model/v1"), BASE_URL, "must be an http:// or https:// URL"),
    "base URL with a huge port": (agent(baseURL="http://m:99999/v1"), BASE_URL, "must have a port from 0 to 65535"),
    "base URL of an operation": (agent(baseURL=f"{URL}/chat/completions"), BASE_URL, "write https://host/v1, without"),
    "unknown API": (agent(api="completions"), "spec.model.api", 'supported values: "ChatCompletions", "Responses"'),
    "temperature as a number": (
        agent(parameters={"temperature": 0.7}),
        f"{PARAMETERS}.temperature",
        'must be of type string: "number"',
    ),
    "temperature out of range": (
        agent(parameters={"temperature": "2.5"}),
        f"{PARAMETERS}.temperature",
        "must be a decimal from 0 to 2 in quotes, such as '0.7'",
    ),
    "top-p in percent": (
        agent(parameters={"topP": "90%"}),
        f"{PARAMETERS}.topP",
        "must be a decimal from 0 to 1 in quotes, such as '0.9'",
    ),
    "no output at all": (
        agent(parameters={"maxOutputTokens": 0}),
        f"{PARAMETERS}.maxOutputTokens",
        "should be greater than or equal to 1",
    ),
    "tiny window": (agent(contextWindowTokens=10), "spec.model.contextWindowTokens", "greater than or equal to 256"),
    "endless patience": (
        agent(firstTokenTimeoutSeconds=100_000),
        "spec.model.firstTokenTimeoutSeconds",
        "should be less than or equal to 600",
    ),
    "too many fallbacks": (agent(fallbacks=[{"name": "m"}] * 6), "spec.model.fallbacks", "must have at most 5 items"),
    "fallback without a name": (agent(fallbacks=[{"baseURL": URL}]), "spec.model.fallbacks[0].name", "Required value"),
    "credential in the clear": (agent(apiKey="sk-1"), "spec.model.apiKey", "unknown field"),
    "Secret of another namespace": (
        agent(credentialsSecretRef={"name": "shop/openai"}),
        "spec.model.credentialsSecretRef.name",
        "must be the name of an object in this namespace",
    ),
    "key that no Secret can have": (
        agent(credentialsSecretRef={"name": "openai", "key": "api key"}),
        "spec.model.credentialsSecretRef.key",
        "must be a key of the Secret: letters, digits",
    ),
    "endless instructions": (
        agent("instructions", value="x" * 40_000),
        "spec.instructions",
        "may not be more than 32768",
    ),
    "image with a space": (
        agent("runtime", value={"image": "my image"}),
        "spec.runtime.image",
        "must be an image reference",
    ),
    "memory that is no quantity": (
        agent("runtime", "resources", "limits", "memory", value="2 GB"),
        f"{RESOURCES}.limits.memory",
        "must be a positive Kubernetes quantity, such as 500m, 512Mi or 2Gi",
    ),
    "memory below zero": (
        agent("runtime", "resources", "limits", "memory", value="-1Gi"),
        f"{RESOURCES}.limits.memory",
        "must be a positive Kubernetes quantity",
    ),
    "request above the limit": (
        agent("runtime", "resources", value={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
        RESOURCES,
        "requests.memory must not be greater than limits.memory",
    ),
    "volume of no size": (
        agent("session", "storage", "size", value="0"),
        "spec.session.storage.size",
        "must be a positive Kubernetes quantity",
    ),
    "policy of another namespace": (
        agent("memoryPolicyRef", value={"name": "shop/short"}),
        "spec.memoryPolicyRef.name",
        "must be the name of an object in this namespace",
    ),
    "misspelt field": (agent("instruction", value="Be brief."), "spec.instruction", "unknown field"),
    "agent with a long name": (agent(name="a" * 53), "metadata.name", "must have at most 52 characters"),
    "agent with a dotted name": (agent(name="my.agent"), "metadata.name", "must not contain '.'; use '-'"),
    "RuntimeClass with a space": (
        agent("runtime", value={"runtimeClassName": "a vm"}),
        "spec.runtime.runtimeClassName",
        "must be the name of an object",
    ),
    "session without an agent": (session("agentRef"), "spec.agentRef", "Required value"),
    "session without a subject": (session("subject"), "spec.subject", "Required value"),
    "session of nobody": (session("subject", value=""), "spec.subject", "should be at least 1 chars long"),
    "session that ends some time": (
        session("expiresAt", value="tomorrow"),
        "spec.expiresAt",
        "must be of type date-time",
    ),
    "session with a long name": (session(name="s" * 53), "metadata.name", "must have at most 52 characters"),
    "session of an agent elsewhere": (
        session("agentRef", value={"name": "shop/helper"}),
        "spec.agentRef.name",
        "must be the name of an object in this namespace",
    ),
    "mode that there is not": (
        session("operatingMode", value="Asleep"),
        "spec.operatingMode",
        'supported values: "Running", "Hibernated"',
    ),
    "source of nothing": (session("source", value={}), "spec.source", "must have either forkFrom or importFrom"),
    "source of two": (
        session("source", value={"forkFrom": {"session": "a"}, "importFrom": {"digest": f"sha256:{'0' * 64}"}}),
        "spec.source",
        "must have either forkFrom or importFrom",
    ),
    "fork of a session elsewhere": (
        session("source", value={"forkFrom": {"session": "shop/chat"}}),
        "spec.source.forkFrom.session",
        "must be the name of an object in this namespace",
    ),
    "digest of another kind": (
        session("source", value={"importFrom": {"digest": "md5:0"}}),
        "spec.source.importFrom.digest",
        "must be sha256: and 64 hexadecimal digits",
    ),
    "session that never wakes long enough": (
        agent("session", value={"idleTimeoutSeconds": 0}),
        "spec.session.idleTimeoutSeconds",
        "should be greater than or equal to 1",
    ),
    "pod that lives a moment": (
        agent("session", value={"maxLifetimeSeconds": 1}),
        "spec.session.maxLifetimeSeconds",
        "should be greater than or equal to 60",
    ),
    "pool without end": (
        agent("session", value={"warmPool": {"size": 1000}}),
        "spec.session.warmPool.size",
        "should be less than or equal to 200",
    ),
    "volume that is archived": (
        agent("session", "storage", "whenDeleted", value="Archive"),
        "spec.session.storage.whenDeleted",
        'supported values: "Delete", "Retain"',
    ),
    "policy of nothing": (policy("classes", value=[]), "spec.classes", "should have at least 1 items"),
    "policy without a limit": (
        policy("classes", value=[{"name": "transcript"}]),
        "spec.classes[0]",
        "needs a limit: set maxAgeSeconds, maxCount or both",
    ),
    "policy of an unknown class": (
        policy("classes", value=[{"name": "chats", "maxCount": 1}]),
        "spec.classes[0].name",
        'supported values: "transcript"',
    ),
    "policy with a class twice": (policy("classes", value=[CLASS, CLASS]), "spec.classes[1]", "Duplicate value"),
    "age in words": (
        policy("classes", value=[{"name": "transcript", "maxAgeSeconds": "30d"}]),
        "spec.classes[0].maxAgeSeconds",
        'must be of type integer: "string"',
    ),
    "age below zero": (
        policy("classes", value=[{"name": "transcript", "maxAgeSeconds": -1}]),
        "spec.classes[0].maxAgeSeconds",
        "should be greater than or equal to 1",
    ),
    "policy that is never enforced": (
        policy("enforcement", "intervalSeconds", value=0),
        "spec.enforcement.intervalSeconds",
        "should be greater than or equal to 1",
    ),
    "policy with a long name": (policy(name="p" * 53), "metadata.name", "must have at most 52 characters"),
}

GOOD: dict[str, Manifest] = {
    "smallest agent": {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "m", "baseURL": URL}},
    },
    "longest name": agent(name="a" * 52),
    "everything an agent can say": agent(
        "runtime",
        value={
            "image": "registry.example.com:5000/team/agent@sha256:" + "0" * 64,
            "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        },
        api="Responses",
        credentialsSecretRef={"name": "openai", "key": "api.key"},
        parameters={"temperature": "0.7", "topP": "1.0", "maxOutputTokens": 4096},
        contextWindowTokens=128_000,
        firstTokenTimeoutSeconds=30,
        fallbacks=[{"name": "second"}, {"name": "third", "baseURL": "https://[fd00::1]:8443/openai/v1"}],
    ),
    "a port and a path": agent(baseURL="http://model.shop.svc:8000/openai/deployments/x/v1"),
    "no path": agent(baseURL="http://model.shop.svc:8000"),
    "a pod in a virtual machine": agent("runtime", value={"runtimeClassName": "kata"}),
    "a session that ends": session("expiresAt", value="2030-01-01T00:00:00Z"),
    "a session that is to sleep": session("operatingMode", value="Hibernated"),
    "a fork": session("source", value={"forkFrom": {"session": "other", "atSequence": 40}}),
    "an import": session("source", value={"importFrom": {"digest": f"sha256:{'a' * 64}"}}),
    "all that an agent can say of its sessions": agent(
        "session",
        value={
            "idleTimeoutSeconds": 60,
            "maxLifetimeSeconds": 86_400,
            "storage": {"size": "2Gi", "storageClassName": "fast", "whenDeleted": "Retain"},
            "warmPool": {"size": 3},
        },
    ),
    "a subject of an identity provider": session("subject", value="https://login.example.com#ada@example.com"),
    "a policy with both limits": policy("classes", value=[{"name": "transcript", "maxAgeSeconds": 20, "maxCount": 9}]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_is_refused_with_the_field_and_the_fix(place: Place, case: str) -> None:
    must_be_refused(place.kube, BAD[case])


@pytest.mark.parametrize("case", GOOD)
def test_a_good_manifest_is_accepted(place: Place, case: str) -> None:
    attempt(place.kube, GOOD[case])


def test_an_error_names_every_field_that_is_wrong(place: Place) -> None:
    with pytest.raises(KubectlError) as refusal:
        attempt(place.kube, agent("session", "storage", "size", value="0", baseURL="no", parameters={"topP": "9"}))
    for field in (BASE_URL, f"{PARAMETERS}.topP", "spec.session.storage.size"):
        assert field in str(refusal.value)


def test_defaults_are_filled_in_by_the_api_server(place: Place) -> None:
    made = json.loads(attempt(place.kube, GOOD["smallest agent"]))
    assert made["spec"]["model"]["api"] == "ChatCompletions"
    assert made["spec"]["model"]["firstTokenTimeoutSeconds"] == 60
    assert made["spec"]["instructions"] == ""
    assert made["spec"]["session"]["storage"] == {"size": "1Gi", "whenDeleted": "Delete"}
    assert made["spec"]["session"]["idleTimeoutSeconds"] == 900
    assert made["spec"]["session"]["warmPool"] == {"size": 0}
    assert made["status"] == {"observedGeneration": -1}
    assert json.loads(attempt(place.kube, policy("enforcement")))["spec"]["enforcement"] == {"intervalSeconds": 60}
    secret = agent(credentialsSecretRef={"name": "openai"})
    assert json.loads(attempt(place.kube, secret))["spec"]["model"]["credentialsSecretRef"]["key"] == "api-key"


@pytest.mark.parametrize("case", GOOD)
def test_what_the_api_server_accepts_the_models_read_and_write_back(place: Place, case: str) -> None:
    must_be_read_and_written_back(place.kube, GOOD[case])


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("agentRef",), {"name": "other"}, "agentRef cannot be changed; create a new object instead"),
        (("subject",), "system:serviceaccount:shop:thief", "subject cannot be changed; create a new object instead"),
        (("source",), {"forkFrom": {"session": "other"}}, "source cannot be changed; create a new object instead"),
    ],
)
def test_whose_session_it_is_cannot_be_changed(place: Place, path: tuple[str, ...], value: Any, sentence: str) -> None:
    place.kube.apply(session(name="fixed"))
    with pytest.raises(KubectlError, match=sentence):
        attempt(place.kube, session(*path, value=value, name="fixed"))
    attempt(place.kube, session("expiresAt", value="2030-01-01T00:00:00Z", name="fixed"))
