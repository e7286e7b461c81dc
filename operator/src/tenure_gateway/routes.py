"""The application: all routes, with everything that they raise turned into answers."""

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tenure_gateway.faults import ClusterRefused, ClusterUnavailable, Fault
from tenure_gateway.front import error_response
from tenure_gateway.openai.errors import ApiError, from_fault

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


async def _answer_error(request: Request, error: Exception) -> Response:
    match error:
        case ApiError():
            return error_response(error)
        case Fault():
            if isinstance(error, ClusterUnavailable | ClusterRefused):
                log.warning("%s %s: %s", request.method, request.scope["route"].path, error)
            return error_response(from_fault(error))
        case HTTPException(status_code=405):
            message = f"{request.method} is not for {request.url.path}."
            return error_response(ApiError(405, "method_not_allowed", message, headers=error.headers or {}))
    message = f"There is no {request.url.path} here. The API begins at /v1/models."
    return error_response(ApiError(404, "unknown_url", message))


async def _answer_bug(_: Request, __: Exception) -> Response:
    message = "This is a bug of the gateway. Its log knows more by the x-request-id of this answer."
    return error_response(ApiError(500, "server_error", message))


def application(routes: list[Route]) -> Starlette:
    """The application."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _answer_error,
            Fault: _answer_error,
            HTTPException: _answer_error,
            Exception: _answer_bug,
        },
    )
    # A path with a slash too many is unknown: a redirected POST loses its body with some clients.
    app.router.redirect_slashes = False
    return app


def templates(routes: list[Route]) -> dict[Endpoint, str]:
    """The path of each endpoint, for the metrics."""
    return {route.endpoint: route.path for route in reversed(routes)}
