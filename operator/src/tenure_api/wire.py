"""Messages between operator, gateway, sidecar and runtime. All JSON, camelCase, unknown fields ignored.

Sidecar, port `SIDECAR_PORT`, bearer token (see `tokens`) except for the two probes:

| call                              | who      | what |
|---|---|---|
| `POST /v1/turns`                  | gateway  | `TurnRequest` → NDJSON stream of `TurnEvent`; idempotent by `turn` |
| `GET /v1/turns/{turn}`            | gateway  | `Turn`, or 404 |
| `GET /v1/turns/{turn}/events`     | gateway  | the stream of `TurnEvent` of a turn that was taken before, or 404 |
| `POST /v1/turns/{turn}/approvals` | gateway  | `Decisions` → `Turn`; the same decision again changes nothing |
| `POST /v1/turns/{turn}/cancel`    | gateway  | `Turn` at its end; a turn that has ended stays as it is |
| `GET /v1/items`                   | gateway  | `ItemPage`; query `limit` 1 to 100, `order`, `after` (item id) |
| `GET /v1/files`                   | gateway  | `FileList`: the regular files of the workspace |
| `GET PUT DELETE /v1/files/{path}` | gateway  | a file's bytes; PUT answers with its `File`; the path is URL-encoded |
| `GET /v1/report`                  | operator | `Report` |
| `PUT /v1/config`                  | operator | `SessionConfig` → `Report` |
| `PUT /v1/binding`                 | operator | `Binding` → `Report`; another session's: 409 `already_bound` |
| `POST /v1/drain`                  | operator | `Drain` → `Report`; 409 `busy` unless it has been idle for so long |
| `GET /v1/bundle`                  | both     | the session as a bundle, up to record `at`; see `docs/bundle.md` |
| `PUT /v1/bundle`                  | both     | a bundle → `Report`; only into a session that waits for one |
| `GET /v1/sessions`                | operator | `Reports`: those of all sessions that the host keeps |
| `PUT /v1/sessions/{uid}`          | operator | `Binding` → `Report` of the session, which the host keeps from now on |
| `DELETE /v1/sessions/{uid}`       | operator | its key is destroyed and all else removed; also if it is not there |
| `GET /drained`                    | kubelet  | 200 as soon as no turn runs: the hook before the agent is stopped |
| `GET /healthz` `/readyz`          | kubelet  | 200, or 503 with a sentence |

`GET /metrics` is on `METRICS_PORT`. On the pod's loopback, port `MODEL_PROXY_PORT`, with the pod's token:

| call                              | who      | what |
|---|---|---|
| `POST /v1/chat/completions`, …    | runtime  | the model, in the API that it speaks |
| `POST /v1/tools/call`             | runtime  | `ToolCall` → `ToolAnswer`, as soon as the call is settled |

A sidecar can be the host of many sessions. Then the audience of a token says which of them a call is for; the calls
of `/v1/sessions` are for the host itself, as are `GET /v1/report`, `PUT /v1/config` and `POST /v1/drain` with a token
for its own identity.

The agent container serves OpenAI Chat Completions on `RUNTIME_PORT`. The sidecar sends it the functions that the model
may call in `tools`. Errors are `Failure` with a fitting HTTP status.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tenure_api.messages import Wire

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
RUN_HEADER = "X-Tenure-Run"
"""Request header by which a sidecar with several sessions names a run of the agent; nobody can guess its value. The
runtime sends it back with every model and tool call of that run, so that the sidecar knows whose call it is."""


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


class InputFile(Wire):
    """A file that comes with the input: it is put into the workspace before the turn begins."""

    path: str
    """Where to, relative to the workspace."""
    size: int
    sha256: str
    data: str = ""
    """Base64. Not kept in the journal, and no part of what makes two requests equal: `sha256` is."""


class TurnOptions(Wire):
    """How a turn is to be answered. The sidecar keeps and returns `metadata` and `background`, and ignores them."""

    instructions: str | None = None
    previous_turn: TurnId | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    parallel_tool_calls: bool | None = None
    background: bool = False
    metadata: dict[str, str] = Field(default_factory=dict)


class TurnRequest(TurnOptions):
    """One user input, to be answered. Sent again with the same `turn`, it is not run again: see `POST /v1/turns`.

    A second request with the same `turn` and the same content joins the running turn or gets its recorded outcome; with
    other content it is refused with 409. `previous_turn`, if given, must be the last turn of the session, else 409
    `previous_turn_not_last`. While another turn runs, a bounded number of requests wait, then 409 `session_busy`; while
    one waits for an approval, 409 `approval_pending`. On a full volume 507 `volume_full`; after `POST /v1/drain` 503
    `draining`, as for decisions, bindings and changes of files.
    """

    turn: TurnId
    input: list[Message] = Field(min_length=1, max_length=1024)
    files: list[InputFile] = Field(default_factory=list, max_length=16)


class Usage(Wire):
    """Tokens used by a turn, as the model endpoints reported them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Failure(Wire):
    """What went wrong, for a program (`code`) and for a person (`message`)."""

    code: str
    message: str


