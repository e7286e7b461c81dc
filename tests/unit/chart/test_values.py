"""Every value is described, checked and obeyed."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from harness.chart import CHART, HelmError, render_text

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
MONITORS = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}

CHANGES: dict[str, Any] = {
    "fullnameOverride": "other",
    "image.repository": "registry.example.com/tenure/control-plane",
    "image.tag": "1.2.3",
    "image.pullPolicy": "Always",
    "runtimeImage.repository": "registry.example.com/tenure/runtime",
    "runtimeImage.tag": "1.2.3",
    "runtimeImage.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "audience": "agents",
    "crds.install": False,
    "crds.keep": False,
    "roles.create": False,
    "roles.aggregate": True,
    "sidecar.cpuRequest": "20m",
    "sidecar.memoryRequest": "80Mi",
    "sidecar.memoryLimit": "300Mi",
    "networkPolicy.enabled": False,
    "networkPolicy.exceptCIDRs": ["10.20.0.0/16", "fd00::/8"],
    "operator.workers": 8,
    "operator.scrapeSeconds": 30,
    "gateway.service.type": "LoadBalancer",
    "gateway.service.port": 8443,
    "gateway.service.annotations": {"example.com/internal": "true"},
    "gateway.maxBodyBytes": 2_097_152,
    "gateway.maxBundleBytes": 2_147_483_648,
    "gateway.trustedBundleKeys": "-----BEGIN PUBLIC KEY-----MCowBQYDK2VwAyEA-----END PUBLIC KEY-----",
    "gateway.receiveTimeoutSeconds": 31,
    "gateway.holdSeconds": 121,
    "gateway.turnTimeoutSeconds": 3601,
    "gateway.responseRetentionSeconds": 31_536_000,
    "gateway.throwawaySeconds": 7201,
    "gateway.tokenCacheSeconds": 0,
    "gateway.accessCacheSeconds": 0,
    "gateway.drainDelaySeconds": 6,
    "gateway.drainSeconds": 61,
    **{
        f"{component}.{key}": value
        for component in ("operator", "gateway")
        for key, value in {
            "replicas": 3,
            "logLevel": "DEBUG",
            "resources.requests.cpu": "77m",
            "resources.requests.memory": "77Mi",
            "resources.limits.memory": "777Mi",
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "priorityClassName": "important",
            "podAnnotations": {"example.com/note": "a note"},
            "podLabels": {"team": "agents"},
        }.items()
    },
    **{f"monitoring.{name}.enabled": True for name in MONITORS},
    **{f"monitoring.{name}.labels": {"prometheus": "main"} for name in MONITORS},
    "monitoring.serviceMonitor.interval": "11s",
    "monitoring.podMonitor.interval": "12s",
}
"""For each value one that differs from its default."""


def leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values that somebody may set, by path. Free-form maps count as one value."""
    for key, value in values.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{here}.")
        else:
            yield here, value


