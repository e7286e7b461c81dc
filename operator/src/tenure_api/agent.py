"""The `Agent` kind: what to run for each session."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from tenure_api.conditions import Condition
from tenure_api.fields import IMAGE, PORT, URL, ObjectName, Quantity, Resources, SecretKeyRef
from tenure_api.markers import Resource, cel, list_atomic, list_map, rule, validated
from tenure_api.tools import ONE_CODE_TOOL, Tool, TurnLimits

_BASE = rule(
    r"!self.matches('/(chat/completions|completions|responses)/?$')",
    "must stop before the operation: write https://host/v1, without /chat/completions or /responses",
)
_TEMPERATURE = rule(
    r"self.matches('^([01](\\.[0-9]{1,4})?|2(\\.0{1,4})?)$')", "must be a decimal from 0 to 2 in quotes, such as '0.7'"
)
_PROBABILITY = rule(
    r"self.matches('^(0(\\.[0-9]{1,4})?|1(\\.0{1,4})?)$')", "must be a decimal from 0 to 1 in quotes, such as '0.9'"
)


ModelName = Annotated[str, Field(min_length=1, max_length=256)]
BaseURL = Annotated[str, Field(min_length=1, max_length=2048), cel(URL, PORT, _BASE)]


class ModelApi(StrEnum):
    """The OpenAI API that a model endpoint speaks."""

    CHAT_COMPLETIONS = "ChatCompletions"
    RESPONSES = "Responses"


class ModelParameters(Resource):
    """Sampling parameters, sent with every model call that does not set its own."""

    temperature: Annotated[str, Field(max_length=8), cel(_TEMPERATURE)] | None = Field(
        None, description="Sampling temperature from 0 to 2, as a decimal in quotes."
    )
    top_p: Annotated[str, Field(max_length=8), cel(_PROBABILITY)] | None = Field(
        None, description="Nucleus sampling mass from 0 to 1, as a decimal in quotes."
    )
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Most tokens that one answer of the model may have."
    )


class Fallback(Resource):
    """Another model, tried when the ones before it fail before their first token."""

    name: ModelName = Field(description="Model name as the endpoint knows it.")
    base_url: BaseURL | None = Field(
        None, alias="baseURL", description="Base URL of the endpoint; that of `spec.model` if left out."
    )
    credentials_secret_ref: SecretKeyRef | None = Field(
        None,
        description="Credential of this endpoint. If both this and baseURL are left out, that of `spec.model` is used; "
        "a credential is never sent to another endpoint than the one it was given for.",
    )


class Model(Resource):
    """The model that answers, and how it is reached."""

    name: ModelName = Field(description="Model name as the endpoint knows it.")
    base_url: BaseURL = Field(
        alias="baseURL", description="Base URL of an OpenAI-compatible endpoint, up to and including `/v1`."
    )
    api: ModelApi = Field(
        ModelApi.CHAT_COMPLETIONS, description="The OpenAI API that this endpoint and all fallbacks speak."
    )
    credentials_secret_ref: SecretKeyRef | None = Field(
        None, description="Where the endpoint's API key is; none for an endpoint that needs no key."
    )
    parameters: ModelParameters | None = Field(None, description="Sampling parameters.")
    context_window_tokens: Annotated[int, Field(ge=256, le=10_000_000)] | None = Field(
        None,
        description="Tokens that the model can read at once. Older turns are left out of a call that would not fit. "
        "Without it, turns are left out only after the model has refused a call as too long.",
    )
    first_token_timeout_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        60, description="Seconds to wait for the first token before the next fallback is tried."
    )
    fallbacks: Annotated[list[Fallback], Field(max_length=5), list_atomic()] = Field(
        default_factory=list,
        description="Models tried in this order when a call fails or times out before its first token.",
    )


class Runtime(Resource):
    """The agent container."""

    image: Annotated[str, Field(min_length=1, max_length=512), cel(IMAGE)] | None = Field(
        None,
        description="Image that serves OpenAI Chat Completions on port 8000; the built-in agent loop if left out.",
    )
    resources: Resources | None = Field(None, description="CPU and memory of the agent container.")
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the session's pod, such as one that runs it in a virtual machine."
    )


class WhenDeleted(StrEnum):
    """What becomes of a volume whose session is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Storage(Resource):
    """The volume of each session."""

    size: Quantity = Field(
        "1Gi",
        description="Size of the volume of each session. Volumes that are smaller grow to it where their StorageClass "
        "allows it; none ever shrinks.",
    )
    storage_class_name: ObjectName | None = Field(
        None,
        description="StorageClass of the volumes; the cluster's default if left out. A change holds for sessions made "
        "from then on.",
    )
    when_deleted: WhenDeleted = Field(
        WhenDeleted.DELETE,
        description="What becomes of the volume and its data key when the session is deleted: Delete removes both, "
        "Retain keeps them for a session that is made again under the same name for the same subject.",
    )


class WarmPool(Resource):
    """Pods that are started ahead, each with its volume and key, for sessions to come."""

    size: Annotated[int, Field(ge=0, le=200)] = Field(
        0, description="How many are kept ready. Each costs what a running session costs."
    )


class Isolation(StrEnum):
    """What the sessions of an agent share."""

    SESSION = "Session"
    """Nothing: each has a pod and a volume of its own."""
    SHARED = "Shared"
    """Pods and volumes; each has a journal and a key of its own."""


