"""What the tools of an agent mean for its sidecars and for its pods."""

import json
from typing import Any

import pytest

from tenure_api.agent import AgentSpec
from tenure_api.configuration import SessionConfig, ToolConfig
from tenure_operator.desired.config import config_map, session_config
from tenure_operator.desired.containers import GROUP_ID
from tenure_operator.desired.credentials import CREDENTIALS_MOUNT, GATEWAY_TOKEN_MOUNT, credentials
from tenure_operator.desired.pod import Run, pod, pod_hash
from tenure_operator.desired.workspace import FIRST_USER, code_user
from tenure_operator.kinds import Manifest, Meta
from unit.operator.bench import GATEWAY_URL, SETTINGS, set_of

AGENT = Meta("shop", "helper", "agent-uid", 3)
SESSION = Meta("shop", "chat", "12345678-aaaa", 1)
TOKEN = {"name": "Authorization", "valueSecretRef": {"name": "orders", "key": "bearer"}}
MCP = {"name": "orders", "mcp": {"url": "http://orders/mcp", "headers": [TOKEN], "include": ["get"]}}
HTTP = {"name": "refund", "description": "Refunds.", "http": {"method": "POST", "url": "http://pay/{id}"}}
CODE: dict[str, Any] = {"name": "run", "code": {}}
OTHER = {"name": "research", "description": "Researches.", "agent": {"name": "researcher"}}
WAIT = {"name": "wait", "waitUntil": {"maxSeconds": 60}}


def spec(*tools: dict[str, Any], **given: Any) -> AgentSpec:
    return AgentSpec.model_validate(
        {"model": {"name": "m", "baseURL": "http://model/v1"}, "tools": list(tools), **given}
    )


def config(*tools: dict[str, Any], **given: Any) -> SessionConfig:
    return session_config(AGENT, spec(*tools, **given), None, GATEWAY_URL)


def only(tool: dict[str, Any], **given: Any) -> ToolConfig:
    (found,) = config({**tool, **given}).tools
    return found


def a_pod(*tools: dict[str, Any], session: Meta = SESSION, **given: Any) -> Manifest:
    found: Manifest = pod(set_of(session), Run(session.uid, 1), spec(*tools, **given), SETTINGS)["spec"]
    return found


def named(parts: list[Manifest], name: str) -> Manifest:
    (found,) = [part for part in parts if part["name"] == name]
    return found


# --- the configuration ---------------------------------------------------------------------------------------------


def test_tools_keep_their_order() -> None:
    assert [tool.name for tool in config(WAIT, CODE, HTTP, MCP, OTHER).tools] == [
        "wait",
        "run",
        "refund",
        "orders",
        "research",
    ]


@pytest.mark.parametrize(("tool", "seconds"), [(MCP, 60), (HTTP, 60), (CODE, 120), (OTHER, 600)])
def test_a_call_has_as_long_as_its_kind_needs_unless_the_spec_says(tool: dict[str, Any], seconds: int) -> None:
    assert only(tool).timeout_seconds == seconds
    assert only(tool, timeoutSeconds=5).timeout_seconds == 5
    assert (only(tool).max_result_bytes, only(tool, maxResultBytes=256).max_result_bytes) == (32_768, 256)


def test_what_a_tool_says_of_calls_reaches_the_sidecar() -> None:
    assert (only(HTTP).replay, only(HTTP).approval, only(HTTP).description) == (None, False, "Refunds.")
    found = only(HTTP, replay="IdempotencyKey", approval="Required")
    assert (found.replay, found.approval) == ("IdempotencyKey", True)
    assert only(CODE).description == ""


def test_a_sidecar_is_told_where_a_header_is_and_not_what_it_says() -> None:
    mcp = only(MCP).mcp
    assert mcp is not None
    assert (mcp.url, mcp.include, mcp.refresh_seconds) == ("http://orders/mcp", ["get"], 300)
    assert [(header.name, header.credential) for header in mcp.headers] == [("Authorization", "orders/bearer")]


def test_a_request_without_parameters_takes_no_arguments() -> None:
    http = only(HTTP).http
    assert http is not None
    assert (http.method, http.url) == ("POST", "http://pay/{id}")
    assert http.parameters == {"type": "object", "properties": {}, "required": []}


def test_a_schema_reaches_the_sidecar_as_it_was_written() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": ["string", "null"], "default": None, "oneOf": [{"$ref": "#/$defs/id"}]}},
        "required": ["id"],
        "additionalProperties": False,
        "$defs": {"id": {"enum": [None, "a"]}},
    }
    http = only({**HTTP, "http": {"url": "http://pay/{id}", "parameters": schema}}).http
    assert http is not None
    assert (http.method, http.parameters) == ("GET", schema)


