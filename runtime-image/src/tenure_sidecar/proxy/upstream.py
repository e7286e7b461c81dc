"""One call of one model endpoint, up to its first token; and the endpoints tried in order until one answers."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from tenure_api.configuration import ModelRoute, ModelTarget
from tenure_sidecar.codec import decode, encode
from tenure_sidecar.errors import GarbageError, HttpError
from tenure_sidecar.http_client import Client, Response
from tenure_sidecar.model_health import HealthOfModel
from tenure_sidecar.proxy.credentials import Credentials
from tenure_sidecar.proxy.dialect import Assembler, Dialect, Json, Progress, StreamError
from tenure_sidecar.proxy.failure import ModelFailedError, invalid, refused, unreachable
from tenure_sidecar.sse import Event, Parser

ANSWER_LIMIT = 16 * 1024 * 1024
"""Most bytes of one answer."""
_ERROR_LIMIT = 64 * 1024
IDLE_SECONDS = 300
"""Longest silence within an answer that has begun."""
_CLOSING_SECONDS = 5
"""Longest silence after an answer is complete, before its end."""
ANSWER_SECONDS = 3_600
"""Longest that one answer may take."""

log = logging.getLogger(__name__)


@dataclass
class Answer:
    """An answer that has begun. Either `whole`, or a stream: `opening` has come, the rest comes by `part`."""

    target: ModelTarget
    credential: str | None
    response: Response
    whole: Json | None = None
    assembler: Assembler | None = None
    opening: list[tuple[Event, Progress]] = field(default_factory=list)
    parser: Parser = field(default_factory=Parser)
    size: int = 0
    latest: float = field(default_factory=lambda: time.monotonic() + ANSWER_SECONDS)

    async def part(self) -> list[tuple[Event, Progress]] | None:
        """What comes next of a stream, None at its end. Raises `ModelFailedError`, also when it takes too long.

        Servers end a stream in their own ways; one that says no more after its answer is complete has ended.
        """
        assert self.assembler is not None  # noqa: S101 - only for streams
        endpoint = self.target.base_url
        seconds = IDLE_SECONDS if self.assembler.answer() is None else _CLOSING_SECONDS
        try:
            async with asyncio.timeout(min(seconds, self.latest - time.monotonic())):
                part = await self.response.read()
            self.size += len(part)
            if self.size > ANSWER_LIMIT:
                raise GarbageError(f"the answer is longer than {ANSWER_LIMIT} bytes")
            return [(event, self.assembler.feed(event)) for event in self.parser.feed(part)] if part else None
        except TimeoutError:
            raise unreachable(f"{endpoint} stopped in the middle of its answer", 504) from None
        except (HttpError, StreamError) as error:
            raise _meaning(error, endpoint, self.credential) from error

    def close(self) -> None:
        """Nothing more is read."""
        self.response.close(ended=self.assembler is not None and self.assembler.answer() is not None)


class Upstream:
    """Calls the model endpoints of a route."""

    def __init__(self, client: Client, credentials: Credentials, health: HealthOfModel) -> None:
        self._client = client
        self._credentials = credentials
        self._health = health

    async def open(self, route: ModelRoute, dialect: Dialect, request: Json) -> Answer:
        """The answer of the first endpoint of the route that gives one. Raises the `ModelFailedError` of the first.

        The next endpoint is asked when one fails before its first token, unless it blames the request: then the others
        would too. An answer without streaming has its first token with its last, so all of it must come in that time.
        """
        body = dialect.completed(request, route)
        failures: list[ModelFailedError] = []
        for target in route.targets:
            try:
                answer = await self._attempt(target, route, dialect, request, body)
            except ModelFailedError as failure:
                self._health.failed(target, failure)
                failures.append(failure)
                if failure.final:
                    raise
                log.warning("model %s failed: %s", target.name, failure.reason)
            else:
                self._health.answered(target, failures[0] if failures else None)
                return answer
        raise failures[0]

    def broke(self, answer: Answer, failure: ModelFailedError) -> None:
        """An answer that had begun was not brought to its end."""
        self._health.failed(answer.target, failure)

    async def _attempt(
        self, target: ModelTarget, route: ModelRoute, dialect: Dialect, request: Json, body: Json
    ) -> Answer:
        credential = self._credentials.of(target)
        content = encode({**body, "model": target.name})
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
        if credential is not None:
            headers.append((b"authorization", b"Bearer " + credential.encode()))
        url = target.base_url.rstrip("/") + dialect.path
        seconds = route.first_token_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.send("POST", url, headers, content)
                answer = Answer(target, credential, response)
                try:
                    await _begin(answer, dialect, request)
                except BaseException:
                    response.close()
                    raise
                return answer
        except TimeoutError:
            raise unreachable(f"{target.base_url} gave no token within {seconds} s", 504) from None
        except (HttpError, StreamError) as error:
            raise _meaning(error, target.base_url, credential) from error


def _meaning(error: HttpError | StreamError, endpoint: str, credential: str | None) -> ModelFailedError:
    """What a failed exchange says of the endpoint."""
    if isinstance(error, StreamError):
        return refused(500, error.body, endpoint, credential)
    if isinstance(error, GarbageError):
        return invalid(f"{endpoint}: {error}")
    return unreachable(f"{endpoint}: {error}")


async def _begin(answer: Answer, dialect: Dialect, request: Json) -> None:
    """Read the whole answer, or a stream up to its first token."""
    response, endpoint = answer.response, answer.target.base_url
    if response.status != 200:
        raise refused(response.status, await _some(response), endpoint, answer.credential)
    if response.header("content-encoding").lower() not in (b"", b"identity"):
        raise GarbageError("the answer is compressed, which was not asked for")
    if response.content_type == b"text/event-stream" and request.get("stream"):
        answer.assembler = dialect.assembler(request)
        await _until_first_token(answer)
    elif response.content_type == b"application/json":
        answer.whole = _whole(await response.read_all(ANSWER_LIMIT), dialect)
    else:
        shown = response.content_type.decode("latin-1")[:100] or "no type"
        raise GarbageError(f"the answer is {shown}, not what the API says")


async def _some(response: Response) -> bytes:
    """The beginning of an error's body; what cannot be read does not matter."""
    try:
        return await response.read_all(_ERROR_LIMIT)
    except HttpError:
        return b""


async def _until_first_token(answer: Answer) -> None:
    assert answer.assembler is not None  # noqa: S101 - the caller has made it
    while not any(progress is not Progress.PREAMBLE for _, progress in answer.opening):
        part = await answer.response.read()
        if not part:
            raise GarbageError("the stream ended before its first token")
        answer.size += len(part)
        if answer.size > ANSWER_LIMIT:
            raise GarbageError(f"the answer is longer than {ANSWER_LIMIT} bytes")
        answer.opening += [(event, answer.assembler.feed(event)) for event in answer.parser.feed(part)]
    if answer.opening[-1][1] is Progress.END and answer.assembler.answer() is None:
        raise GarbageError("the stream ended before its first token")


def _whole(body: bytes, dialect: Dialect) -> Json:
    try:
        answer = decode(body)
    except ValueError:
        raise GarbageError("the answer is not JSON") from None
    if isinstance(answer, dict) and answer.get("error"):
        raise StreamError(body)
    if not dialect.is_answer(answer):
        raise GarbageError("the answer is not one of this API")
    whole: Json = answer
    return whole
