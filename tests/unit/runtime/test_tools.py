"""Tool calls over a real connection, with a stand-in for the sidecar."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from doubles.scripted_model.serving import serving
from tenure_api.wire import ToolAnswer, ToolCall
from tenure_runtime.errors import FaultError
from tenure_runtime.model import client
from tenure_runtime.rounds import Call
from tenure_runtime.settings import Settings
from tenure_runtime.tools import SidecarTools


def a_call(call_id: str = "call_1", name: str = "look", arguments: str = '{"at": 1}') -> Call:
    call = Call()
    call.take({"id": call_id, "function": {"name": name, "arguments": arguments}})
    return call


class Sidecar:
    """Answers tool calls by the name of the function."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.left = 0

    async def answer(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer pod-token"
        call = ToolCall.model_validate(await request.json())
        self.calls.append(call)
        match call.name:
            case "refused":
                return JSONResponse({"code": "determinism_error", "message": "Not as before."}, 409)
            case "refused-as-openai":
                error = {"code": "determinism_error", "message": "Not as before.", "type": "x", "param": None}
                return JSONResponse({"error": error}, 409)
            case "broken":
                return PlainTextResponse("oops", 500)
            case "garbage":
                return PlainTextResponse("{", media_type="application/json")
            case "strange":
                return JSONResponse({"result": 1})
            case "never":
                while not await request.is_disconnected():  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.001)
                self.left += 1
        answer = ToolAnswer(output=f"saw {call.arguments}", is_error=call.name == "failed")
        return JSONResponse(answer.model_dump(by_alias=True))


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


@pytest.fixture
async def tools(sidecar: Sidecar) -> AsyncIterator[SidecarTools]:
    app = Starlette(routes=[Route("/v1/tools/call", sidecar.answer, methods=["POST"])])
    async with serving(app) as url, client(Settings(base_url=url, api_key="pod-token")) as sdk:
        yield SidecarTools(sdk)


@pytest.mark.parametrize("arguments", ['{"at": 1}', "", "{not json", "é😀"])
async def test_a_call_reaches_the_sidecar_as_the_model_wrote_it(
    sidecar: Sidecar, tools: SidecarTools, arguments: str
) -> None:
    assert await tools.call(a_call(arguments=arguments)) == f"saw {arguments}"
    assert sidecar.calls == [ToolCall(call_id="call_1", name="look", arguments=arguments)]


async def test_that_a_tool_failed_is_something_the_model_is_told(tools: SidecarTools) -> None:
    assert await tools.call(a_call(name="failed")) == 'saw {"at": 1}'


@pytest.mark.parametrize("name", ["refused", "refused-as-openai"])
async def test_a_refusal_keeps_its_status_code_and_message(tools: SidecarTools, name: str) -> None:
    with pytest.raises(FaultError) as refused:
        await tools.call(a_call(name=name))
    assert refused.value.status == 409
    error = refused.value.error
    assert (error["code"], error["message"]) == ("determinism_error", "Not as before.")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("name", "status"), [("broken", 500), ("garbage", 502), ("strange", 502)])
async def test_a_nonsensical_answer_is_an_error_with_a_sentence(
    sidecar: Sidecar, tools: SidecarTools, name: str, status: int
) -> None:
    with pytest.raises(FaultError) as failed:
        await tools.call(a_call(name=name))
    assert failed.value.status == status
    assert "sidecar" in failed.value.error["message"]
    assert len(sidecar.calls) == 1, "no retries: the sidecar counts the calls"


async def test_a_sidecar_that_is_gone_is_an_error() -> None:
    async with client(Settings(base_url="http://127.0.0.1:9/v1", api_key="pod-token")) as sdk:
        with pytest.raises(FaultError) as failed:
            await SidecarTools(sdk).call(a_call())
    assert (failed.value.status, failed.value.error["code"]) == (502, "tool_call_failed")
    assert "pod-token" not in json.dumps(failed.value.body)


async def test_a_call_that_is_given_up_closes_its_connection(sidecar: Sidecar, tools: SidecarTools) -> None:
    calling: Any = asyncio.create_task(tools.call(a_call(name="never")))
    while not sidecar.calls:  # noqa: ASYNC110 - another side of the network
        await asyncio.sleep(0.001)
    calling.cancel()
    while not sidecar.left:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