def test_an_operation_is_looked_up_by_the_sidecar() -> None:
    source = {"openAPI": {"url": "http://pay/openapi.json", "operationId": "refund"}, "headers": [TOKEN]}
    http = only({"name": "refund", "http": source}).http
    assert http is not None
    assert (http.document, http.operation, http.url) == ("http://pay/openapi.json", "refund", "")
    assert [header.credential for header in http.headers] == ["orders/bearer"]


def test_only_agents_that_call_agents_are_told_of_the_gateway() -> None:
    assert config(MCP, HTTP, CODE, WAIT).gateway_url == ""
    found = config(OTHER)
    assert found.gateway_url == GATEWAY_URL
    assert found.tools[0].agent is not None
    assert (found.tools[0].agent.model, found.tools[0].agent.lifetime_seconds) == ("shop/researcher", 3600)


def test_a_wait_has_its_longest_time() -> None:
    wait = only(WAIT).wait
    assert wait is not None
    assert wait.max_seconds == 60


def test_limits_of_a_turn_reach_the_sidecar() -> None:
    plain = config().limits
    assert (plain.max_steps, plain.max_duration_seconds, plain.max_tokens) == (100, 3600, None)
    tight = config(turnLimits={"maxSteps": 1, "maxDurationSeconds": 2, "maxTokens": 3}).limits
    assert (tight.max_steps, tight.max_duration_seconds, tight.max_tokens) == (1, 2, 3)


def test_the_sidecar_reads_what_the_operator_writes() -> None:
    written = config(MCP, HTTP, CODE, OTHER, WAIT)
    data = config_map(AGENT, written, {})["data"]["config.json"]
    assert SessionConfig.model_validate(json.loads(data)).digest() == written.digest()


# --- the pod -------------------------------------------------------------------------------------------------------


def test_an_agent_without_code_has_no_container_for_it() -> None:
    found = a_pod(HTTP, WAIT)
    assert found == a_pod()
    assert [container["name"] for container in found["initContainers"] + found["containers"]] == ["sidecar", "agent"]


def test_the_workspace_gets_the_sessions_files_and_nothing_else_of_it() -> None:
    found = a_pod(CODE, MCP, OTHER)
    workspace = named(found["containers"], "workspace")
    assert {m["mountPath"]: (m["name"], m.get("subPath"), m.get("readOnly")) for m in workspace["volumeMounts"]} == {
        "/workspace": ("state", "workspace", None),
        "/tmp": ("workspace-tmp", None, None),
        "/run/tenure/exec": ("exec", None, None),
        "/opt/tenure": ("executor", None, True),
    }
    assert not any("secretKeyRef" in json.dumps(variable) for variable in workspace["env"])
    assert workspace["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_workspace_is_told_its_bounds() -> None:
    source = {"code": {"image": "acme/tables:1", "maxProcesses": 16, "network": "Allowed"}}
    found = named(a_pod({**CODE, **source})["containers"], "workspace")
    said = {variable["name"]: variable.get("value") for variable in found["env"]}
    assert (said["TENURE_MAX_PROCESSES"], said["TENURE_NETWORK"]) == ("16", "Allowed")
    (memory,) = [v["valueFrom"] for v in found["env"] if v["name"] == "TENURE_MEMORY_BYTES"]
    assert memory == {"resourceFieldRef": {"containerName": "workspace", "resource": "limits.memory"}}
    assert (found["image"], found["command"]) == ("acme/tables:1", ["python3", "-I", "/opt/tenure/executor.pyz"])


def test_the_program_that_runs_code_comes_before_all_else() -> None:
    first, second = a_pod(CODE)["initContainers"]
    assert (first["name"], second["name"]) == ("executor", "sidecar")
    assert first["image"] == second["image"] == "tenure/runtime:1"
    assert first["command"] == ["python3", "-m", "tenure_executor.install", "/opt/tenure"]
    assert "restartPolicy" not in first


def test_only_sidecar_and_workspace_share_the_socket() -> None:
    found = a_pod(CODE)
    sharing = [
        container["name"]
        for container in found["initContainers"] + found["containers"]
        if any(mount["name"] == "exec" for mount in container["volumeMounts"])
    ]
    assert sharing == ["sidecar", "workspace"]


def test_code_cannot_fill_the_disk_of_the_node() -> None:
    found = a_pod(CODE)
    workspace = named(found["containers"], "workspace")
    written = {m["name"] for m in workspace["volumeMounts"] if not m.get("readOnly")} - {"state"}
    for name in written:
        assert named(found["volumes"], name)["emptyDir"].keys() == {"medium", "sizeLimit"}, name


def test_every_container_of_a_pod_with_code_meets_the_restricted_standard_as_a_user_of_its_own() -> None:
    found = a_pod(CODE)
    containers = found["initContainers"] + found["containers"]
    for container in containers:
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["runAsGroup"] == GROUP_ID
    assert len({container["securityContext"]["runAsUser"] for container in containers}) == len(containers) == 4


def test_no_two_sessions_share_the_user_whose_processes_the_kernel_counts() -> None:
    users = {code_user(f"{number:08x}-0000-4000-8000-000000000000") for number in range(1000)}
    assert len(users) == 1000
    assert all(FIRST_USER <= user < 2**31 for user in users)
    assert code_user(SESSION.uid) == named(a_pod(CODE)["containers"], "workspace")["securityContext"]["runAsUser"]


def test_the_hash_is_the_same_for_all_sessions_that_run_code() -> None:
    hashes = {
        pod(set_of(Meta("shop", name, uid, 1)), Run(uid, 1), spec(CODE), SETTINGS)["metadata"]["annotations"][
            "tenure.dev/pod-hash"
        ]
        for name, uid in (("one", "1-1"), ("two", "2-2"))
    }
    assert hashes == {pod_hash("helper", spec(CODE), SETTINGS)}
    assert hashes != {pod_hash("helper", spec(), SETTINGS)}


def test_a_change_of_a_tool_that_the_pod_does_not_know_of_replaces_no_pod() -> None:
    def hashed(*tools: dict[str, Any]) -> str:
        return pod_hash("helper", spec(*tools), SETTINGS)

    assert hashed(HTTP, WAIT) == hashed({**HTTP, "approval": "Required"}) == hashed()
    assert hashed(MCP) != hashed()  # a Secret more
    assert hashed({**CODE, "timeoutSeconds": 5}) == hashed(CODE)
    assert hashed({**CODE, "code": {"network": "Allowed"}}) != hashed(CODE)


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        (None, {"cpu": "10m", "memory": "32Mi"}, {"cpu": "1", "memory": "512Mi"}),
        ({"limits": {"memory": "4Gi"}}, {"cpu": "10m", "memory": "32Mi"}, {"cpu": "1", "memory": "4Gi"}),
        ({"requests": {"memory": "2Gi"}}, {"cpu": "10m", "memory": "2Gi"}, {"cpu": "1", "memory": "2Gi"}),
        ({"limits": {"cpu": "3"}}, {"cpu": "10m", "memory": "32Mi"}, {"cpu": "3", "memory": "512Mi"}),
    ],
)
def test_code_never_runs_without_a_limit_and_reserves_little_unasked(
    given: dict[str, Any] | None, requests: dict[str, str], limits: dict[str, str]
) -> None:
    tool = {**CODE, "code": {"resources": given} if given else {}}
    found = named(a_pod(tool)["containers"], "workspace")["resources"]
    assert (found["requests"], found["limits"]) == (requests, limits)
    code = only(tool).code
    assert code is not None
    assert code.memory == limits["memory"]


