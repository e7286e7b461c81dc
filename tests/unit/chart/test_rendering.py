"""The chart renders what it should, and nothing that a restricted cluster would refuse."""

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.chart import CHART, NAMESPACE, Manifest, all_on, helm, of_kind, render, render_text
from tenure_api.agent import Agent, AgentSpec
from tenure_api.crdgen import KINDS, definition
from tenure_api.fields import Resources
from tenure_api.names import COMPONENT_LABEL, KEY_LABEL, SESSION_LABEL, WAKE_ANNOTATION, WARM_LABEL
from tenure_gateway.metrics import Metrics as GatewayMetrics
from tenure_gateway.settings import Settings as GatewaySettings
from tenure_gateway.settings import from_environment as gateway_settings
from tenure_operator.desired.containers import PodSettings
from tenure_operator.desired.network import network
from tenure_operator.desired.pod import Run
from tenure_operator.desired.pod import pod as session_pod
from tenure_operator.desired.sets import SetOf
from tenure_operator.kinds import Meta
from tenure_operator.metrics import Metrics as OperatorMetrics
from tenure_operator.settings import Settings as OperatorSettings
from tenure_operator.settings import from_environment as operator_settings
from tenure_sidecar.metrics import Metrics as SidecarMetrics

SESSION = Meta("place", "chat", "uid", 1)
SET = SetOf.of_session(SESSION, "chat", "helper", "alice")
WORKLOADS = ("tenure-operator", "tenure-gateway", "tenure-test")


def a_session_pod() -> Manifest:
    """A pod as the operator makes it."""
    spec = AgentSpec.model_validate({"model": {"name": "m", "baseURL": "http://m/v1"}})
    return session_pod(SET, Run("1234", 1), spec, PodSettings("image", "IfNotPresent", Resources(), "tenure"))


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pod specs of all workloads by name."""
    found = {name: m["spec"]["template"]["spec"] for name, m in of_kind(manifests, "Deployment").items()}
    return found | {name: m["spec"] for name, m in of_kind(manifests, "Pod").items()}


def environment(component: str, manifests: list[Manifest]) -> dict[str, str]:
    """The variables of a component's container, as its process will find them."""
    (container,) = pods(manifests)[f"tenure-{component}"]["containers"]
    return {v["name"]: v.get("value", "from the downward API") for v in container["env"]}


def test_helm_finds_nothing_wrong() -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict")


def test_no_two_objects_have_the_same_name() -> None:
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in all_on()]
    assert len(set(names)) == len(names)


def test_another_release_shares_no_name_with_the_first() -> None:
    shared = {"CustomResourceDefinition"}  # the cluster has one set, whichever release owns it
    fixed = {"tenure-agent-author", "tenure-session-user", "tenure-session-operator", "tenure-auditor"}

    def names(release: str) -> set[tuple[str, str]]:
        return {(m["kind"], m["metadata"]["name"]) for m in render({}, release) if m["kind"] not in shared} - {
            ("ClusterRole", name) for name in fixed
        }

    assert not names("tenure") & names("second")


