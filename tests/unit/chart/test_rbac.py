"""What the chart grants is what the table in code says, and what people bind says what they may do."""

import pytest

from harness.chart import NAMESPACE, Manifest, all_on, of_kind, render
from tenure_api.names import GROUP
from tenure_operator.rbac import GATEWAY, LEASE, OPERATOR, SIGNING_KEYS, Grants

COMPONENTS = pytest.mark.parametrize(("component", "grants"), [("operator", OPERATOR), ("gateway", GATEWAY)])
PEOPLE = ("tenure-agent-author", "tenure-session-user", "tenure-session-operator", "tenure-auditor")


def namespace(manifest: Manifest) -> str:
    """The namespace of an object, "" if it has none."""
    found: str = manifest["metadata"].get("namespace", "")
    return found


def granted(component: str, manifests: list[Manifest]) -> dict[str, list[Manifest]]:
    """The rules that are bound to a component's ServiceAccount, by the namespace where they hold ("" for all)."""
    account = {"kind": "ServiceAccount", "name": f"tenure-{component}", "namespace": NAMESPACE}
    roles = {
        (m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]): m for m in manifests if "rules" in m
    }
    found: dict[str, list[Manifest]] = {}
    for binding in manifests:
        if binding["kind"] in {"ClusterRoleBinding", "RoleBinding"} and account in binding["subjects"]:
            where = namespace(binding)
            reference = binding["roleRef"]
            scope = "" if reference["kind"] == "ClusterRole" else where
            found.setdefault(where, []).extend(roles[reference["kind"], scope, reference["name"]]["rules"])
    return found


@COMPONENTS
def test_a_component_is_granted_exactly_the_table_in_code(component: str, grants: Grants) -> None:
    table = {"": grants.cluster, NAMESPACE: grants.release_namespace, "default": grants.default_namespace}
    wanted = {where: [rule.manifest() for rule in rules] for where, rules in table.items() if rules}
    assert granted(component, render()) == wanted


def test_every_role_of_ours_is_either_bound_or_for_people() -> None:
    roles = {m["metadata"]["name"] for m in render() if m["kind"] in {"ClusterRole", "Role"}}
    bound = {m["roleRef"]["name"] for m in render() if m["kind"] in {"ClusterRoleBinding", "RoleBinding"}}
    assert roles - bound == set(PEOPLE)


def test_the_pods_run_as_the_accounts_that_hold_the_rules() -> None:
    for name, deployment in of_kind(render(), "Deployment").items():
        assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == name
        assert name in of_kind(render(), "ServiceAccount")


def test_the_test_pod_holds_no_token_for_the_api_server() -> None:
    (pod,) = of_kind(render(), "Pod").values()
    assert pod["spec"]["automountServiceAccountToken"] is False
    tokens = [
        s["serviceAccountToken"] for v in pod["spec"]["volumes"] for s in v.get("projected", {}).get("sources", ())
    ]
    assert [token["audience"] for token in tokens] == ["tenure"]


@COMPONENTS
def test_no_component_can_read_a_secret_save_its_own_signing_keys(component: str, grants: Grants) -> None:
    for where, rules in granted(component, render()).items():
        for rule in rules:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"] and set(rule["verbs"]) != {"create"}:
                assert (where, rule["verbs"], rule["resourceNames"]) == (NAMESPACE, ["get"], [SIGNING_KEYS])


@COMPONENTS
def test_no_component_can_write_a_spec_save_that_the_gateway_annotates_sessions(component: str, grants: Grants) -> None:
    writes = [
        (rule["resources"], rule["verbs"])
        for rule in granted(component, render())[""]
        if rule["apiGroups"] == [GROUP] and not all(resource.endswith("/status") for resource in rule["resources"])
        if {"update", "patch"} & set(rule["verbs"])
    ]
    assert writes == ([(["agentsessions"], ["patch"])] if component == "gateway" else [])


def test_the_lease_and_the_signing_keys_are_in_the_release_namespace() -> None:
    names = [rule.get("resourceNames") for rule in granted("operator", render())[NAMESPACE]]
    assert names == [None, [LEASE], [SIGNING_KEYS]]


def may(role: str, manifests: list[Manifest]) -> dict[str, set[str]]:
    """What a ClusterRole for people lets them do, by resource."""
    rules = of_kind(manifests, "ClusterRole")[role]["rules"]
    assert all(rule["apiGroups"] == [GROUP] for rule in rules)
    return {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}


def test_an_author_manages_agents_and_policies_but_no_sessions() -> None:
    rights = may("tenure-agent-author", render())
    assert {"create", "update", "patch", "delete"} <= rights["agents"] & rights["memorypolicies"]
    assert rights["agentsessions"] == {"get", "list", "watch"}


def test_a_session_user_uses_agents_and_sees_no_session_of_others() -> None:
    rights = may("tenure-session-user", render())
    assert rights == {"agents": {"get", "list", "watch", "use"}}


def test_only_a_session_operator_acts_on_sessions_of_others() -> None:
    assert [role for role in PEOPLE if "use" in may(role, render()).get("agentsessions", ())] == [
        "tenure-session-operator"
    ]


def test_only_a_session_operator_wakes_what_is_kept_asleep() -> None:
    assert [role for role in PEOPLE if "wake" in may(role, render()).get("agentsessions", ())] == [
        "tenure-session-operator"
    ]


def test_an_auditor_only_looks() -> None:
    rights = may("tenure-auditor", render())
    assert set(rights) == {"agents", "agentsessions", "memorypolicies"}
    assert all(verbs == {"get", "list", "watch"} for verbs in rights.values())


def test_nobody_but_our_own_may_write_a_status() -> None:
    for role in PEOPLE:
        assert not any(resource.endswith("/status") for resource in may(role, render()))


def test_kubernetes_own_roles_are_widened_only_when_asked() -> None:
    def widened(manifests: list[Manifest]) -> dict[str, set[str]]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        roles = of_kind(manifests, "ClusterRole").items()
        found = {
            n: {label.removeprefix(prefix) for label in r["metadata"]["labels"] if label.startswith(prefix)}
            for n, r in roles
        }
        return {name: to for name, to in found.items() if to}

    assert widened(render()) == {}
    assert widened(all_on()) == {"tenure-agent-author": {"admin", "edit"}, "tenure-auditor": {"view"}}
