"""What can go wrong, in the shape in which the OpenAI API says it.

FaultError            has a status and an error object
├─ BadRequestError      the request itself cannot be served
├─ ModelError           the model call failed, or ended before its answer was complete
└─ ToolCallError        the sidecar did not take a tool call; that a tool failed is no such error
"""

import re
from typing import Any

from openai import APIError, APIStatusError

_TOO_LONG = re.compile(r"context[ _-]?(length|size|window)|prompt is too long", re.IGNORECASE)
"""How endpoints say it: OpenAI `context_length_exceeded`, llama.cpp `exceed_context_size_error`, vLLM and others
"maximum context length", Anthropic "prompt is too long"."""


class FaultError(Exception):
    """An answer that is an error. `error` is an OpenAI error object."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.error = error

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": self.error}


class BadRequestError(FaultError):
    """The request cannot be served; `message` says what to change."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(status, _error(message, "invalid_request_error", code, param))


class ModelError(FaultError):
    """The model call failed."""

    @property
    def too_long(self) -> bool:
        """Whether the endpoint refused the call because the conversation does not fit its window."""
        said = (self.error.get(key) for key in ("code", "type", "message"))
        return self.status == 400 and any(isinstance(text, str) and _TOO_LONG.search(text) for text in said)

    @classmethod
    def refused(cls, error: APIStatusError) -> "ModelError":
        """An error status of the endpoint, passed on with the status and the error object that it came with."""
        body = error.body
        if isinstance(body, dict):
            return cls(error.status_code, body)
        return cls(error.status_code, _error(f"the model endpoint answered {error.status_code}", "server_error"))

    @classmethod
    def reported(cls, error: object) -> "ModelError":
        """An error that came inside a stream, where there is no status: it follows from the code."""
        said = error if isinstance(error, dict) else {}
        code = said.get("code")
        message = said.get("message") or "the model endpoint reported an error without a message"
        fault = cls(502, _error(str(message), "server_error", code if isinstance(code, str) else None))
        if code == "rate_limit_exceeded":
            fault.status = 429
        elif _TOO_LONG.search(f"{code} {message}"):
            fault.status = 400
        return fault

    @classmethod
    def broken(cls, what: str, error: APIError | Exception | None = None) -> "ModelError":
        """No usable answer. `what` says so in a sentence; of `error` only the type is told."""
        told = f" ({type(error).__name__})" if error is not None else ""
        return cls(502, _error(what + told, "server_error", "model_call_failed"))


class ToolCallError(FaultError):
    """A tool call was refused by the sidecar, or it could not be asked."""

    @classmethod
    def refused(cls, error: APIStatusError) -> "ToolCallError":
        """An error status of the sidecar, passed on with its code and message."""
        said = error.body if isinstance(error.body, dict) else {}
        code, message = said.get("code"), said.get("message")
        if not isinstance(message, str):
            message = f"the sidecar answered {error.status_code} to a tool call"
        return cls(error.status_code, _error(message, "tenure_error", code if isinstance(code, str) else None))

    @classmethod
    def broken(cls, what: str, error: Exception) -> "ToolCallError":
        """No usable answer. `what` says so in a sentence; of `error` only the type is told."""
        return cls(502, _error(f"{what} ({type(error).__name__})", "server_error", "tool_call_failed"))


def _error(message: str, type_: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"message": message, "type": type_, "param": param, "code": code}
