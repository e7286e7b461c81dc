"""The model proxy: steps, credentials, fallbacks, and what a lying endpoint can do, which is nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tenure_api.configuration import ModelTarget
from tenure_sidecar.asgi import Scope, Send
from tenure_sidecar.proxy import app, upstream
from unit.sidecar.support import a_route, a_turn, serving, speaking, until
from unit.sidecar.world import (
    CREDENTIAL,
    DONE,
    POD_TOKEN,
    Deed,
    Json,
    Scripted,
    World,
    answers,
    chunk,
    says,
    streams,
    text_of,
    whole,
)

ASK: Json = {"model": "whatever", "messages": [{"role": "user", "content": "hi"}]}


async def configured(world: World, *targets: ModelTarget, **fields: Any) -> None:
    """Push a route."""
    route = a_route(*targets, **{key: fields.pop(key) for key in ("api", "seconds") if key in fields})
    generation = (world.session.config or world.config).agent_generation + 1
    route = route.model_copy(update=fields)
    answer = await world.push(world.config.model_copy(update={"model": route, "agent_generation": generation}))
    assert answer.status_code == 200


def target(port: int, name: str = "m", credential: str | None = "model/api-key") -> ModelTarget:
    return ModelTarget(name=name, base_url=f"http://127.0.0.1:{port}/v1", credential=credential)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """While a turn runs, in which the test is the agent."""
    over = asyncio.Event()
    agent, world.agent = world.agent, Scripted(streams(chunk("done", "stop"), then=over))
    asked = asyncio.create_task(world.send(a_turn()))
    await until(lambda: world.session.underway)
    try:
        yield
    finally:
        over.set()
        await asked
        world.agent = agent


def kinds(world: World) -> list[tuple[int, str]]:
    return [(record.step, record.kind) for record in world.session._open().journal.records() if record.kind != "config"]


# --- who may call, and when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["-", "wrong", POD_TOKEN + "x", POD_TOKEN[:-1]])
async def test_without_the_token_of_the_pod_nothing_is_answered(world: World, token: str) -> None:
    async with running(world):
        answer = await world.ask(ASK, token=token)
    assert answer.status_code == 401
    assert world.model.requests == []


async def test_without_a_turn_the_model_cannot_be_called(world: World) -> None:
    answer = await world.ask(ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_turn")
    assert world.model.requests == []


async def test_the_models_are_listed(world: World) -> None:
    url = f"http://127.0.0.1:{world.proxy_port}/v1/models"
    answer = await world.http.get(url, headers={"authorization": f"Bearer {POD_TOKEN}"})
    assert [model["id"] for model in answer.json()["data"]] == ["m"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
async def test_a_request_that_is_no_json_object_is_refused(world: World, body: bytes) -> None:
    async with running(world):
        url = f"http://127.0.0.1:{world.proxy_port}/v1/chat/completions"
        answer = await world.http.post(url, content=body, headers={"authorization": f"Bearer {POD_TOKEN}"})
    assert answer.status_code == 400


async def test_the_other_api_is_refused_with_a_sentence(world: World) -> None:
    async with running(world):
        answer = await world.ask({"input": "hi"}, path="/responses")
    assert answer.status_code == 404
    assert "speaks ChatCompletions" in answer.json()["error"]["message"]


# --- what the endpoint sees, and the agent does not -----------------------------------------------------------------


async def test_the_endpoint_gets_its_model_and_credential_and_nothing_of_the_pod(world: World) -> None:
    async with running(world):
        answer = await world.ask(ASK)
    assert answer.status_code in (200, 502)
    assert world.model.requests[0]["model"] == "m"
    headers = world.model.headers[0]
    assert headers[b"authorization"] == f"Bearer {CREDENTIAL}".encode()
    assert POD_TOKEN.encode() not in b"".join(headers.values())
    assert set(headers) == {b"host", b"content-length", b"content-type", b"accept", b"authorization"}


async def test_a_rotated_credential_is_used_at_once(world: World) -> None:
    async with running(world):
        await world.ask({**ASK, "stream": True})
        (world.directory / "credentials/model/api-key").write_text("sk-rotated")
        await world.ask({**ASK, "stream": True})
    assert world.model.headers[1][b"authorization"] == b"Bearer sk-rotated"


async def test_an_endpoint_without_a_credential_gets_none(world: World) -> None:
    await configured(world, target(world.model_port, credential=None))
    async with running(world):
        await world.ask({**ASK, "stream": True})
    assert b"authorization" not in world.model.headers[0]


@pytest.mark.parametrize("content", [None, "", "  \n", "two\nlines", "s\xe4fe"])
async def test_a_missing_or_impossible_credential_is_said_and_nothing_is_sent(
    world: World, content: str | None
) -> None:
    file = world.directory / "credentials/model/api-key"
    file.unlink() if content is None else file.write_text(content)
    turn = (await world.turn())[-1]["turn"]
    assert turn["error"]["code"] == "model_credential_missing"
    assert "Secret 'model'" in turn["error"]["message"]
    assert world.model.requests == []
    assert (await world.report())["model"]["reason"] == "CredentialMissing"


async def test_a_credential_path_that_leads_out_of_the_mount_is_refused(world: World) -> None:
    await configured(world, ModelTarget(name="m", base_url="http://127.0.0.1:9/v1", credential="../key/pod-token"))
    assert (await world.turn())[-1]["turn"]["error"]["code"] == "model_credential_missing"


async def test_an_endpoint_that_repeats_the_credential_does_not_betray_it(world: World) -> None:
    world.model.now(
        answers(401, {"error": {"message": f"bad key {CREDENTIAL}!", "type": CREDENTIAL, "code": CREDENTIAL}}),
        answers(500, f"<h1>{CREDENTIAL}</h1>".encode(), b"text/html"),
        answers(400, {"error": {"message": CREDENTIAL, "code": CREDENTIAL}}),
        streams(chunk("one"), b'data: {"error": {"message": "%b"}}\n\n' % CREDENTIAL.encode()),
    )
    seen = [json.dumps(await world.turn()) + json.dumps(await world.report()) for _ in range(4)]
    assert all(CREDENTIAL not in text for text in seen)
    assert all("[redacted]" in text for text in seen)
    raw = [record.payload for record in world.session._open().journal.records()]
    assert all(CREDENTIAL.encode() not in payload for payload in raw)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_what_an_endpoint_says_of_the_conversation_stays_in_the_journal(world: World, status: int) -> None:
    world.model.now(answers(status, {"error": {"message": "your prompt 'a canary' is bad", "type": "a canary"}}))
    turn = (await world.turn())[-1]["turn"]
    assert "a canary" in turn["error"]["message"]
    assert "canary" not in json.dumps(await world.report())


async def test_configured_parameters_reach_the_endpoint_unless_the_agent_sets_its_own(world: World) -> None:
    await configured(world, target(world.model_port), temperature=0.2, max_output_tokens=50)
    async with running(world):
        await world.ask({**ASK, "stream": True, "temperature": 1})
    assert world.model.requests[0]["temperature"] == 1
    assert world.model.requests[0]["max_completion_tokens"] == 50


# --- steps ----------------------------------------------------------------------------------------------------------


async def test_intent_is_on_disk_before_the_call_and_result_before_the_end_of_the_answer(world: World) -> None:
    seen: list[list[tuple[int, str]]] = []

    async def deed(request: Json, scope: Scope, send: Send) -> None:
        seen.append(kinds(world))
        await says("Hello there")(request, scope, send)

    world.model.now(deed)
    async with running(world):
        answer = await world.ask({**ASK, "stream": True})
        seen.append(kinds(world))
    assert answer.text.endswith("data: [DONE]\n\n")
    assert seen == [
        [(0, "turn.start"), (0, "model.intent")],
        [(0, "turn.start"), (0, "model.intent"), (0, "model.result")],
    ]


async def test_the_end_of_an_answer_is_held_back_until_its_result_is_on_disk(world: World) -> None:
    journal = world.session._open().journal
    release = asyncio.Event()
    append = journal.append

    async def slow(turn: str, step: int, kind: str, payload: bytes) -> Any:
        if kind == "model.result":
            await release.wait()
        return await append(turn, step, kind, payload)

    journal.append = slow  # type: ignore[method-assign]
    async with running(world):
        url = f"http://127.0.0.1:{world.proxy_port}/v1/chat/completions"
        headers = {"authorization": f"Bearer {POD_TOKEN}"}
        async with world.http.stream("POST", url, json={**ASK, "stream": True}, headers=headers) as answer:
            parts = answer.aiter_text()
            text = ""
            while "friend" not in text:
                text += await anext(parts)
            await asyncio.sleep(0.02)
            assert 'finish_reason": "stop' not in text
            release.set()
            text += "".join([part async for part in parts])
            assert text.endswith("data: [DONE]\n\n")


async def test_usage_that_the_agent_did_not_ask_for_is_metered_and_not_passed_on(world: World) -> None:
    async with running(world):
        answer = await world.ask({**ASK, "stream": True})
        underway = world.session.underway
        assert underway is not None
        assert (underway.steps.usage.input_tokens, underway.steps.usage.output_tokens) == (3, 2)
    assert "usage" not in answer.text


async def test_an_answer_without_streaming_is_passed_on_as_it_is(world: World) -> None:
    world.model.now(answers(200, {**whole("Hi"), "extra": 1}))
    async with running(world):
        answer = await world.ask(ASK)
    assert answer.json() == {**whole("Hi"), "extra": 1}


async def test_an_endpoint_that_ignores_streaming_is_passed_on_as_a_stream(world: World) -> None:
    world.model.now(answers(200, whole("All at once")))
    assert text_of(await world.turn()) == "All at once"


async def test_responses_are_passed_on_and_journalled(world: World) -> None:
    response = {"id": "r", "object": "response", "status": "completed", "output": [], "usage": {"input_tokens": 7}}
    events: list[Json] = [
        {"type": "response.created", "response": {}},
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": response},
    ]
    sent = [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events]
    world.model.now(streams(*sent), answers(200, response))
    await configured(world, target(world.model_port), api="Responses")
    async with running(world):
        answer = await world.ask({"input": "hi", "stream": True}, path="/responses")
        again = await world.ask({"input": "ho"}, path="/responses")
        assert world.session.underway is not None
        assert world.session.underway.steps.usage.input_tokens == 14
    assert answer.content == b"".join(sent)
    assert again.json() == response
    assert world.model.paths == ["/v1/responses", "/v1/responses"]
    assert world.model.requests[0]["store"] is False


# --- fallbacks ------------------------------------------------------------------------------------------------------


async def stall(request: Json, scope: Scope, send: Send) -> None:
    await asyncio.Event().wait()


FAILURES: dict[str, tuple[Deed, str]] = {
    "408": (answers(408, {}), "ModelError"),
    "429": (answers(429, {}), "ModelError"),
    "500": (answers(500, {}), "ModelError"),
    "503": (answers(503, b"busy", b"text/plain"), "ModelError"),
    "401": (answers(401, {}), "Unauthorized"),
    "404": (answers(404, {}), "ModelError"),
    "redirect": (answers(302, b""), "InvalidResponse"),
    "html": (answers(200, b"<html>", b"text/html"), "InvalidResponse"),
    "not json": (answers(200, b"{"), "InvalidResponse"),
    "not an answer": (answers(200, {"hello": 1}), "InvalidResponse"),
    "an error in disguise": (answers(200, {"error": {"message": "no"}}), "ModelError"),
    "garbage stream": (streams(b"data: {{{\n\n"), "InvalidResponse"),
    "empty stream": (streams(), "InvalidResponse"),
    "stream of nothing": (streams(chunk(""), DONE), "InvalidResponse"),
    "error first": (streams(chunk(""), b'data: {"error": {"message": "no"}}\n\n'), "ModelError"),
    "cut before the first token": (streams(chunk(""), cut=True), "Unreachable"),
    "endless event": (streams(*[b"data: " + b"x" * 1_000_000] * 5), "InvalidResponse"),
    "stalls before its headers": (stall, "Unreachable"),
    "stalls before its first token": (streams(chunk(""), then=asyncio.Event()), "Unreachable"),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_the_next_model_is_asked_when_one_fails_before_its_first_token(world: World, how: str) -> None:
    deed, reason = FAILURES[how]
    bad = Scripted(deed)
    async with serving(bad) as port:
        await configured(world, target(port, "bad"), target(world.model_port, "good"), seconds=1)
        assert text_of(await world.turn()) == "Hello there friend"
        assert (len(bad.requests), len(world.model.requests)) == (1, 1)
        model = (await world.report())["model"]
        assert model["reason"] == "Answering"
        assert "it is a fallback" in model["message"]
        await configured(world, target(port, "bad"), seconds=1)
        turn = (await world.turn())[-1]["turn"]
        assert turn["status"] == "failed"
        assert turn["error"]["code"].startswith("model_")
        assert (await world.report())["model"]["reason"] == reason


async def test_the_next_model_is_asked_when_one_cannot_be_reached_or_has_no_credential(world: World) -> None:
    async with serving(Scripted(stall)) as port:
        pass
    await configured(world, target(port), target(9, credential="no/such"), target(world.model_port))
    assert text_of(await world.turn()) == "Hello there friend"


async def test_a_request_that_is_at_fault_is_not_sent_to_others(world: World) -> None:
    error = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    world.model.now(answers(400, error))
    other = Scripted(says("never"))
    async with serving(other) as port:
        await configured(world, target(world.model_port), target(port))
        async with running(world):
            answer = await world.ask({**ASK, "stream": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert other.requests == []
    assert (await world.report())["model"]["reason"] == "Answering"


async def test_after_the_first_token_no_other_model_is_asked(world: World) -> None:
    world.model.now(streams(chunk("Hel"), cut=True))
    other = Scripted(says("never"))
    async with serving(other) as port:
        await configured(world, target(world.model_port), target(port))
        events = await world.turn()
    assert events[-1]["turn"]["error"]["code"] == "model_unreachable"
    assert other.requests == []


# --- hostile endpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [b"\x16\x03\x01\x02\x00", b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000, b"", b"HTTP/1.1 200 OK\r\ncontent-type: "],
    ids=["TLS", "endless header", "nothing", "half a header"],
)
async def test_an_endpoint_that_does_not_speak_http_is_a_clean_error(world: World, raw: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(raw)
        await writer.drain()

    async with speaking(babble) as port:
        await configured(world, target(port), seconds=1)
        turn = (await world.turn())[-1]["turn"]
    assert turn["error"]["code"] in ("model_invalid_response", "model_unreachable")
    world.model.now(says("fine"))
    await configured(world, target(world.model_port))
    assert text_of(await world.turn()) == "fine"


async def test_an_endless_answer_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ANSWER_LIMIT", 200_000)
    world.model.now(streams(*[chunk("x" * 10_000)] * 40))
    assert (await world.turn())[-1]["turn"]["error"]["code"] == "model_invalid_response"


async def test_an_answer_that_stops_in_the_middle_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.05)
    world.model.now(streams(chunk("Hel"), then=asyncio.Event()))
    turn = (await world.turn())[-1]["turn"]
    assert turn["error"]["code"] == "model_unreachable"
    assert "stopped in the middle" in turn["error"]["message"]


async def test_a_complete_answer_that_is_never_ended_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_CLOSING_SECONDS", 0.05)
    world.model.now(streams(chunk("Hello", "stop"), then=asyncio.Event()))
    assert text_of(await world.turn()) == "Hello"


async def test_a_stream_without_done_counts_when_its_answer_is_complete(world: World) -> None:
    world.model.now(streams(chunk("Hello"), chunk("", "stop")))
    assert text_of(await world.turn()) == "Hello"


async def test_a_too_long_request_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUEST_LIMIT", 50)
    async with running(world):
        answer = await world.ask(ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_the_key_of_another_endpoint_is_never_sent_to_a_fallback(world: World) -> None:
    other = Scripted(says("fine"))
    async with serving(other) as port:
        world.model.now(answers(500, {}))
        await configured(world, target(world.model_port), target(port, credential=None))
        await world.turn()
    assert b"authorization" not in other.headers[0]
