"""The tools, called through the sidecar: `POST /v1/tools/call`, next to the model."""

import asyncio
from typing import Protocol

from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI

from tenure_api.wire import ToolAnswer
from tenure_runtime import run
from tenure_runtime.errors import ToolCallError
from tenure_runtime.rounds import Call, Json


class Tools(Protocol):
    """The tools that the model may call."""

    async def call(self, call: Call) -> str:
        """What the model is to be told. That a tool failed is told too; raises `FaultError` if nothing can be."""
        ...


class SidecarTools:
    """Tools behind the sidecar. It judges names and arguments, and decides how long a call may take."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def call(self, call: Call) -> str:
        """See `Tools.call`."""
        body = {"callId": call.id, "name": call.name, "arguments": call.arguments}
        try:
            answer = await self._client.post(
                "/tools/call", body=body, cast_to=object, options={"headers": run.headers()}
            )
            return ToolAnswer.model_validate(answer).output
        except APIStatusError as error:
            raise ToolCallError.refused(error) from None
        except APIConnectionError as error:
            raise ToolCallError.broken("the sidecar cannot be reached for a tool call", error) from None
        except (APIError, ValueError) as error:
            raise ToolCallError.broken("the sidecar's answer to a tool call is not valid", error) from None


async def results(tools: Tools, calls: list[Call], parallel: bool) -> list[Json]:
    """Makes the calls and returns their tool messages, in the order of the calls. Raises `FaultError`.

    When one is refused the others are given up at once: the run is over.
    """
    if parallel:
        texts = await _together(tools, calls)
    else:
        texts = [await tools.call(call) for call in calls]
    return [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, texts, strict=True)]


async def _together(tools: Tools, calls: list[Call]) -> list[str]:
    tasks = [asyncio.ensure_future(tools.call(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
