"""The tools of an agent: what its model may call besides answering."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from tenure_api.fields import IMAGE, ORIGIN, PORT, URL, ObjectName, Resources, SecretKeyRef
from tenure_api.markers import Resource, cel, free, free_object, list_map, list_set, rule, validated

_FUNCTION = rule(
    "self.matches('^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$') && !self.contains('__')",
    "must be a function name: letters, digits, '-' and '_', no '__', beginning and ending with a letter or digit",
)
_TEMPLATE = rule(
    rf"self.matches('{ORIGIN}"
    r"(/([A-Za-z0-9._~%!$&()*+,;=:@/-]|\\{[A-Za-z0-9_.-]+\\})*)?$')",
    "must be an http:// or https:// URL without credentials or query, with {parameter} only in its path, such as "
    "https://api.example.com/orders/{id}",
)
_HEADER = rule(
    "self.matches('^[A-Za-z0-9-]+$') && !(self.lowerAscii() in ['accept', 'connection', 'content-length', "
    "'content-type', 'host', 'idempotency-key', 'mcp-protocol-version', 'mcp-session-id', 'transfer-encoding'])",
    "must be the name of a header that Tenure does not set itself, such as Authorization or X-Api-Key",
)
_ONE_OF_EACH_HEADER = rule(
    "self.all(one, self.exists_one(other, other.name.lowerAscii() == one.name.lowerAscii()))",
    "names a header twice; upper and lower case make no difference",
)
_PARAMETERS = rule(
    "!has(self.url) || !self.url.contains('{') || (has(self.parameters) && has(self.parameters.required) && "
    r"self.url.findAll('\\{[^}]*\\}').all(named, named.substring(1, named.size() - 1) in self.parameters.required))",
    "each {parameter} of url must be in parameters.required, and described in parameters.properties",
)
ONE_CODE_TOOL = rule(
    "self.filter(tool, has(tool.code)).size() <= 1",
    "may have one tool with code only: all code of a session runs in the same container",
)

ToolName = Annotated[str, Field(min_length=1, max_length=32), cel(_FUNCTION)]


CODE_CPU_REQUEST = "10m"
CODE_MEMORY_REQUEST = "32Mi"
"""What the container of code reserves unless the spec says more: it idles most of the time."""


class Replay(StrEnum):
    """What may happen to a call whose outcome is not known because the session was interrupted."""

    SAFE = "Safe"
    """It is made again."""
    IDEMPOTENCY_KEY = "IdempotencyKey"
    """It is made again with the same key, by which the tool knows it."""
    NEVER = "Never"
    """It is not made again: the model is told that the outcome is unknown."""


class Approval(StrEnum):
    """Whether a person must agree before a call is made."""

    NEVER = "Never"
    REQUIRED = "Required"


class Method(StrEnum):
    """The HTTP methods of a tool."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class Network(StrEnum):
    """Whether code has the pod's network."""

    DENIED = "Denied"
    ALLOWED = "Allowed"


class SchemaType(StrEnum):
    """The JSON schema types that arguments may have."""

    OBJECT = "object"


class Header(Resource):
    """A header whose value is in a Secret, which only the sidecar sees."""

    name: Annotated[str, Field(min_length=1, max_length=64), cel(_HEADER)] = Field(description="Name of the header.")
    value_secret_ref: SecretKeyRef = Field(description="Where its whole value is, such as `Bearer abc`.")


Headers = Annotated[list[Header], Field(max_length=8), list_map("name"), cel(_ONE_OF_EACH_HEADER)]
Url = Annotated[str, Field(min_length=1, max_length=2048), cel(URL, PORT)]


class McpSource(Resource):
    """An MCP server that speaks Streamable HTTP. Each of its tools becomes a function `<tool name>__<its name>`."""

    url: Url = Field(description="Its endpoint, such as http://orders.shop.svc:8000/mcp.")
    headers: Headers = Field(default_factory=list, description="Headers sent with every request.")
    include: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=64), list_set()] = (
        Field(default_factory=list, description="Names of the server's tools to offer; all if left out.")
    )
    refresh_seconds: Annotated[int, Field(ge=5, le=86_400)] = Field(
        300, description="Seconds after which the list of the server's tools is asked for again."
    )


class OpenApiSource(Resource):
    """An operation that an OpenAPI 3 document describes."""

    url: Url = Field(description="Where the document is, as JSON or YAML. It is asked for with the tool's headers.")
    operation_id: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The `operationId` of the operation to call."
    )


class Schema(Resource):
    """A JSON schema of an object. Only what is checked at admission is named; all else is kept as it is."""

    model_config = ConfigDict(extra="allow", json_schema_extra=free)
    type: SchemaType = Field(SchemaType.OBJECT, description="Arguments are always an object.")
    properties: Annotated[dict[str, Any], free_object()] = Field(
        default_factory=dict, description="JSON schema of each argument, by its name."
    )
    required: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=32), list_set()] = (
        Field(default_factory=list, description="Names of the arguments that each call must have.")
    )


