"""The API, as an ASGI application."""

import asyncio
import hashlib
import hmac
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..control.effects import Effects
from ..control.holds import DroppedError
from ..control.inspection import routes
from .document import DOCUMENT

Json = dict[str, Any]


class Shop:
    """The API's state: its orders, and who asked for them under which key."""

    def __init__(self, secret: str) -> None:
        """`secret` is what `/private` wants in the header X-Api-Key."""
        self.effects = Effects()
        self._secret = secret
        self._orders: dict[str, Json] = {}
        self._bodies: dict[str, Json] = {}
        """By idempotency key: what the first request with it said."""

    async def get_order(self, request: Request) -> Response:
        await self.effects.take(request.query_params.get("tag", ""), _key(request))
        order = self._orders.get(request.path_params["id"])
        return JSONResponse(order) if order else JSONResponse({"error": "There is no such order."}, 404)

    async def create_order(self, request: Request) -> Response:
        """The id follows from the order, so that answers can be compared between runs."""
        body, key = await _body(request), _key(request)
        if not isinstance(body.get("item"), str):
            return JSONResponse({"error": "item is needed."}, 422)
        if key and self._bodies.setdefault(key, body) != body:
            return JSONResponse({"error": "The key was used for another order."}, 422)
        await self.effects.take(str(body.get("tag", "")), key, once=True)
        ordered = {"item": body["item"], "quantity": body.get("quantity", 1)}
        order = {"id": hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:8], **ordered}
        self._orders[order["id"]] = order
        return JSONResponse(order, 201)

    async def create_payment(self, request: Request) -> Response:
        body = await _body(request)
        await self.effects.take(str(body.get("tag", "")), _key(request))
        return JSONResponse({"paid": body.get("amount"), "order": body.get("order")}, 201)

    async def get_private(self, request: Request) -> Response:
        await self.effects.take(request.query_params.get("tag", ""))
        if not hmac.compare_digest(request.headers.get("x-api-key", "").encode(), self._secret.encode()):
            return JSONResponse({"error": "The header X-Api-Key is missing or wrong."}, 401)
        return JSONResponse({"authorized": True})

    async def get_slow(self, request: Request) -> Response:
        await asyncio.sleep(float(request.query_params.get("seconds", "1")))
        await self.effects.take(request.query_params.get("tag", ""), _key(request))
        return JSONResponse({"slow": True})

    async def post_failing(self, request: Request) -> Response:
        body = await _body(request)
        await self.effects.take(str(body.get("tag", "")), _key(request))
        return JSONResponse({"error": "It failed."}, int(request.path_params["status"]))


def application(secret: str) -> Starlette:
    """The API with its inspection endpoints."""
    shop = Shop(secret)
    app = Starlette(
        routes=[
            Route("/openapi.json", _document),
            Route("/orders/{id}", shop.get_order),
            Route("/orders", shop.create_order, methods=["POST"]),
            Route("/payments", shop.create_payment, methods=["POST"]),
            Route("/private", shop.get_private),
            Route("/slow", shop.get_slow),
            Route("/failing/{status:int}", shop.post_failing, methods=["POST"]),
            Route("/large", _large),
            *routes(shop.effects),
        ],
        exception_handlers={DroppedError: _dropped},
    )
    app.state.effects = shop.effects
    return app


async def _document(request: Request) -> Response:
    return JSONResponse(DOCUMENT)


async def _large(request: Request) -> Response:
    return PlainTextResponse("x" * int(request.query_params.get("bytes", "0")))


async def _dropped(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "A test has dropped this call."}, 503)


async def _body(request: Request) -> Json:
    try:
        body = await request.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _key(request: Request) -> str | None:
    return request.headers.get("idempotency-key")
