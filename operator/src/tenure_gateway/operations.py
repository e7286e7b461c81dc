"""`/healthz`, `/readyz` and `/metrics`, on a port of their own that no client needs to reach."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tenure_gateway.metrics import Metrics


def application(metrics: Metrics, unready: Callable[[], str | None]) -> Starlette:
    """The application. `unready` says why no requests should come here, or None if they should."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        reason = unready()
        return PlainTextResponse("ok" if reason is None else reason, 200 if reason is None else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics)],
    )
