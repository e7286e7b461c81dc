"""The inspection endpoints of a stand-in with effects, for an application made with Starlette.

| call                                         |                                                                      |
|----------------------------------------------|----------------------------------------------------------------------|
| `GET /control/effects?tag=TAG`               | `calls`, `effects`, `callsByKey`, `effectsByKey`                      |
| `GET /control/hold?name=NAME`                | calls that have `arrived`, that are `waiting`; whether it is `set`    |
| `POST /control/hold?name=NAME`               | sets a hold                                                          |
| `POST /control/release?name=NAME[&drop=true]`| lets the calls at a hold go, or drops them; later ones pass          |
| `POST /control/reset`                        | forgets all this                                                     |
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .effects import Effects


def routes(effects: Effects) -> list[Route]:
    """The endpoints."""

    async def counted(request: Request) -> Response:
        return JSONResponse(effects.report(request.query_params.get("tag", "")))

    async def held(request: Request) -> Response:
        return JSONResponse(effects.holds.report(request.query_params["name"]))

    async def hold(request: Request) -> Response:
        effects.holds.set(request.query_params["name"])
        return JSONResponse({})

    async def release(request: Request) -> Response:
        effects.holds.release(request.query_params["name"], request.query_params.get("drop") == "true")
        return JSONResponse({})

    async def reset(request: Request) -> Response:
        effects.reset()
        return JSONResponse({})

    return [
        Route("/control/effects", counted),
        Route("/control/hold", held),
        Route("/control/hold", hold, methods=["POST"]),
        Route("/control/release", release, methods=["POST"]),
        Route("/control/reset", reset, methods=["POST"]),
    ]
