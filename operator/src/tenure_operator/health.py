"""`/healthz`, `/readyz` and `/metrics`. That they answer at all shows that the event loop turns."""

from collections.abc import Callable

from aiohttp import web

Check = Callable[[], str | None]
"""None if all is well, else a sentence."""


class Health:
    """What the probes answer. A standby is ready: it is as well as it can be."""

    def __init__(self, metrics: Callable[[], bytes]) -> None:
        self._metrics = metrics
        self.alive: list[Check] = []
        self.ready: list[Check] = []

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._serve_metrics),
            ]
        )
        return app

    async def serve(self, port: int) -> web.AppRunner:
        """Serves on all addresses until the returned runner is cleaned up."""
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self.alive)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self.ready)

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _answer(checks: list[Check]) -> web.Response:
    wrong = [sentence for check in checks if (sentence := check())]
    return web.Response(text="\n".join(wrong) or "ok", status=503 if wrong else 200)
