"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

An `ApiError` is an answer. Its message says what to do, and holds nothing that the caller may not know. Codes:

| status | code | when |
| --- | --- | --- |
| 400 | `invalid_json`, `invalid_form` | the body cannot be read |
| 400 | `invalid_type`, `invalid_value`, `missing_required_parameter` | it makes no sense |
| 400 | `unknown_parameter` | nobody knows it |
| 400 | `unsupported_parameter` | OpenAI has it, we do not |
| 400 | `previous_response_not_last` | only the last response of a conversation can be continued |
| 400 | `delegation_too_deep` | agents that call one another, more than five deep |
| 401 | `invalid_api_key` | no token, or not one for us |
| 404 | `model_not_found`, `conversation_not_found` | there is none, or not for this caller |
| 404 | `response_not_found`, `previous_response_not_found` | the same |
| 404 | `approval_request_not_found`, `container_not_found`, `file_not_found` | the same |
| 400 | `invalid_bundle` | the bundle is damaged, cut off, changed, unsigned, or signed with a key that is not trusted |
| 400 | `invalid_bundle_key`, `bundle_key_missing`, `bundle_key_refused` | the key is none, is needed, does not fit |
| 400 | `no_such_record` | the session's journal has no record of this number |
| 403 | `permission_denied` | the caller may see the session, but not carry it away, or make none of a bundle |
| 404 | `session_not_found` | there is none, or not for this caller |
| 409 | `session_exists` | there is another session of the name that is to be imported |
| 404 | `unknown_url`; 405 `method_not_allowed` | no such route |
| 408 | `request_timeout` | the body did not come in time |
| 409 | `conversation_locked` | too many turns wait for this conversation |
| 409 | `approval_pending` | the conversation waits for an approval: decide first, or cancel the response |
| 409 | `approval_required` | in Chat Completions: the answer waits for an approval; the message says how to give it |
| 409 | `session_hibernated` | the session is kept asleep, and the caller may not wake it; the message says who may |
| 409 | `already_decided` | an approval was given or refused before |
| 409 | `idempotency_key_reused` | the Idempotency-Key belongs to another request |
| 409 | `turn_cancelled` | in Chat Completions: the answer was cancelled |
| 413 | `request_too_large`, `file_too_large`, `bundle_too_large` | it is longer than the limit |
| 400, 429, 502 | the turn's own code | the turn failed: the model refuses it, has no room now, or did not answer |
| 503 | `session_stalled` | the session cannot go on before somebody mends it |
| 503 | `session_refused` | the API server refuses to make or to wake a session: a quota, for instance |
| 503 | `session_not_ready`, `service_unavailable` | not now; Retry-After says when to try again |
| 504 | `turn_timeout` | the turn takes longer than a request may; it goes on without it |
| 507 | `volume_full` | the session's volume has no room for the file |
| in a stream | `turn_interrupted` | in Chat Completions: text that was sent became void; the turn completes by itself |

OpenAI's clients repeat a request by themselves after 408, 409, 429 and 5xx. Where a repetition would say the same thing
a second time in the conversation, or cannot help, the header `x-should-retry: false` forbids it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenure_api.wire import Failure, Turn
from tenure_gateway.faults import (
    ClusterRefused,
    ClusterUnavailable,
    Fault,
    KeyReused,
    NotReady,
    SessionAsleep,
    SessionGone,
    SessionStalled,
    TurnInterrupted,
    TurnRefused,
    TurnTimeout,
)

NO_RETRY = {"x-should-retry": "false"}

Json = dict[str, Any]


@dataclass(eq=False)
class ApiError(Exception):
    """An answer other than success. `param` is the path of the request's field that is to blame."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """OpenAI's class of the error."""
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> Json:
        """The body of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    """400: the request says something that makes no sense."""
    return ApiError(400, code, message, param)


def unsupported(param: str, advice: str) -> ApiError:
    """400: the request asks for something that this server does not have. `advice` says what to do instead."""
    return ApiError(400, "unsupported_parameter", f"'{param}' is not supported here. {advice}", param)


def unauthorized() -> ApiError:
    """401: no valid token."""
    message = "Send a token of a Kubernetes identity, issued for this gateway's audience, as `Authorization: Bearer …`."
    return ApiError(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def model_not_found(model: str) -> ApiError:
    """404: no such agent, or not for this caller."""
    message = f"The model '{model}' does not exist or you do not have access to it. GET /v1/models lists yours."
    return ApiError(404, "model_not_found", message, "model")


def not_found(what: str, identifier: str, param: str | None = None) -> ApiError:
    """404: no such conversation or response, or not for this caller. `what` is the kind, in words."""
    code = f"{what.lower().replace(' ', '_')}_not_found"
    return ApiError(404, code, f"{what} with id '{identifier}' not found.", param)


def unavailable(message: str, retry_after: int, code: str = "service_unavailable") -> ApiError:
    """503: not now. `retry_after` is in seconds."""
    return ApiError(503, code, message, headers={"retry-after": str(retry_after)})


_GOES_ON = "The turn, if it was recorded, completes by itself and is then among the conversation's items."


_STATUS = {"model_rate_limited": 429, "model_refused": 400, "context_length_exceeded": 400}
"""Statuses of failed turns by the sidecar's code, where it is not 502."""
_TRANSIENT = frozenset({"model_rate_limited", "model_unreachable", "model_error", "runtime_unreachable"})
"""Codes of failed turns after which another turn may succeed."""


