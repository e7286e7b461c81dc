"""An agent container with a loop: it calls what the model asks for, through the sidecar, and asks again."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from tenure_sidecar import asgi
from tenure_sidecar.asgi import Receive, Scope, Send
from tenure_sidecar.tools.tool import Attempt, Outcome
from unit.sidecar.toolbox import Deed as CallDeed
from unit.sidecar.world import POD_TOKEN, Agent, Deed, Json, World, answers, whole

Round = list[str | tuple[str, str]]


def plays(*rounds: Round | str, say: str = "") -> list[Deed]:
    """What the model answers, one after the other: calls by name (and arguments), or a text at the end."""
    deeds: list[Deed] = []
    for number, one in enumerate(rounds):
        deeds.append(tells(one) if isinstance(one, str) else _asks(number, one, say if number == 0 else ""))
    return deeds


def tells(text: str) -> Deed:
    """A last answer."""
    return answers(200, whole(text))


def _asks(number: int, calls: Round, say: str) -> Deed:
    wanted = []
    for place, call in enumerate(calls):
        name, arguments = call if isinstance(call, tuple) else (call, json.dumps({"n": place}))
        function = {"name": name, "arguments": arguments}
        wanted.append({"id": f"call_{number}_{place}", "type": "function", "function": function})
    message = {"role": "assistant", "content": say or None, "tool_calls": wanted}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }

    async def deed(request: Json, scope: Scope, send: Send) -> None:
        await asgi.respond(send, 200, json.dumps(body).encode())

    return deed


class LoopingAgent(Agent):
    """A little agent loop, not streamed by the model but streaming its words to the sidecar."""

    def __init__(self) -> None:
        super().__init__()
        self.backwards = False
        """Whether it makes parallel calls in the opposite order."""
        self.rewrite: Callable[[str], str] = lambda arguments: arguments
        self._running: set[asyncio.Task[None]] = set()

    async def die(self) -> None:
        """End all that it does, as when its container is killed."""
        for task in list(self._running):
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = json.loads(await asgi.read_body(receive, 1 << 30))
        self.requests.append(request)
        task = asyncio.ensure_future(self._serve(request, send))
        gone = asyncio.ensure_future(_gone(receive))
        self._running.add(task)
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        self._running.discard(task)
        gone.cancel()
        if task.cancelled():
            raise SystemError("the agent dies")
        task.cancel()

    async def _serve(self, request: Json, send: Send) -> None:
        await asgi.begin(send, 200, asgi.SSE)
        messages = list(request["messages"])
        base = f"http://127.0.0.1:{self.proxy_port}/v1"
        async with httpx.AsyncClient(base_url=base, timeout=20, verify=False, trust_env=False) as client:
            while True:
                body = {**request, "messages": messages, "stream": False}
                body.pop("stream_options", None)
                answer = await self.post(client, body)
                if answer.status_code != 200:
                    await asgi.end(send, b"data: " + json.dumps(answer.json()).encode() + b"\n\n")
                    return
                message = answer.json()["choices"][0]["message"]
                for word in (message["content"] or "").split(" "):
                    lead = " " if word != (message["content"] or "").split(" ")[0] else ""
                    await asgi.more(send, _delta({"content": lead + word}))
                if not message.get("tool_calls"):
                    await asgi.end(send, _delta({}, "stop") + b"data: [DONE]\n\n")
                    return
                messages += [message, *await self._results(client, message["tool_calls"])]

    async def _results(self, client: httpx.AsyncClient, calls: list[Json]) -> list[Json]:
        order = list(range(len(calls)))[:: -1 if self.backwards else 1]
        made = {}
        for place in order:
            made[place] = asyncio.ensure_future(self._result(client, calls[place]))
            await asyncio.sleep(0.01)
        await asyncio.gather(*made.values())
        return [made[place].result() for place in range(len(calls))]

    async def _result(self, client: httpx.AsyncClient, call: Json) -> Json:
        function = call["function"]
        body = {"callId": call["id"], "name": function["name"], "arguments": self.rewrite(function["arguments"])}
        answer = await client.post("/tools/call", json=body, headers={"authorization": f"Bearer {POD_TOKEN}"})
        content: Any = answer.json().get("output", "refused")
        return {"role": "tool", "tool_call_id": call["id"], "content": content}


def _delta(delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def blocking() -> tuple[CallDeed, asyncio.Event, asyncio.Event]:
    """A deed that is held, the event of its beginning and the one that releases it."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def deed(arguments: str, attempt: Attempt) -> Outcome:
        begun.set()
        await release.wait()
        return Outcome(f"did {arguments}")

    return deed, begun, release


def calls_of(turn: Json) -> list[tuple[str, str, str]]:
    return [
        (i["call"]["function"], i["call"]["outcome"], i["call"]["output"])
        for i in turn["output"]
        if i["type"] == "call"
    ]


async def decide(world: World, turn: str, approval: str, approve: bool = True, reason: str = "") -> tuple[int, Json]:
    body = {"decisions": [{"approval": approval, "approve": approve, "reason": reason}]}
    answer = await world.http.post(f"/v1/turns/{turn}/approvals", json=body, headers=world.token(), timeout=20)
    return answer.status_code, answer.json()


async def events_of(world: World, turn: str) -> list[Json]:
    answer = await world.http.get(f"/v1/turns/{turn}/events", headers=world.token(), timeout=20)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def state(world: World, turn: str) -> Json:
    found: Json = (await world.get(f"/v1/turns/{turn}")).json()
    return found


async def crash(world: World) -> None:
    await world.stop()
    await world.start()
    await world.ready()