def test_namespaced_objects_are_in_the_namespace_of_the_release() -> None:
    elsewhere = {
        (m["kind"], m["metadata"]["name"]) for m in all_on() if m["metadata"].get("namespace", NAMESPACE) != NAMESPACE
    }
    assert elsewhere == {("Role", "tenure-operator-api-server"), ("RoleBinding", "tenure-operator-api-server")}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_pods_meet_the_restricted_pod_security_standard(workload: str) -> None:
    """The checks of the standard, version 1.33, that apply to what these pods use."""
    pod = pods(render())[workload]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {next(iter(set(v) - {"name"})) for v in pod["volumes"]} <= {"emptyDir", "secret", "projected"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_pods_say_what_they_need(workload: str) -> None:
    (container,) = pods(render())[workload]["containers"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_deployments_are_probed_spread_and_selected_by_labels_that_never_change(component: str) -> None:
    deployment = of_kind(render(), "Deployment")[f"tenure-{component}"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    selector = deployment["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance", COMPONENT_LABEL}
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    (term,) = deployment["template"]["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == selector


def test_services_network_policies_and_budgets_select_pods_that_exist() -> None:
    templates = [d["spec"]["template"] for d in of_kind(render(), "Deployment").values()]
    selectors = [m["spec"]["selector"] for m in of_kind(render(), "Service").values()]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in of_kind(render(), "NetworkPolicy").values()]
    selectors += [m["spec"]["selector"]["matchLabels"] for m in of_kind(render(), "PodDisruptionBudget").values()]
    for selector in selectors:
        assert sum(selector.items() <= t["metadata"]["labels"].items() for t in templates) == 1


def test_every_named_port_is_one_of_the_container() -> None:
    ports = {
        component: {
            p["name"]: p["containerPort"] for p in pods(render())[f"tenure-{component}"]["containers"][0]["ports"]
        }
        for component in ("operator", "gateway")
    }
    assert int(environment("operator", render())["TENURE_PORT"]) == ports["operator"]["metrics"]
    assert int(environment("gateway", render())["TENURE_PORT"]) == ports["gateway"]["http"]
    assert int(environment("gateway", render())["TENURE_METRICS_PORT"]) == ports["gateway"]["metrics"]
    for service in of_kind(render(), "Service").values():
        known = ports[service["spec"]["selector"][COMPONENT_LABEL]]
        assert all(port["targetPort"] in known for port in service["spec"]["ports"])
    for policy in of_kind(render(), "NetworkPolicy").values():
        known = ports[policy["spec"]["podSelector"]["matchLabels"][COMPONENT_LABEL]]
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == set(known)


def test_the_environment_is_every_setting_of_the_code_and_no_other() -> None:
    assert set(environment("operator", render())) == {
        f"TENURE_{name.upper()}" for name in OperatorSettings.model_fields
    }
    assert set(environment("gateway", render())) == {f"TENURE_{name.upper()}" for name in GatewaySettings.model_fields}


def test_the_defaults_of_the_chart_are_those_of_the_code() -> None:
    set_by_the_chart = {"namespace", "pod_name", "runtime_image", "gateway_url"}
    operator = operator_settings(environment("operator", render())).model_dump(exclude=set_by_the_chart)
    needed = {"TENURE_NAMESPACE": "n", "TENURE_RUNTIME_IMAGE": "i", "TENURE_GATEWAY_URL": "http://g"}
    code = operator_settings(needed).model_dump(exclude=set_by_the_chart)
    assert operator == code
    assert gateway_settings(environment("gateway", render())) == gateway_settings({})


def test_a_gateway_that_drains_is_not_killed() -> None:
    settings = gateway_settings(environment("gateway", render({"gateway": {"drainSeconds": 300}})))
    pod = pods(render({"gateway": {"drainSeconds": 300}}))["tenure-gateway"]
    assert pod["terminationGracePeriodSeconds"] > settings.drain_delay_seconds + settings.drain_seconds


def test_the_gateway_is_given_its_own_signing_key_only() -> None:
    pod = pods(render())["tenure-gateway"]
    (volume,) = [v for v in pod["volumes"] if "secret" in v]
    assert volume["secret"]["secretName"] == "tenure-signing-keys"
    assert [item["key"] for item in volume["secret"]["items"]] == ["gateway.key"]
    assert not any("secret" in v for v in pods(render())["tenure-operator"]["volumes"])


def test_images_default_to_the_version_of_the_chart() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for pod in pods(render()).values():
        assert pod["containers"][0]["image"] == f"tenure/control-plane:{version}"
    assert environment("operator", render())["TENURE_RUNTIME_IMAGE"] == f"tenure/runtime:{version}"


# --- definitions ---------------------------------------------------------------------------------------------------


def crds(values: dict[str, Any]) -> dict[str, Manifest]:
    return of_kind(render({"crds": values}), "CustomResourceDefinition")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_definitions_are_the_generated_ones(kind: Any) -> None:
    generated = definition(kind)
    rendered = crds({})[generated["metadata"]["name"]]
    assert {**rendered, "metadata": generated["metadata"]} == generated


def test_the_definitions_are_kept_unless_told_otherwise() -> None:
    policy = "helm.sh/resource-policy"
    assert {m["metadata"]["annotations"][policy] for m in crds({}).values()} == {"keep"}
    assert not any("annotations" in m["metadata"] for m in crds({"keep": False}).values())


def test_the_definitions_are_left_out_if_others_apply_them() -> None:
    assert crds({"install": False}) == {}


# --- admission, monitoring, notes ----------------------------------------------------------------------------------


def test_deleting_a_data_key_is_refused_to_all_but_kubernetes_own_controllers() -> None:
    policy = of_kind(render(), "ValidatingAdmissionPolicy")["tenure-data-keys"]
    binding = of_kind(render(), "ValidatingAdmissionPolicyBinding")["tenure-data-keys"]
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    spec = policy["spec"]
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"] == {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["secrets"]}
        ],
        "objectSelector": {"matchExpressions": [{"key": KEY_LABEL, "operator": "Exists"}]},
    }
    (validation,) = spec["validations"]
    assert "system:serviceaccount:kube-system:generic-garbage-collector" in validation["expression"]
    assert "system:serviceaccount:kube-system:namespace-controller" in validation["expression"]
    assert SESSION_LABEL in validation["messageExpression"]
    assert "delete the AgentSession instead" in validation["message"]


def test_the_operator_can_delete_no_volume_but_those_of_warm_pools() -> None:
    spec = of_kind(render(), "ValidatingAdmissionPolicy")["tenure-volumes"]["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert (rule["operations"], rule["resources"]) == (["DELETE"], ["persistentvolumeclaims"])
    (condition,) = spec["matchConditions"]
    (binding,) = (b for b in of_kind(render(), "ClusterRoleBinding").values() if "operator" in b["metadata"]["name"])
    account = binding["subjects"][0]
    who = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert condition["expression"] == f"request.userInfo.username == '{who}'"
    assert spec["validations"][0]["expression"] == f"'{WARM_LABEL}' in oldObject.metadata.?labels.orValue({{}})"
    bound = of_kind(render(), "ValidatingAdmissionPolicyBinding")["tenure-volumes"]["spec"]
    assert bound == {"policyName": "tenure-volumes", "validationActions": ["Deny"]}


def test_the_gateway_can_change_nothing_of_a_session_but_that_it_is_to_wake() -> None:
    spec = of_kind(render(), "ValidatingAdmissionPolicy")["tenure-wakes"]["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert (rule["operations"], rule["resources"]) == (["UPDATE"], ["agentsessions"])
    (condition,) = spec["matchConditions"]
    (binding,) = (b for b in of_kind(render(), "ClusterRoleBinding").values() if "gateway" in b["metadata"]["name"])
    account = binding["subjects"][0]
    who = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert condition["expression"] == f"request.userInfo.username == '{who}'"
    (validation,) = spec["validations"]
    assert f"'{WAKE_ANNOTATION}'" in validation["expression"]
    bound = of_kind(render(), "ValidatingAdmissionPolicyBinding")["tenure-wakes"]["spec"]
    assert bound == {"policyName": "tenure-wakes", "validationActions": ["Deny"]}


def test_nothing_of_prometheus_operator_is_made_unasked() -> None:
    assert not any(m["apiVersion"].startswith("monitoring.coreos.com/") for m in render())


def test_monitors_point_at_ports_and_labels_that_exist() -> None:
    (monitor,) = of_kind(all_on(), "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    key = monitor["spec"]["selector"]["matchExpressions"][0]["key"]
    found = [s for s in of_kind(all_on(), "Service").values() if wanted.items() <= s["metadata"]["labels"].items()]
    found = [s for s in found if key in s["metadata"]["labels"]]
    assert {s["metadata"]["name"] for s in found} == {"tenure-operator-metrics", "tenure-gateway-metrics"}
    (endpoint,) = monitor["spec"]["endpoints"]
    for service in found:
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_pod_monitor_points_at_the_pods_that_the_operator_makes() -> None:
    (monitor,) = of_kind(all_on(), "PodMonitor").values()
    pod = a_session_pod()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {p["name"] for c in pod["spec"]["initContainers"] for p in c["ports"]}


def test_the_network_policy_of_a_session_lets_the_charts_pods_in() -> None:
    policy = network(SET, NAMESPACE, ())
    (peer,) = policy["spec"]["ingress"][0]["from"]
    wanted = peer["podSelector"]["matchLabels"]
    (expression,) = peer["podSelector"]["matchExpressions"]
    for deployment in of_kind(render(), "Deployment").values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert wanted.items() <= labels.items()
        assert labels[expression["key"]] in expression["values"]


def test_the_network_policy_of_a_session_lets_it_out_to_the_gateway_whatever_else_is_excepted() -> None:
    policy = network(SET, NAMESPACE, ("0.0.0.0/1", "128.0.0.0/1"))
    (rule,) = [r for r in policy["spec"]["egress"] if any("podSelector" in peer for peer in r.get("to", []))]
    (peer,) = rule["to"]
    gateway = of_kind(render(), "Deployment")["tenure-gateway"]
    assert peer["podSelector"]["matchLabels"].items() <= gateway["spec"]["template"]["metadata"]["labels"].items()
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert rule["ports"][0]["port"] in {p["containerPort"] for p in container["ports"] if p["name"] == "http"}


@pytest.mark.parametrize("port", [80, 8443])
def test_session_pods_are_told_where_the_gateways_service_is(port: int) -> None:
    manifests = render({"gateway": {"service": {"port": port}}, "audience": "agents"})
    said = environment("operator", manifests)
    service = of_kind(manifests, "Service")["tenure-gateway"]
    assert service["spec"]["ports"][0]["port"] == port
    assert said["TENURE_GATEWAY_URL"] == f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{port}"
    assert said["TENURE_AUDIENCE"] == environment("gateway", manifests)["TENURE_AUDIENCE"] == "agents"


def test_alerts_ask_for_series_that_exist_and_say_what_to_do() -> None:
    registries = [OperatorMetrics().registry, GatewayMetrics().registry]
    known = {metric.name for registry in registries for metric in registry.collect()}
    known |= set(re.findall(r"# TYPE (\w+?)(?:_total)? ", SidecarMetrics().text().decode()))
    (rule,) = of_kind(all_on(), "PrometheusRule").values()
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        series = {name.removesuffix("_total") for name in re.findall(r"tenure_\w+", alert["expr"])}
        assert series, alert["alert"]
        assert series <= known, alert["alert"]
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= set(alert["annotations"])


def notes(values: dict[str, Any], tmp_path: Path) -> str:
    """What Helm shows after an install. `helm template` leaves the notes out, so a copy renders them as a manifest."""
    copy = tmp_path / "tenure"
    shutil.copytree(CHART, copy)
    (copy / "files" / "notes.txt").write_text((CHART / "templates" / "NOTES.txt").read_text())
    (copy / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "files/notes.txt") . | toJson }}')
    rendered = render_text(values, chart=copy, only="templates/notes.yaml")
    text: str = yaml.safe_load(rendered)["notes"]
    return text


def test_the_notes_lead_to_a_conversation(tmp_path: Path) -> None:
    text = notes({"audience": "agents", "gateway": {"service": {"port": 8443}}}, tmp_path)
    for words in (
        "kind: Agent",
        "create token alice --audience agents",
        "port-forward service/tenure-gateway 8080:8443",
        "OpenAI(",
    ):
        assert words in text


def test_the_agent_in_the_notes_is_one_that_the_models_read(tmp_path: Path) -> None:
    text = notes({}, tmp_path)
    manifest = yaml.safe_load(textwrap.dedent(text.split("<<EOF\n", 1)[1].split("   EOF", 1)[0]))
    assert Agent.model_validate(manifest).spec.model.name


def test_the_notes_warn_when_an_uninstall_would_delete_all_data(tmp_path: Path) -> None:
    assert "WARNING" in notes({"crds": {"keep": False}}, tmp_path)


def test_two_renderings_do_not_differ() -> None:
    """GitOps tools compare them."""
    assert render_text({}, chart=CHART) == render_text({}, chart=CHART / ".")


def test_the_examples_of_the_listing_are_ones_that_the_models_read() -> None:
    listed = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    for example in yaml.safe_load(listed["artifacthub.io/crdsExamples"]):
        (kind,) = [kind for kind in KINDS if kind.model.__name__ == example["kind"]]
        assert kind.model.model_validate(example)
    assert {crd["name"] for crd in yaml.safe_load(listed["artifacthub.io/crds"])} == set(crds({}))
