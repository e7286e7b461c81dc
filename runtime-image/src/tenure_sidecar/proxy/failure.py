"""Why a model did not answer, in terms of what is done about it."""

import json

from tenure_api.conditions import Reason
from tenure_sidecar.errors import SidecarError

_MESSAGE_LIMIT = 2_000

REQUEST_AT_FAULT = frozenset({400, 413, 415, 422})
"""Statuses that blame the request. Another endpoint would say the same, and the endpoint itself is well."""


class ModelFailedError(SidecarError):
    """A model endpoint did not answer.

    `reason` and `public` are for the status of the session. The rest is what the agent gets: `message` has the
    endpoint's own words, which may quote the conversation, so they must not leave the journal.
    """

    def __init__(self, reason: Reason, status: int, code: str, message: str, kind: str = "", public: str = "") -> None:
        super().__init__(message)
        self.public = public or message
        self.reason = reason
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind or "upstream_error"

    @property
    def final(self) -> bool:
        """Whether it makes no sense to ask another endpoint."""
        return self.status in REQUEST_AT_FAULT

    def body(self) -> str:
        """The JSON that the agent gets, in OpenAI's form."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return json.dumps({"error": error})


def unreachable(message: str, status: int = 502) -> ModelFailedError:
    """The endpoint could not be reached, or not in time."""
    return ModelFailedError(Reason.UNREACHABLE, status, "model_unreachable", message)


def invalid(message: str) -> ModelFailedError:
    """The endpoint sends something that is not what the API says."""
    return ModelFailedError(Reason.INVALID_RESPONSE, 502, "model_invalid_response", message)


def credential_missing(message: str) -> ModelFailedError:
    """There is no credential for the endpoint."""
    return ModelFailedError(Reason.CREDENTIAL_MISSING, 502, "model_credential_missing", message)


def refused(status: int, body: bytes, endpoint: str, credential: str | None) -> ModelFailedError:
    """The endpoint answered with an error.

    Its own words are kept, without the credential if it repeats it. That it refuses our credential is not the agent's
    401, so that one becomes a 502.
    """
    error = _error_in(body)
    said = redact(str(error.get("message") or body[:_MESSAGE_LIMIT].decode(errors="replace")), credential)
    message = f"{endpoint} answered {status}: {said.strip()[:_MESSAGE_LIMIT] or 'nothing'}"
    kind = redact(str(error.get("type") or ""), credential)
    public = f"{endpoint} answered {status}"
    if status in REQUEST_AT_FAULT:
        code = redact(str(error.get("code") or "model_refused"), credential)
        return ModelFailedError(Reason.ANSWERING, status, code, message, kind, f"{public} to the last call")
    if status in (401, 403):
        return ModelFailedError(Reason.UNAUTHORIZED, 502, "model_unauthorized", message, kind, public)
    if status == 429:
        return ModelFailedError(Reason.MODEL_ERROR, 429, "model_rate_limited", message, kind, public)
    if status < 400:
        return invalid(f"{public} where an answer of the model was expected")
    return ModelFailedError(Reason.MODEL_ERROR, 502, "model_error", message, kind, public)


def redact(text: str, credential: str | None) -> str:
    """The text without the credential."""
    return text.replace(credential, "[redacted]") if credential else text


def _error_in(body: bytes) -> dict[str, object]:
    """The error object of an answer in OpenAI's form or near to it."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(answer, dict):
        return {}
    error = answer.get("error", answer)
    return error if isinstance(error, dict) else {"message": error}
