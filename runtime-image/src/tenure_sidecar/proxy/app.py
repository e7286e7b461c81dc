"""The proxy's HTTP side: what the agent container sees at `OPENAI_BASE_URL`.

Every call belongs to a run of the agent for a turn and is one step of that. Its intent is in the journal before the
model is asked, its result before the agent sees the end of the answer.
"""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenure_api.configuration import SessionConfig
from tenure_api.wire import CUT_HEADER, RUN_HEADER, ToolCall, Usage
from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.codec import decode, encode
from tenure_sidecar.errors import JournalError, RefusedError
from tenure_sidecar.journal.records import ModelIntent, ModelResult
from tenure_sidecar.metrics import Metrics
from tenure_sidecar.proxy.chat import ChatCompletions
from tenure_sidecar.proxy.dialect import Dialect, Json, Progress
from tenure_sidecar.proxy.failure import ModelFailedError, invalid
from tenure_sidecar.proxy.responses import Responses
from tenure_sidecar.proxy.upstream import Answer, Upstream
from tenure_sidecar.sse import Event
from tenure_sidecar.turn.steps import ModelStep, Steps
from tenure_sidecar.turn.workflow import Underway

REQUEST_LIMIT = 32 * 1024 * 1024
"""Most bytes of a request: several times what the largest context window holds."""
_HOW_NOT_WHAT = ("stream", "stream_options", "tools")
"""Fields that say how an answer is sent or what may be called, not what is asked: a tool that changes between two runs
does not make a recorded answer void."""

log = logging.getLogger(__name__)

_TOOLS = "/v1/tools/call"
_RUN = RUN_HEADER.lower().encode()
_DIALECTS: dict[str, tuple[str, Dialect]] = {
    "/v1/chat/completions": ("ChatCompletions", ChatCompletions()),
    "/v1/responses": ("Responses", Responses()),
}


def digest_of(request: Json) -> str:
    """What is asked, whatever the order of its fields."""
    asked = {key: value for key, value in request.items() if key not in _HOW_NOT_WHAT}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Call:
    """One model call of the agent, and the step that it is."""

    def __init__(self, underway: Underway, dialect: Dialect, request: Json, cut_turns: int) -> None:
        self.steps = underway.steps
        self.dialect = dialect
        self.request = request
        self._pen = underway.pen
        self._cut_turns = cut_turns
        self._digest = digest_of(request)
        self._step: ModelStep | None = None

    @property
    def streamed(self) -> bool:
        """Whether the agent wants a stream."""
        return bool(self.request.get("stream"))

    async def recorded(self) -> ModelResult | None:
        """The result, if the journal has it. Raises `RefusedError`."""
        self._step = await self.steps.model(self._digest)
        return self._step.result

    async def intend(self) -> None:
        """Record that the model is about to be called. Raises `JournalError`."""
        await self._write(ModelIntent(digest=self._digest, cut_turns=self._cut_turns))

    async def settle(self, status: int, body: str, usage: Usage) -> None:
        """Record the result. Raises `JournalError`."""
        result = ModelResult(
            digest=self._digest,
            oldest=self.steps.oldest,
            cut_turns=self._cut_turns,
            status=status,
            body=body,
            usage=usage,
        )
        await self.steps.wholly(self._settled(result))

    async def _settled(self, result: ModelResult) -> None:
        await self._write(result)
        assert self._step is not None  # noqa: S101 - its intent is recorded
        self.steps.settled(self._step, result)

    async def _write(self, entry: ModelIntent | ModelResult) -> None:
        assert self._step is not None  # noqa: S101 - `recorded` was asked first
        await self._pen.hold(self.steps.turn, self._step.number, entry)