def turn_failed(turn: Turn) -> ApiError:
    """The turn ended without an answer, and is recorded so: it is no part of the conversation."""
    failure = turn.error or Failure(code="turn_failed", message="The turn failed.")
    headers = {} if failure.code in _TRANSIENT else NO_RETRY
    return ApiError(_STATUS.get(failure.code, 502), failure.code, failure.message, headers=headers)


def from_fault(fault: Fault) -> ApiError:
    """The answer to what went wrong below."""
    match fault:
        case ClusterUnavailable():
            return unavailable("The cluster's API server cannot be asked now. Try again in a few seconds.", 2)
        case ClusterRefused():
            return ApiError(503, "session_refused", str(fault), headers=NO_RETRY)
        case KeyReused():
            return key_reused()
        case SessionGone():
            return ApiError(404, "conversation_not_found", "The conversation has been deleted.")
        case SessionStalled():
            headers = {"retry-after": "10", **NO_RETRY}
            return ApiError(503, "session_stalled", f"The session cannot go on: {fault}", headers=headers)
        case SessionAsleep():
            return _asleep(str(fault))
        case NotReady():
            return _not_ready(fault)
        case TurnRefused():
            return _refused(fault)
        case TurnInterrupted():
            message = (
                "A model call was interrupted and is made again: the text so far is void, which chunks cannot say. "
                "The turn completes by itself: read it from the conversation's items."
            )
            return ApiError(503, "turn_interrupted", message, headers=NO_RETRY)
        case TurnTimeout():
            return ApiError(
                504, "turn_timeout", f"The turn takes too long for one request. {_GOES_ON}", headers=NO_RETRY
            )
    raise fault


def _asleep(session: str) -> ApiError:
    namespace, _, name = session.partition("/")
    message = (
        f"The session {session} sleeps, and is to: its spec.operatingMode is Hibernated. Whoever RBAC lets 'wake' the "
        f"AgentSession wakes it with a request like this one or 'kubectl tenure wake {name} -n {namespace}'; whoever "
        "may edit it can set spec.operatingMode to Running, which wakes it for all."
    )
    return ApiError(409, "session_hibernated", message, headers=NO_RETRY)


def _not_ready(fault: NotReady) -> ApiError:
    error = unavailable(f"The session is not ready: {fault.message}", 10, "session_not_ready")
    if fault.recorded:
        error.message += f" {_GOES_ON}"
        error.headers = {**error.headers, **NO_RETRY}
    return error


_PENDING = (
    "The conversation waits for the approval of a call. Decide on it with an 'mcp_approval_response' as the input of "
    "POST /v1/responses, or cancel the response."
)


def key_reused() -> ApiError:
    """409: an Idempotency-Key that was used for something else."""
    message = "This Idempotency-Key belongs to another request: send a new one."
    return ApiError(409, "idempotency_key_reused", message, headers=NO_RETRY)


def _refused(fault: TurnRefused) -> ApiError:
    match fault.code:
        case "previous_turn_not_last":
            message = "Only the last response of a conversation can be continued: branching is not available."
            return ApiError(400, "previous_response_not_last", message, "previous_response_id")
        case "session_busy":
            message = "Too many turns wait for this conversation: it takes one at a time. Try again later."
            return ApiError(409, "conversation_locked", message, "conversation", {"retry-after": "2"})
        case "turn_conflict":
            return key_reused()
        case "approval_pending":
            return ApiError(409, "approval_pending", _PENDING, "input", NO_RETRY)
        case "already_decided":
            return ApiError(409, "already_decided", fault.message, "input", NO_RETRY)
        case "volume_full":
            return ApiError(507, "volume_full", fault.message, headers=NO_RETRY)
    return ApiError(fault.status if fault.status < 500 else 502, fault.code, fault.message)
