"""Messages between operator, gateway, sidecar and runtime. All JSON, camelCase, unknown fields ignored.

Sidecar, port `SIDECAR_PORT`, bearer token (see `tokens`) except for the two probes:

| call                     | who              | what                                                                  |
|--------------------------|------------------|-----------------------------------------------------------------------|
| `POST /v1/turns`         | gateway          | `TurnRequest` → NDJSON stream of `TurnEvent`; idempotent by `turn`     |
| `GET /v1/turns/{turn}`   | gateway          | `Turn`, or 404                                                         |
| `GET /v1/items`          | gateway          | `ItemPage`; query `limit` 1 to 100, `order`, `after` (item id) |
| `GET /v1/report`         | operator         | `Report`                                                               |
| `PUT /v1/config`         | operator         | `SessionConfig` → `Report`                                             |
| `GET /healthz` `/readyz` | kubelet          | 200, or 503 with a sentence                                            |

`GET /metrics` is on `METRICS_PORT`. The model proxy listens on the pod's loopback only, `MODEL_PROXY_PORT`. The agent
container serves OpenAI Chat Completions on `RUNTIME_PORT`. Errors are `Failure` with a fitting HTTP status.
"""

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SIDECAR_PORT = 8081
METRICS_PORT = 9090
MODEL_PROXY_PORT = 8080
RUNTIME_PORT = 8000


def sidecar_url(address: str, path: str) -> str:
    """Where a call to the sidecar of a pod goes; `address` is the pod's IP address, of either family."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{SIDECAR_PORT}{path}"


TURN_ID = r"^[0-9a-f]{32}$"
TurnId = Annotated[str, Field(pattern=TURN_ID)]

CUT_HEADER = "X-Tenure-Cut-Turns"
"""Request header of a model call: how many of the oldest turns the runtime has left out of it."""


class Wire(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


# --- configuration: operator → sidecar ---------------------------------------------------------------------------


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


class SessionConfig(Wire):
    """All that a sidecar needs to know of its agent. Mounted at start, pushed by the operator on every change."""

    agent: str
    agent_uid: str
    agent_generation: int
    instructions: str = ""
    model: ModelRoute
    policy: EffectivePolicy | None = None

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, hexadecimal; equal configurations have equal digests."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


# --- report: sidecar → operator ----------------------------------------------------------------------------------


class JournalState(StrEnum):
    """Whether the journal can be used."""

    OPEN = "Open"
    LOCKED = "Locked"
    """Another process has it open: the previous pod has not ended yet."""
    KEY_MISMATCH = "KeyMismatch"
    UNREADABLE = "Unreadable"


class ModelHealth(Wire):
    """Outcome of the last contact with the model endpoint. `reason` is a `conditions.Reason`; never a secret."""

    reason: str = "NotYetCalled"
    message: str = ""


class Report(Wire):
    """What the operator learns from a sidecar."""

    session: str
    """UID of the AgentSession."""
    journal: JournalState
    journal_message: str = ""
    sequence: int = 0
    turns: int = 0
    active_turn: TurnId | None = None
    last_activity: datetime | None = None
    config_digest: str | None = None
    agent_generation: int | None = None
    policy: EffectivePolicy | None = None
    model: ModelHealth = ModelHealth()


# --- turns: gateway → sidecar ------------------------------------------------------------------------------------


class Role(StrEnum):
    """Who said it."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"


class Message(Wire):
    """One message of text."""

    role: Role
    text: str


class TurnRequest(Wire):
    """One user input, to be answered. Sent again with the same `turn`, it is not run again: see `POST /v1/turns`.

    A second request with the same `turn` and the same content joins the running turn or gets its recorded outcome; with
    other content it is refused with 409. `previous_turn`, if given, must be the last turn of the session, else 409
    `previous_turn_not_last`. While another turn runs, a bounded number of requests wait, then 409 `session_busy`.
    """

    turn: TurnId
    input: list[Message] = Field(min_length=1, max_length=1024)
    instructions: str | None = None
    previous_turn: TurnId | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None


class Usage(Wire):
    """Tokens used by a turn, as the model endpoints reported them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Item(Wire):
    """One message of the transcript. `id` is `msg_<turn>_<n>`, stable for its lifetime; n counts from 0, input first.

    So a streamed answer is known by its id before it is recorded.
    """

    id: str
    turn: TurnId
    role: Role
    text: str
    created_at: datetime


class Failure(Wire):
    """What went wrong, for a program (`code`) and for a person (`message`)."""

    code: str
    message: str


class TurnStatus(StrEnum):
    """State of a turn."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Turn(Wire):
    """A turn as recorded."""

    turn: TurnId
    status: TurnStatus
    created_at: datetime
    output: list[Item] = []
    usage: Usage = Usage()
    cut_turns: int = 0
    """Oldest turns that did not fit into the model's window and were left out."""
    finish_reason: str | None = None
    """`length` if the model's answer was cut by the token limit, else `stop`."""
    error: Failure | None = None


class TurnEvent(Wire):
    """One line of the stream of a turn.

    `started` comes first, at once when the turn is recorded. `delta` carries text. `restarted` says that the step was
    asked again, so that all deltas before it are void. `ended` comes last, with the turn, after it is on disk.
    """

    type: Literal["started", "delta", "restarted", "ended"]
    text: str = ""
    turn: Turn | None = None


class ItemPage(Wire):
    """A page of the transcript."""

    data: list[Item]
    has_more: bool = False
