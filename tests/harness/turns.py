"""Turns as a client of the Responses API sees them."""

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import openai
from openai.types.responses import Response

from harness.kube import NotYetError, eventually

RUNNING = ("queued", "in_progress")
T = TypeVar("T")


def waited_out(ask: Callable[[], T]) -> T:
    """What the API answers. An error of it is a `NotYetError`: what it comes from is about to mend."""
    try:
        return ask()
    except openai.APIError as failure:
        raise NotYetError(str(failure)) from failure


def insisted(client: openai.OpenAI, seconds: float, **request: Any) -> Response:
    """The answer to a request that is repeated, with one Idempotency-Key, until there is one: the turn is one."""
    request["extra_headers"] = {"Idempotency-Key": secrets.token_hex(16)}

    def ask() -> Response:
        answer: Response = client.responses.create(**request)
        return answer

    return eventually(lambda: waited_out(ask), seconds, 0.5)


def ended(client: openai.OpenAI, response: str, seconds: float = 90) -> Response:
    """The response as soon as it does not run: it is at its end, or waits for an approval.

    While its pod is away, asking for it may fail; that is waited out.
    """

    def look() -> Response:
        try:
            found = client.responses.retrieve(response, timeout=30)
        except (openai.APIConnectionError, openai.InternalServerError) as failure:
            raise NotYetError(str(failure)) from failure
        if found.status in RUNNING:
            raise NotYetError(f"{response} is {found.status}")
        return found

    return eventually(look, seconds, 0.3)


def items(response: Response, kind: str) -> list[Any]:
    """The items of a response of one type."""
    return [item for item in response.output if item.type == kind]


def is_pending(response: Response) -> bool:
    """Whether a response waits for an approval."""
    return response.incomplete_details is not None and str(response.incomplete_details.reason) == "approval_required"


def decide(client: openai.OpenAI, model: str, response: Response, approve: bool = True, **options: Any) -> Response:
    """Approves or refuses all that a response waits for."""
    requests = [item.id for item in items(response, "mcp_approval_request")]
    answers = [{"type": "mcp_approval_response", "approval_request_id": one, "approve": approve} for one in requests]
    decided: Response = client.responses.create(
        model=model,
        previous_response_id=response.id,
        input=answers,  # type: ignore[arg-type]
        **options,
    )
    return decided