class HttpSource(Resource):
    """One HTTP request: by a URL template, or by an operation of an OpenAPI document."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule("has(self.url) != has(self.openAPI)", "needs either url or openAPI"),
            rule(
                "!has(self.openAPI) || (!has(self.method) && !has(self.parameters))",
                "openAPI says method and parameters itself: leave them out",
            ),
            _PARAMETERS,
        )
    )
    method: Method | None = Field(None, description="Method of a request by URL template; GET if left out.")
    url: Annotated[str, Field(min_length=1, max_length=1024), cel(_TEMPLATE, PORT)] | None = Field(
        None,
        description="URL with `{parameter}` in its path. Other arguments go into the query for GET and DELETE, "
        "and into a JSON body for the other methods.",
    )
    parameters: Schema | None = Field(None, description="JSON schema of the arguments; no arguments if left out.")
    open_api: OpenApiSource | None = Field(None, alias="openAPI", description="An operation of an OpenAPI document.")
    headers: Headers = Field(default_factory=list, description="Headers sent with every request.")


def _at_least(what: str, least: str) -> dict[str, str]:
    """The rule that a limit of the container of code leaves room for what it reserves unasked."""
    limit = f"self.resources.limits.{what}"
    return rule(
        f"!has(self.resources) || !has(self.resources.limits) || !has({limit}) || !isQuantity({limit}) || "
        f"quantity({limit}).compareTo(quantity('{least}')) >= 0",
        f"resources.limits.{what} must be at least {least}, which Python itself needs",
    )


class CodeSource(Resource):
    """Python and shell in a container of its own, with the session's files at /workspace."""

    model_config = ConfigDict(
        json_schema_extra=validated(_at_least("cpu", CODE_CPU_REQUEST), _at_least("memory", CODE_MEMORY_REQUEST))
    )
    image: Annotated[str, Field(min_length=1, max_length=512), cel(IMAGE)] | None = Field(
        None, description="Image with python3 (3.9 or newer) and sh; one with Python only if left out."
    )
    resources: Resources | None = Field(
        None,
        description="CPU and memory of the container; limits of 1 CPU and 512Mi if left out. An amount that is only "
        "requested is the limit too.",
    )
    max_processes: Annotated[int, Field(ge=8, le=4096)] = Field(
        128, description="Most processes and threads that the code may have at once."
    )
    network: Network = Field(
        Network.DENIED,
        description="Denied: the code cannot open a network socket. Allowed: it has the pod's network.",
    )


class AgentSource(Resource):
    """Another agent in this namespace, called in a session of its own."""

    name: ObjectName = Field(description="Name of the Agent.")
    lifetime_seconds: Annotated[int, Field(ge=60, le=2_592_000)] = Field(
        3600, description="Seconds after which the session that was made for the call is deleted."
    )


class WaitSource(Resource):
    """Lets the model suspend its turn until a time."""

    max_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = Field(
        604_800, description="Longest time from now that the model may wait for."
    )


class Tool(Resource):
    """One tool. Exactly one of `mcp`, `http`, `code`, `agent` and `waitUntil` says what it is."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule(
                "[has(self.mcp), has(self.http), has(self.code), has(self.agent), has(self.waitUntil)]"
                ".filter(given, given).size() == 1",
                "needs exactly one of mcp, http, code, agent and waitUntil",
            ),
            rule("!has(self.mcp) || !has(self.description)", "description comes from the MCP server: leave it out"),
            rule(
                "!has(self.waitUntil) || (!has(self.replay) && !has(self.timeoutSeconds) && !has(self.maxResultBytes))",
                "waitUntil has no replay, timeoutSeconds or maxResultBytes: leave them out",
            ),
            rule(
                "!has(self.agent) || !has(self.replay) || self.replay == 'IdempotencyKey'",
                "an agent is always called with an idempotency key: leave replay out",
            ),
            rule(
                "!has(self.http) || has(self.http.openAPI) || has(self.description)",
                "description is needed: say in a sentence what the request is for",
            ),
            rule("!has(self.agent) || has(self.description)", "description is needed: say what the agent is for"),
        )
    )
    name: ToolName = Field(description="Name of the function that the model calls; of an MCP server, the prefix.")
    description: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description="What the model is told about the tool. `code`, `waitUntil` and OpenAPI bring their own."
    )
    mcp: McpSource | None = Field(None, description="The tools of an MCP server.")
    http: HttpSource | None = Field(None, description="An HTTP request.")
    code: CodeSource | None = Field(None, description="Python and shell; at most one tool of an agent.")
    agent: AgentSource | None = Field(None, description="Another agent.")
    wait_until: WaitSource | None = Field(None, description="Suspends the turn until a time.")
    replay: Replay | None = Field(
        None,
        description="What happens to a call that was interrupted. If left out: Safe for GET and for MCP tools with "
        "readOnlyHint, IdempotencyKey for agents and for MCP tools with idempotentHint, else Never.",
    )
    approval: Approval = Field(
        Approval.NEVER, description="Required: each call waits until a person has approved it over the API."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = Field(
        None, description="Longest time for a call; 600 for an agent, 120 for code, else 60 if left out."
    )
    max_result_bytes: Annotated[int, Field(ge=256, le=1_048_576)] | None = Field(
        None,
        description="Most bytes of a result that the model is shown, 32768 if left out. A longer result is kept whole "
        "in a file below /workspace, whose path the model is given.",
    )


class TurnLimits(Resource):
    """What one turn may use. A turn that reaches a limit ends as failed, and says which."""

    max_steps: Annotated[int, Field(ge=1, le=10_000)] = Field(
        100, description="Most model calls and tool calls of a turn."
    )
    max_duration_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        3600, description="Longest time of a turn. Waiting for an approval or with `waitUntil` does not count."
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        None, description="Most tokens, of input and output, that the model calls of a turn may use together."
    )
