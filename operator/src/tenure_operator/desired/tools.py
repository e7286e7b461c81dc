"""The tools of an agent as its sidecars are told of them."""

from tenure_api.agent import AgentSpec
from tenure_api.configuration import (
    AgentConfig,
    CodeConfig,
    HeaderSource,
    HttpConfig,
    Limits,
    McpConfig,
    ToolConfig,
    WaitConfig,
)
from tenure_api.tools import (
    AgentSource,
    Approval,
    CodeSource,
    Header,
    HttpSource,
    McpSource,
    Method,
    Schema,
    Tool,
    TurnLimits,
    WaitSource,
)
from tenure_operator.desired.credentials import credential_path
from tenure_operator.desired.workspace import code_resources

AGENT_SECONDS = 600
CODE_SECONDS = 120
OTHER_SECONDS = 60
RESULT_BYTES = 32_768


def tool_configs(namespace: str, spec: AgentSpec) -> list[ToolConfig]:
    """The tools in the order of the spec; `namespace` is the agent's."""
    return [_tool(namespace, tool) for tool in spec.tools]


def limits(given: TurnLimits) -> Limits:
    """What one turn may use."""
    return Limits(
        max_steps=given.max_steps, max_duration_seconds=given.max_duration_seconds, max_tokens=given.max_tokens
    )


def _tool(namespace: str, tool: Tool) -> ToolConfig:
    return ToolConfig(
        name=tool.name,
        description=tool.description or "",
        replay=tool.replay,
        approval=tool.approval is Approval.REQUIRED,
        timeout_seconds=tool.timeout_seconds or _seconds(tool),
        max_result_bytes=tool.max_result_bytes or RESULT_BYTES,
        mcp=_mcp(tool.mcp) if tool.mcp else None,
        http=_http(tool.http) if tool.http else None,
        code=_code(tool.code) if tool.code else None,
        agent=_agent(namespace, tool.agent) if tool.agent else None,
        wait=_wait(tool.wait_until) if tool.wait_until else None,
    )


def _seconds(tool: Tool) -> int:
    """How long a call may take if the spec does not say."""
    if tool.agent:
        return AGENT_SECONDS
    return CODE_SECONDS if tool.code else OTHER_SECONDS


def _headers(headers: list[Header]) -> list[HeaderSource]:
    return [HeaderSource(name=each.name, credential=credential_path(each.value_secret_ref)) for each in headers]


def _mcp(source: McpSource) -> McpConfig:
    return McpConfig(
        url=source.url,
        headers=_headers(source.headers),
        include=source.include,
        refresh_seconds=source.refresh_seconds,
    )


def _http(source: HttpSource) -> HttpConfig:
    headers = _headers(source.headers)
    if source.open_api is not None:
        return HttpConfig(document=source.open_api.url, operation=source.open_api.operation_id, headers=headers)
    return HttpConfig(
        method=(source.method or Method.GET).value,
        url=source.url or "",
        parameters=(source.parameters or Schema()).model_dump(mode="json", by_alias=True),
        headers=headers,
    )


def _code(source: CodeSource) -> CodeConfig:
    bounds = code_resources(source.resources).limits
    return CodeConfig(memory=(bounds.memory if bounds else None) or "")


def _agent(namespace: str, source: AgentSource) -> AgentConfig:
    return AgentConfig(model=f"{namespace}/{source.name}", lifetime_seconds=source.lifetime_seconds)


def _wait(source: WaitSource) -> WaitConfig:
    return WaitConfig(max_seconds=source.max_seconds)