def node(path: str) -> dict[str, Any]:
    """The schema of a value."""
    found = SCHEMA
    for key in path.split("."):
        found = found["properties"][key]
        if "$ref" in found:
            found = {**SCHEMA["$defs"][found["$ref"].rsplit("/", 1)[1]], **found}
    return found


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value as Helm's `--set path=value` would give it."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def merged(*trees: dict[str, Any]) -> dict[str, Any]:
    """Trees of values laid over one another."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


DEFAULTS = dict(leaves(VALUES))


def test_the_table_above_has_every_value() -> None:
    assert set(CHANGES) == set(DEFAULTS)


@pytest.mark.parametrize("path", sorted(CHANGES))
def test_every_value_is_obeyed(path: str) -> None:
    """A value that is accepted and changes nothing is a defect."""
    base = {"monitoring": MONITORS} if path.startswith("monitoring.") and not path.endswith(".enabled") else {}
    changed = merged(base, nested(path, CHANGES[path]))
    assert CHANGES[path] != DEFAULTS[path]
    before, after = render_text(base), render_text(changed)
    added = "\n".join(Counter(after.splitlines()) - Counter(before.splitlines()))
    assert added or len(after) < len(before)
    for word in words(CHANGES[path]):
        assert word in added, f"{path}: {word} is not in what changed"


def words(value: Any) -> Iterator[str]:
    """The words of a value that must be found in what is rendered."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words(inner)
    elif not isinstance(value, bool):
        yield str(value)


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    def keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for key in schema.get("properties", {}):
            inner = node(f"{path}{key}")
            known = DEFAULTS.keys() | {"global"}
            if inner.get("properties") and f"{path}{key}" not in known:
                yield from keys(inner, f"{path}{key}.")
            else:
                yield f"{path}{key}"

    optional = {f"{component}.resources.limits.cpu" for component in ("operator", "gateway")}
    assert set(keys(SCHEMA)) - {"global"} - optional == set(DEFAULTS)


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of the schema that describes a value."""
    for key, inner in schema.get("properties", {}).items():
        yield f"{path}{key}", inner
        yield from schemas(inner, f"{path}{key}.")
    for key, inner in schema.get("$defs", {}).items():
        yield f"$defs.{key}", inner
        yield from schemas(inner, f"$defs.{key}.")


@pytest.mark.parametrize(("path", "schema"), list(schemas(SCHEMA)))
def test_every_value_is_described_in_the_schema(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].endswith(".")


@pytest.mark.parametrize(("path", "schema"), [("", SCHEMA), *schemas(SCHEMA)])
def test_no_object_takes_unknown_keys(path: str, schema: dict[str, Any]) -> None:
    if "properties" in schema:
        assert schema["additionalProperties"] is False


def test_every_value_has_a_comment() -> None:
    for before, line in itertools.pairwise((CHART / "values.yaml").read_text().splitlines()):
        key, _, value = line.strip().partition(":")
        of_resources = key in {"requests", "limits", "cpu", "memory"}  # described as a whole
        if key.isidentifier() and value and not of_resources:
            assert before.strip().startswith("#"), key


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("gatway.replicas", 3, "additional properties 'gatway' not allowed"),
        ("gateway.replica", 3, "additional properties 'replica' not allowed"),
        ("gateway.replicas", "three", "at '/gateway/replicas': got string, want integer"),
        ("gateway.replicas", 0, "at '/gateway/replicas': minimum: got 0, want 1"),
        ("gateway.maxBodyBytes", 10, "at '/gateway/maxBodyBytes': minimum: got 10, want 1,024"),
        (
            "operator.logLevel",
            "debug",
            "at '/operator/logLevel': value must be one of 'DEBUG', 'INFO',",
        ),
        ("image.pullPolicy", "never", "at '/image/pullPolicy': value must be one of 'IfNotPresent', 'Always', 'Never'"),
        ("sidecar.memoryLimit", "lots", "at '/sidecar/memoryLimit': 'lots' does not match pattern"),
        (
            "networkPolicy.exceptCIDRs",
            ["10.0.0.1"],
            "at '/networkPolicy/exceptCIDRs/0': '10.0.0.1' does not match pattern",
        ),
        (
            "monitoring.podMonitor.interval",
            "often",
            "at '/monitoring/podMonitor/interval': 'often' does not match pattern",
        ),
        ("audience", "", "at '/audience': minLength: got 0, want 1"),
        ("imagePullSecrets", ["registry"], "at '/imagePullSecrets/0': got string, want object"),
        ("gateway.podLabels", {"a": "no spaces"}, "at '/gateway/podLabels/a': 'no spaces' does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_wanted(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(HelmError) as refusal:
        render_text(nested(path, value))
    assert sentence in str(refusal.value)


def test_a_chart_that_contains_this_one_may_have_global_values() -> None:
    assert render_text({"global": {"anything": 1}}) == render_text({})