_NOT_SHARED = "!has(self.isolation) || self.isolation != 'Shared' || "  # a default is judged before it has its own
_SHARED_SIZES = rule(
    "(has(self.isolation) && self.isolation == 'Shared') || !has(self.replicas) || self.replicas == 1",
    "replicas is for isolation Shared: leave it out",
)
_NO_POOL = rule(
    _NOT_SHARED + "!has(self.warmPool) || !has(self.warmPool.size) || self.warmPool.size == 0",
    "with isolation Shared a warmPool is of no use, since a session needs no pod of its own: leave it out",
)
_NOT_RETAINED = rule(
    _NOT_SHARED + "!has(self.storage) || !has(self.storage.whenDeleted) || self.storage.whenDeleted != 'Retain'",
    "with isolation Shared no session has a volume that could be retained: leave storage.whenDeleted out",
)


class SessionTemplate(Resource):
    """What each session of this agent gets."""

    model_config = ConfigDict(json_schema_extra=validated(_SHARED_SIZES, _NO_POOL, _NOT_RETAINED))

    isolation: Isolation = Field(
        Isolation.SESSION,
        description="Session: each session has a pod and a volume of its own. Shared: all sessions share the pods and "
        "volumes of `replicas`, each with a journal and a key of its own.",
    )
    replicas: Annotated[int, Field(ge=1, le=50)] = Field(
        1,
        description="With isolation Shared: how many pods the sessions share. A pod beyond that takes no new sessions "
        "and goes with its last one.",
    )
    idle_timeout_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        900, description="Seconds without a turn after which a session is put to sleep: its pod goes, its volume stays."
    )
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=31_536_000)] | None = Field(
        None, description="Age in seconds at which a session's pod is replaced by a fresh one, between two turns."
    )
    storage: Storage = Field(default_factory=Storage, description="The session's volume.")
    warm_pool: WarmPool = Field(default_factory=WarmPool, description="Pods that are started ahead.")


class PolicyRef(Resource):
    """A MemoryPolicy in the same namespace."""

    name: ObjectName = Field(description="Name of the MemoryPolicy.")


_SHARED = "!has(self.session) || !has(self.session.isolation) || self.session.isolation != 'Shared' || "
_NO_CODE = rule(
    _SHARED + "!has(self.tools) || self.tools.all(tool, !has(tool.code) && !has(tool.agent))",
    "with session.isolation Shared no tool may be code or an agent: these are given to a pod and not to a session",
)
_SAME_ISOLATION = rule(
    "(has(self.session) && has(self.session.isolation) ? self.session.isolation : 'Session') == "
    "(has(oldSelf.session) && has(oldSelf.session.isolation) ? oldSelf.session.isolation : 'Session')",
    "session.isolation cannot be changed; create another Agent instead",
)
_BUILT_IN = rule(
    _SHARED + "!has(self.runtime) || !has(self.runtime.image)",
    "with session.isolation Shared the built-in agent loop is used: leave runtime.image out",
)


class AgentSpec(Resource):
    """What to run: a model, instructions, tools, the container and the volume of each session."""

    model_config = ConfigDict(json_schema_extra=validated(_NO_CODE, _BUILT_IN, _SAME_ISOLATION))

    model: Model = Field(description="The model that answers.")
    instructions: Annotated[str, Field(max_length=32_768)] = Field(
        "", description="System instructions, put before every conversation."
    )
    tools: Annotated[list[Tool], Field(max_length=32), list_map("name"), cel(ONE_CODE_TOOL)] = Field(
        default_factory=list, description="What the model may call."
    )
    turn_limits: TurnLimits = Field(default_factory=TurnLimits, description="What one turn may use.")
    runtime: Runtime = Field(default_factory=Runtime, description="The agent container.")
    session: SessionTemplate = Field(default_factory=SessionTemplate, description="What each session gets.")
    memory_policy_ref: PolicyRef | None = Field(
        None, description="The MemoryPolicy that rules what this agent's sessions may keep; without one all is kept."
    )


class SessionCount(Resource):
    """How many sessions there are."""

    total: int = Field(0, description="Sessions that refer to this agent.")
    running: int = Field(0, description="Of these, sessions that run and can take a turn at once.")
    hibernated: int = Field(0, description="Of these, sessions that sleep until they are asked for something.")


class WarmPoolStatus(Resource):
    """The sets of pod, volume and key that are kept ahead, and what they cost."""

    ready: int = Field(description="Sets that a session can claim now.")
    starting: int = Field(description="Sets that are being made.")
    cpu: str = Field(max_length=32, description="CPU that all of them reserve, as a quantity.")
    memory: str = Field(max_length=32, description="Memory that all of them reserve, as a quantity.")
    storage: str = Field(max_length=32, description="Storage that all of them claim, as a quantity.")


class AgentStatus(Resource):
    """What is known of an agent."""

    observed_generation: int = Field(-1, description="Generation of the spec that this status speaks of.")
    revision: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="Names what this agent's pods are made to; a session's status says which one it runs."
    )
    sessions: SessionCount | None = Field(None, description="This agent's sessions.")
    warm_pool: WarmPoolStatus | None = Field(None, description="Given if the agent has a warm pool.")
    conditions: Annotated[list[Condition], Field(max_length=16), list_map("type")] = Field(
        default_factory=list, description="Ready sums up; Reconciling and Stalled are present only while true."
    )


class Agent(Resource):
    """An agent: its model, instructions, container, storage and policy. An AgentSession is a conversation with it."""

    model_config = ConfigDict(
        json_schema_extra=validated(
            rule("self.metadata.name.size() <= 52", "metadata.name must have at most 52 characters"),
            rule("!self.metadata.name.contains('.')", "metadata.name must not contain '.'; use '-'"),
        )
    )
    spec: AgentSpec
    status: AgentStatus = Field(default_factory=AgentStatus)