class CallOutcome(StrEnum):
    """What came of a call of a tool."""

    COMPLETED = "completed"
    FAILED = "failed"
    """The tool answered with an error, or is down."""
    UNKNOWN = "unknown"
    """Nobody knows whether it took effect."""
    REFUSED = "refused"
    """A person did not approve it."""


class Call(Wire):
    """A call of a tool that is settled."""

    tool: str
    """Name of the tool in the agent's spec."""
    function: str
    arguments: str
    """JSON, as the model wrote it."""
    output: str
    """What the model was told."""
    outcome: CallOutcome
    approval: str | None = None
    """Id of the approval that it needed."""


class Approval(Wire):
    """A call that a person must decide on. `id` is `mcpr_<turn>_<step>`."""

    id: str
    tool: str
    function: str
    arguments: str = ""


class Decision(Wire):
    """A person's answer to an `Approval`; who decided is in the caller's token."""

    approval: str
    approve: bool
    reason: str = ""


class Decisions(Wire):
    """One or more of them. Another one than was taken before is refused with 409 `already_decided`."""

    decisions: list[Decision] = Field(min_length=1, max_length=64)


class ItemType(StrEnum):
    """What an item is."""

    MESSAGE = "message"
    CALL = "call"
    APPROVAL = "approval"


class Item(Wire):
    """One entry of the transcript: a message, a call or a request for approval.

    `id` is `msg_<turn>_<n>`, `mcp_<turn>_<step>` or `mcpr_<turn>_<step>`, stable for its lifetime. The n of messages
    counts the items of the turn from 0, input first. A message whose first attempt was interrupted, see `TurnEvent`,
    has an id of its own for each: `msg_<turn>_<n>_<attempt>`. So a streamed item is known by its id before it is
    recorded.
    """

    id: str
    turn: TurnId
    role: Role
    created_at: datetime
    type: ItemType = ItemType.MESSAGE
    text: str = ""
    call: Call | None = None
    approval: Approval | None = None


class TurnStatus(StrEnum):
    """State of a turn."""

    IN_PROGRESS = "in_progress"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Turn(Wire):
    """A turn as recorded. While it has not ended, `output` has what is settled so far."""

    turn: TurnId
    status: TurnStatus
    created_at: datetime
    options: TurnOptions = TurnOptions()
    inputs: int = 0
    """How many messages of input it has: the n of the first item of its output, see `Item`."""
    output: list[Item] = Field(default_factory=list)
    usage: Usage = Usage()
    cut_turns: int = 0
    """Oldest turns that did not fit into the model's window and were left out."""
    finish_reason: str | None = None
    """`length` if the model's answer was cut by the token limit, else `stop`."""
    error: Failure | None = None
    resumptions: int = 0
    """How often the turn went on after it had waited for approvals."""


class TurnEvent(Wire):
    """One line of the stream of a turn.

    `started` comes first, at once when the turn is recorded. `delta` carries text. `item` carries a settled call or a
    request for approval; text that follows it belongs to another message. `attempt` says that a model call was
    interrupted and is made again: the text after `offset`, in characters of all text of the turn, is void. `suspended`,
    with the turn, says that it waits for approvals; the stream ends there unless it went on, which `resumed` says.
    `ended` comes last, with the turn, after it is on disk.

    What all listeners get of a turn is the same, whenever they come and after however many restarts, except for where
    text is cut into deltas and for text that became void.
    """

    type: Literal["started", "delta", "item", "attempt", "suspended", "resumed", "ended"]
    text: str = ""
    turn: Turn | None = None
    item: Item | None = None
    attempt: int = 0
    """Counts the attempts of the turn from 0."""
    offset: int = 0


class ItemPage(Wire):
    """A page of the transcript."""

    data: list[Item]
    has_more: bool = False


# --- tools: runtime → sidecar ------------------------------------------------------------------------------------


class ToolCall(Wire):
    """A call that the model has asked for."""

    call_id: str = Field(max_length=256)
    """Id that the model gave the call."""
    name: str = Field(max_length=128)
    arguments: str = Field(max_length=1_048_576)
    """JSON of an object, as the model wrote it."""


class ToolAnswer(Wire):
    """What to tell the model."""

    output: str
    is_error: bool = False


# --- the workspace -----------------------------------------------------------------------------------------------


class File(Wire):
    """A regular file of the workspace."""

    path: str
    """Relative to the workspace."""
    size: int
    modified_at: datetime


class FileList(Wire):
    """The files of the workspace, by path."""

    data: list[File]
    has_more: bool = False
    """There are more than are listed."""
