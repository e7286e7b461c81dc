"""What a sidecar is told of its agent: mounted at start, pushed by the operator on every change."""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from tenure_api.messages import Wire
from tenure_api.tools import Replay


class ModelTarget(Wire):
    """One model endpoint. `credential` is a path below the sidecar's credentials mount, `<secret>/<key>`."""

    name: str
    base_url: str
    credential: str | None = None


class ModelRoute(Wire):
    """The model and its fallbacks, in the order in which they are tried."""

    api: Literal["ChatCompletions", "Responses"]
    targets: list[ModelTarget] = Field(min_length=1)
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    context_window_tokens: int | None = None
    first_token_timeout_seconds: int = 60


class EffectivePolicy(Wire):
    """What the sidecar enforces, and which generation of which policy said so."""

    name: str
    uid: str
    generation: int
    transcript_max_age_seconds: int | None = None
    transcript_max_count: int | None = None
    interval_seconds: int = 60


class HeaderSource(Wire):
    """A header of a tool's requests; `credential` is a path as in `ModelTarget` and holds the whole value."""

    name: str
    credential: str


class McpConfig(Wire):
    """An MCP server."""

    url: str
    headers: list[HeaderSource] = Field(default_factory=list)
    include: list[str] = Field(default_factory=list)
    """Names of its tools to offer; all if empty."""
    refresh_seconds: int = 300


class HttpConfig(Wire):
    """A request: either `url` (a template) with `method` and `parameters`, or `document` with `operation`."""

    method: str = "GET"
    url: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    document: str = ""
    """URL of an OpenAPI document."""
    operation: str = ""
    """The `operationId`."""
    headers: list[HeaderSource] = Field(default_factory=list)


class CodeConfig(Wire):
    """The workspace container; its limits are in the pod's manifest."""

    memory: str = ""
    """The container's memory limit as a quantity, for messages."""


class AgentConfig(Wire):
    """Another agent, as the gateway names it: `namespace/name`."""

    model: str
    lifetime_seconds: int


class WaitConfig(Wire):
    """Waiting."""

    max_seconds: int


class ToolConfig(Wire):
    """One tool of the agent; exactly one of the sources is given."""

    name: str
    description: str = ""
    """Empty: the source brings its own."""
    replay: Replay | None = None
    """None: what the source says."""
    approval: bool = False
    timeout_seconds: int = 60
    max_result_bytes: int = 32_768
    mcp: McpConfig | None = None
    http: HttpConfig | None = None
    code: CodeConfig | None = None
    agent: AgentConfig | None = None
    wait: WaitConfig | None = None


class Limits(Wire):
    """What one turn may use."""

    max_steps: int = 100
    max_duration_seconds: int = 3_600
    max_tokens: int | None = None


class SessionConfig(Wire):
    """All that a sidecar needs to know of its agent. Mounted at start, pushed by the operator on every change."""

    agent: str
    agent_uid: str
    agent_generation: int
    instructions: str = ""
    model: ModelRoute
    tools: list[ToolConfig] = Field(default_factory=list)
    limits: Limits = Limits()
    gateway_url: str = ""
    """Base URL of the gateway, without `/v1`; given if one of the tools is an agent."""
    policy: EffectivePolicy | None = None

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, hexadecimal; equal configurations have equal digests."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