def test_headers_join_the_credentials_of_the_sidecar_alone() -> None:
    other = {"name": "X-Api-Key", "valueSecretRef": {"name": "pay"}}
    found = a_pod(MCP, {**HTTP, "http": {"url": "http://pay/", "headers": [TOKEN, other]}})
    (volume,) = [v for v in found["volumes"] if v["name"] == "credentials"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "orders", "optional": True, "items": [{"key": "bearer", "path": "orders/bearer"}]}},
        {"secret": {"name": "pay", "optional": True, "items": [{"key": "api-key", "path": "pay/api-key"}]}},
    ]
    assert named(named(found["initContainers"], "sidecar")["volumeMounts"], "credentials") == {
        "name": "credentials",
        "mountPath": CREDENTIALS_MOUNT,
        "readOnly": True,
    }


def test_each_header_is_known_by_the_field_that_names_its_secret() -> None:
    second = {**HTTP, "http": {"url": "http://pay/", "headers": [TOKEN]}}
    assert [field for field, _ in credentials(spec(MCP, CODE, second))] == [
        "spec.tools[0].mcp.headers[0].valueSecretRef",
        "spec.tools[2].http.headers[0].valueSecretRef",
    ]


def test_a_token_for_the_gateway_is_the_sidecars_alone_and_only_if_an_agent_is_called() -> None:
    found = a_pod(OTHER, CODE)
    (source,) = named(found["volumes"], "gateway-token")["projected"]["sources"]
    assert source == {"serviceAccountToken": {"path": "token", "audience": "tenure", "expirationSeconds": 3600}}
    for container in found["initContainers"] + found["containers"]:
        mounts = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "gateway-token"]
        assert mounts == ([GATEWAY_TOKEN_MOUNT] if container["name"] == "sidecar" else [])
    assert "gateway-token" not in json.dumps(a_pod(CODE, MCP, HTTP))
    assert found["automountServiceAccountToken"] is False


def test_a_runtime_class_is_the_pods() -> None:
    assert "runtimeClassName" not in a_pod(CODE)
    assert a_pod(runtime={"runtimeClassName": "kata"})["runtimeClassName"] == "kata"
