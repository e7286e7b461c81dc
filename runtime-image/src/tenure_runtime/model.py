"""The model, reached through the sidecar with the openai SDK.

The SDK's typed methods walk through every message of a request to transform it, which costs 30 ms for 200 messages
(measured with openai 3.54); its `post` sends the same call as it is, in under 1 ms. An answer that is already in the
shape that the sidecar asked for is passed on byte by byte, so that nothing is lost that this code does not know.

The SDK's own retries are off: the sidecar numbers the model calls of a turn, and a retry would be another call.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from tenure_api.wire import CUT_HEADER
from tenure_runtime import responses, run
from tenure_runtime.errors import BadRequestError, ModelError
from tenure_runtime.rounds import as_chunk
from tenure_runtime.settings import Settings

KEEP_ALIVE_SECONDS = 30.0
"""How long an idle connection to the sidecar is kept. Less than the 75 s after which the sidecar closes one, because a
request that meets a closing connection fails and must not be sent again."""

DONE = b"data: [DONE]\n\n"


def client(settings: Settings) -> AsyncOpenAI:
    """The client of this process. It sets no limit to waiting: how long a model may take is the sidecar's decision."""
    return AsyncOpenAI(
        base_url=settings.base_url,
        api_key=settings.api_key,
        max_retries=0,
        http_client=DefaultAioHttpClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=5),
            limits=httpx2.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
        ),
    )


class Model(Protocol):
    """A model that answers chat completions."""

    def ask(self, request: dict[str, Any], cut: int) -> AsyncGenerator[bytes, None]:
        """The answer to the body of a chat completion, in pieces as they come.

        Server-sent events if the request says `stream`, else one JSON document. `cut` turns have been left out of the
        request. Raises `ModelError`, before the first piece if the call was refused.
        """
        ...

    def chunks(self, request: dict[str, Any], cut: int) -> AsyncGenerator[object, None]:
        """The same answer as decoded chunks of a stream; all of it is one chunk if the request does not say `stream`.

        Whether they are proper chunks is for the caller to see.
        """
        ...


class ChatCompletionsModel:
    """A model that speaks chat completions itself."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def ask(self, request: dict[str, Any], cut: int) -> AsyncGenerator[bytes, None]:
        """See `Model.ask`."""
        async with _call(self._client, "/chat/completions", request, cut) as stream:
            if request.get("stream"):
                async for piece in stream.response.aiter_bytes():
                    yield piece
            else:
                yield await stream.response.aread()

    async def chunks(self, request: dict[str, Any], cut: int) -> AsyncGenerator[object, None]:
        """See `Model.chunks`."""
        async with _call(self._client, "/chat/completions", request, cut) as stream:
            if request.get("stream"):
                async for chunk in stream:
                    yield chunk
            else:
                yield as_chunk(json.loads(await stream.response.aread()))


class ResponsesModel:
    """A model that speaks the Responses API; request and answer are translated."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def ask(self, request: dict[str, Any], cut: int) -> AsyncGenerator[bytes, None]:
        """See `Model.ask`."""
        streams = bool(request.get("stream"))
        async with aclosing(self._translated(request, cut)) as documents:
            async for document in documents:
                text = json.dumps(document).encode()
                yield b"data: " + text + b"\n\n" if streams else text
        if streams:
            yield DONE

    async def chunks(self, request: dict[str, Any], cut: int) -> AsyncGenerator[object, None]:
        """See `Model.chunks`."""
        async with aclosing(self._translated(request, cut)) as documents:
            async for document in documents:
                yield document if request.get("stream") else as_chunk(document)

    async def _translated(self, request: dict[str, Any], cut: int) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a chat completion, or the whole of it if the request does not say `stream`."""
        async with _call(self._client, "/responses", responses.request(request), cut) as stream:
            if not request.get("stream"):
                yield responses.completion(json.loads(await stream.response.aread()))
                return
            translation = responses.Translation()
            async for event in stream:
                for chunk in translation.chunks(event):
                    yield chunk
            translation.finish()


@asynccontextmanager
async def _call(client: AsyncOpenAI, path: str, body: dict[str, Any], cut: int) -> AsyncIterator[AsyncStream[object]]:
    """One model call, its answer still unread. Whatever ends it, the connection is closed or given back."""
    headers = run.headers() | ({CUT_HEADER: str(cut)} if cut else {})
    try:
        stream = await client.post(
            path,
            body=body,
            cast_to=object,
            options={"headers": headers} if headers else {},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        try:
            yield stream
        finally:
            await stream.close()
    except APIStatusError as error:
        raise ModelError.refused(error) from None
    except APIConnectionError as error:
        raise ModelError.broken("the sidecar's model proxy cannot be reached", error) from None
    except APIError as error:
        raise ModelError.reported(error.body) from None
    except httpx2.TransportError as error:
        raise ModelError.broken("the answer of the model broke off", error) from None
    except UnicodeEncodeError:
        raise BadRequestError("the messages contain half of a surrogate pair, which is not text") from None
    except ValueError as error:  # the answer is no JSON, or no text
        raise ModelError.broken("the answer of the model is not valid JSON", error) from None