class ModelProxy:
    """The ASGI application."""

    def __init__(
        self,
        pod_token: Callable[[], str | None],
        config: Callable[[], SessionConfig | None],
        underway: Callable[[str], Underway | None],
        upstream: Upstream,
        metrics: Metrics,
    ) -> None:
        """`underway` is the turn whose agent is running; it is given the run that the call names, see `RUN_HEADER`."""
        self._pod_token = pod_token
        self._config = config
        self._underway = underway
        self._upstream = upstream
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        noted = asgi.Noted(send)
        try:
            await self._answer(scope, receive, noted)
        except RefusedError as error:
            await asgi.respond(send, error.status, _error(error.code, str(error)))
        except JournalError as error:
            body = _error("journal_unavailable", str(error))
            if noted.begun:
                await asgi.end(send, Event(b"", body).encoded())
            else:
                await asgi.respond(send, 503, body)
        except asgi.Gone:
            if not noted.begun:
                await asgi.respond(send, 409, _error("run_over", "the run that this call belongs to is over"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._authenticate(scope)
        config = self._config()
        if config is None:
            raise RefusedError(503, "not_configured", "the session has no configuration yet")
        path, method = scope["path"], scope["method"]
        if method == "GET" and path == "/v1/models":
            await asgi.respond(send, 200, _models(config))
            return
        if method != "POST" or (path not in _DIALECTS and path != _TOOLS):
            raise RefusedError(404, "not_found", f"the model proxy has no {method} {path[:200]}")
        if path == _TOOLS:
            await self._call_tool(scope, await asgi.read_body(receive, REQUEST_LIMIT), send)
            return
        api, dialect = _DIALECTS[path]
        if api != config.model.api:
            raise RefusedError(404, "wrong_api", f"the model of this agent speaks {config.model.api}, not {api}")
        request = _parsed(await asgi.read_body(receive, REQUEST_LIMIT))
        call = _Call(self._running(scope), dialect, request, _cut_turns(scope))
        with self._handling(call.steps, model=True):
            recorded = await call.recorded()
            if recorded is not None:
                self._metrics.replayed()
                await _replay(call, recorded, send)
            else:
                await self._ask(call, config, send)

    async def _call_tool(self, scope: Scope, body: bytes, send: Send) -> None:
        wanted = asgi.parsed(ToolCall, body, "invalid_tool_call")
        underway = self._running(scope)
        with self._handling(underway.steps, model=False):
            answer = await underway.calls.answer(wanted)
            await asgi.respond(send, 200, answer.model_dump_json(by_alias=True).encode())

    def _running(self, scope: Scope) -> Underway:
        underway = self._underway(asgi.header(scope, _RUN).decode("latin-1"))
        if underway is None:
            raise RefusedError(409, "no_turn", "no turn is running; model and tools can be called only to answer one")
        return underway

    @contextmanager
    def _handling(self, steps: Steps, model: bool) -> Iterator[None]:
        """While a request is handled that ends with the run of the agent. Raises `Gone` when that has happened."""
        with steps.handling(model):
            try:
                yield
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not steps.abandoned or task is None or not task.uncancel() == 0:
                    raise
                raise asgi.Gone from None

    def _authenticate(self, scope: Scope) -> None:
        """Containers of a pod share its network, so being on the loopback proves nothing."""
        expected = self._pod_token()
        if not expected or not hmac.compare_digest(asgi.bearer(scope).encode(), expected.encode()):
            raise RefusedError(401, "invalid_api_key", "use the OPENAI_API_KEY that the agent container was given")

    async def _ask(self, call: _Call, config: SessionConfig, send: Send) -> None:
        await call.intend()
        try:
            answer = await self._upstream.open(config.model, call.dialect, call.request)
        except ModelFailedError as failure:
            await call.settle(failure.status, failure.body(), Usage())
            await asgi.respond(send, failure.status, failure.body().encode())
            return
        try:
            if answer.whole is None:
                await self._stream(call, answer, send)
            else:
                await self._settle_answer(call, answer.whole)
                await _deliver(call, answer.whole, send)
        finally:
            answer.close()

    async def _settle_answer(self, call: _Call, answer: Json) -> None:
        usage = call.dialect.usage(answer)
        self._metrics.used(usage)
        await call.settle(200, encode(answer).decode(), usage)

    async def _stream(self, call: _Call, answer: Answer, send: Send) -> None:
        """Pass a stream on; hold its end back until the result is on disk."""
        assert answer.assembler is not None  # noqa: S101 - it is a stream
        await asgi.begin(send, 200, asgi.SSE)
        held: list[Event] = []
        broken: ModelFailedError | None = None
        try:
            part: list[tuple[Event, Progress]] | None = answer.opening
            while part is not None and not await _pass_on(part, held, send):
                part = await answer.part()
        except ModelFailedError as failure:
            broken = failure
        whole = answer.assembler.answer()
        if whole is None:
            # Too late for another endpoint: the agent has tokens of this one.
            broken = broken or invalid(f"{answer.target.base_url}: the stream ended before its answer was complete")
            self._upstream.broke(answer, broken)
            await call.settle(broken.status, broken.body(), Usage())
            await asgi.end(send, Event(b"", broken.body().encode()).encoded())
            return
        await self._settle_answer(call, whole)
        await asgi.end(send, b"".join(event.encoded() for event in held if answer.assembler.wanted(event)))


async def _pass_on(events: list[tuple[Event, Progress]], held: list[Event], send: Send) -> bool:
    """Pass events on up to the one that completes the answer, hold the others back. True when nothing follows."""
    passed = []
    ended = False
    for event, progress in events:
        ended = ended or progress is Progress.END
        if held or progress in (Progress.FINAL, Progress.END):
            held.append(event)
        else:
            passed.append(event.encoded())
    if passed:
        await asgi.more(send, b"".join(passed))
    return ended


async def _replay(call: _Call, result: ModelResult, send: Send) -> None:
    if result.status == 200:
        await _deliver(call, decode(result.body.encode()), send)
    else:
        await asgi.respond(send, result.status, result.body.encode())


async def _deliver(call: _Call, answer: Json, send: Send) -> None:
    """Give a whole answer in the form that the agent wants."""
    if not call.streamed:
        await asgi.respond(send, 200, encode(answer))
        return
    await asgi.begin(send, 200, asgi.SSE)
    await asgi.end(send, b"".join(event.encoded() for event in call.dialect.replay(answer, call.request)))


def _parsed(body: bytes) -> Json:
    try:
        request = decode(body)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise RefusedError(400, "invalid_json", "the request is not a JSON object")
    return request


def _cut_turns(scope: Scope) -> int:
    value = asgi.header(scope, CUT_HEADER.lower().encode())
    return int(value) if value.isdigit() and len(value) < 10 else 0


def _models(config: SessionConfig) -> bytes:
    names = dict.fromkeys(target.name for target in config.model.targets)
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "tenure"} for name in names]
    return encode({"object": "list", "data": models})


def _error(code: str, message: str) -> bytes:
    error = {"message": message, "type": "tenure_error", "param": None, "code": code}
    return encode({"error": error})
