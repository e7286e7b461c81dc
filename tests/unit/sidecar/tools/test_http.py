"""Tools that are one HTTP request."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure_api.configuration import HttpConfig, ToolConfig
from tenure_api.report import ToolHealth
from tenure_api.tools import Replay
from tenure_sidecar.tools import attempts, exchange
from tenure_sidecar.tools.failure import ToolFailedError
from tenure_sidecar.tools.http import from_template
from unit.sidecar.support import serving, until
from unit.sidecar.tools.support import ATTEMPT, HEADERS, SECRET, Server, World, a_world, breaks, hangs, says

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "count": {"type": "integer", "minimum": 1}, "tags": {"type": "array"}},
    "required": ["id"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_FIRST_PAUSE", 0.001)


def a_tool(
    port: int, method: str = "GET", replay: Replay | None = None, seconds: float = 5, **fields: Any
) -> ToolConfig:
    config = HttpConfig(
        method=method, url=f"http://127.0.0.1:{port}/orders/{{id}}", parameters=ORDER, headers=HEADERS, **fields
    )
    tool = ToolConfig(name="order", description="Looks up.", replay=replay, http=config)
    return tool.model_copy(update={"timeout_seconds": seconds})


async def test_a_get_puts_arguments_into_path_and_query(tmp_path: Path) -> None:
    server = Server(says({"state": "sent"}))
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        outcome = await world.call("order", {"id": "a/b ?&=%2F", "count": 2, "tags": ["x&y", "z+"]})
        assert outcome.text == '{"state": "sent"}'
        assert not outcome.is_error
    asked = server.asked[0]
    assert asked.path == "/orders/a%2Fb%20%3F%26%3D%252F"
    assert asked.query == "count=2&tags=x%26y&tags=z%2B"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.body == b""


async def test_a_post_puts_the_other_arguments_into_a_json_body(tmp_path: Path) -> None:
    server = Server(says(status=204, body=""))
    async with serving(server) as port, a_world(tmp_path, a_tool(port, "POST")) as world:
        outcome = await world.call("order", {"id": "1", "count": 2})
    assert outcome.text == "The tool answered with status 204 (No Content); the answer is empty."
    assert server.asked[0].json() == {"count": 2}
    assert server.asked[0].headers["content-type"] == "application/json"
    assert "idempotency-key" not in server.asked[0].headers


@given(st.text(min_size=1, max_size=30), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_no_argument_can_leave_its_place_in_the_url(value: str, others: dict[str, str]) -> None:
    config = HttpConfig(url="http://host/a/{id}/b")
    others.pop("id", None)
    if value in (".", ".."):
        with pytest.raises(ToolFailedError):
            from_template(config, {**others, "id": value})
        return
    try:
        request = from_template(config, {**others, "id": value})
    except UnicodeEncodeError:  # half of a surrogate pair, which no arguments hold
        return
    path, _, query = request.url.removeprefix("http://host").partition("?")
    assert [unquote(part) for part in path.split("/")] == ["", "a", value, "b"]
    assert parse_qsl(query, keep_blank_values=True) == list(others.items())


@pytest.mark.parametrize("value", ["", ".", "..", None, [], {}])
async def test_a_value_that_is_no_segment_of_a_path_is_refused(value: Any) -> None:
    with pytest.raises(ToolFailedError, match="'id'"):
        from_template(HttpConfig(url="http://host/{id}"), {"id": value})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"id": 5}, "argument 'id': must be string, not number"),
        ({"id": "1", "count": 0}, "argument 'count': must have minimum 1"),
        ({"count": 1}, "'id' is a required property"),
        ({"id": "1", "colour": "red"}, "'colour' was unexpected"),
        ("[]", "must be a JSON object, not array"),
        ("{", "not valid JSON"),
        ('{"id": NaN}', "not valid JSON"),
        ('{"id": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
async def test_arguments_that_do_not_fit_are_explained_and_nothing_is_asked(
    tmp_path: Path, arguments: Any, said: str
) -> None:
    server = Server(says())
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        outcome = await world.call("order", arguments)
    assert said in outcome.text
    assert (outcome.is_error, outcome.unknown, server.asked) == (True, False, [])


@pytest.mark.parametrize(
    "schema", [{"type": "wrong"}, {"$ref": "http://127.0.0.1:9/x"}, {"properties": {"id": {"pattern": "("}}}]
)
async def test_a_schema_that_is_none_is_the_users_to_mend(tmp_path: Path, schema: Any) -> None:
    tool = ToolConfig(name="t", http=HttpConfig(url="http://127.0.0.1:9/", parameters=schema))
    async with a_world(tmp_path, tool) as world:
        outcome = await world.call("t", {"id": "1"})
    assert "schema is not valid" in outcome.text
    assert outcome.is_error


@pytest.mark.parametrize(
    ("method", "replay", "expected"),
    [("GET", None, "Safe"), ("POST", None, "Never"), ("DELETE", None, "Never"), ("POST", Replay.SAFE, "Safe")],
)
async def test_the_class_of_a_request_is_that_of_its_method_unless_given(
    tmp_path: Path, method: str, replay: Replay | None, expected: str
) -> None:
    async with a_world(tmp_path, a_tool(9, method, replay)) as world:
        assert [function.replay for function in world.tools.functions()] == [expected]


@pytest.mark.parametrize("failing", [breaks, says("busy", 503), says("slow down", 429, retry_after="0")])
@pytest.mark.parametrize("replay", [Replay.SAFE, Replay.IDEMPOTENCY_KEY])
async def test_a_call_that_may_be_repeated_is_repeated_until_it_is_answered(
    tmp_path: Path, replay: Replay, failing: Any
) -> None:
    server = Server(failing, failing, says("at last"))
    async with serving(server) as port, a_world(tmp_path, a_tool(port, "POST", replay)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert (outcome.text, outcome.is_error) == ("at last", False)
    keys = {asked.headers.get("idempotency-key") for asked in server.asked}
    assert keys == {ATTEMPT.key if replay is Replay.IDEMPOTENCY_KEY else None}
    assert len(server.asked) == 3


@pytest.mark.parametrize("failing", [breaks, hangs])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_call_that_must_not_be_repeated_and_is_not_answered_is_unknown(
    tmp_path: Path, failing: Any, method: str
) -> None:
    server = Server(failing)
    async with serving(server) as port, a_world(tmp_path, a_tool(port, method, seconds=0.2)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert (outcome.is_error, outcome.unknown, len(server.asked)) == (True, True, 1)
    assert "may or may not have taken effect" in outcome.text


async def test_a_call_with_a_key_that_is_never_answered_is_unknown(tmp_path: Path) -> None:
    server, replay = Server(hangs), Replay.IDEMPOTENCY_KEY
    async with serving(server) as port, a_world(tmp_path, a_tool(port, "POST", replay, seconds=0.2)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert outcome.unknown


async def test_a_safe_call_that_is_never_answered_is_a_plain_error(tmp_path: Path) -> None:
    async with serving(Server(hangs)) as port, a_world(tmp_path, a_tool(port, seconds=0.2)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert (outcome.text, outcome.is_error, outcome.unknown) == ("The tool gave no answer within 0.2 s.", True, False)


async def test_an_error_of_the_server_ends_a_call_that_must_not_be_repeated(tmp_path: Path) -> None:
    server = Server(says("x" * 10_000, 500))
    async with serving(server) as port, a_world(tmp_path, a_tool(port, "POST")) as world:
        outcome = await world.call("order", {"id": "1"})
    assert outcome.text.startswith("The tool answered with status 500 (Internal Server Error): xxx")
    assert len(outcome.text) < 5_000
    assert (outcome.is_error, outcome.unknown, len(server.asked)) == (True, False, 1)


async def test_what_the_tool_refuses_is_not_tried_again(tmp_path: Path) -> None:
    server = Server(says({"why": f"no such order, {SECRET}"}, 404))
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert outcome.text == 'The tool answered with status 404 (Not Found): {"why": "no such order, [redacted]"}'
    assert (outcome.is_error, len(server.asked)) == (True, 1)


@pytest.mark.parametrize("replay", list(Replay))
async def test_a_tool_that_cannot_be_reached_is_down_and_nothing_is_unknown(tmp_path: Path, replay: Replay) -> None:
    async with a_world(tmp_path, a_tool(1, "POST", replay)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert "is down" in outcome.text
    assert (outcome.is_error, outcome.unknown) == (True, False)


@pytest.mark.parametrize(("replay", "unknown"), [(Replay.SAFE, False), (Replay.IDEMPOTENCY_KEY, True)])
async def test_a_call_that_was_begun_before_and_cannot_be_made_again_is_unknown(
    tmp_path: Path, replay: Replay, unknown: bool
) -> None:
    async with a_world(tmp_path, a_tool(1, "POST", replay)) as world:
        (function,) = world.tools.functions()
        for arguments in ('{"id": "1"}', '{"id": 5}'):
            outcome = await world.tools.call(function, arguments, replace(ATTEMPT, again=True))
            assert (outcome.is_error, outcome.unknown) == (True, unknown)


async def test_a_credential_that_an_answer_repeats_is_not_shown(tmp_path: Path) -> None:
    async with serving(Server(says(f"you sent Bearer {SECRET}"))) as port, a_world(tmp_path, a_tool(port)) as world:
        assert (await world.call("order", {"id": "1"})).text == "you sent [redacted]"


async def test_a_missing_credential_is_named_and_nothing_is_asked(tmp_path: Path) -> None:
    server = Server(says())
    async with serving(server) as port, a_world(tmp_path, a_tool(port, "POST")) as world:
        world.credential.unlink()
        outcome = await world.call("order", {"id": "1"})
        assert "key 'token' of Secret 'orders' is missing" in outcome.text
        assert (outcome.is_error, outcome.unknown, server.asked) == (True, False, [])
        said = "there is no value for the header Authorization: key 'token' of Secret 'orders' is missing or empty"
        assert world.tools.health() == [ToolHealth(name="order", reason="CredentialMissing", message=said)]
        world.credential.write_text("rotated")
        await world.call("order", {"id": "1"})
        assert server.asked[0].headers["authorization"] == "rotated"
        assert world.tools.health() == []


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    server = Server(says("", 302, location="http://169.254.169.254/"))
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert outcome.is_error
    assert "redirects" in outcome.text
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("é".encode("latin-1"), b"text/plain; charset=latin-1", "é"),
        (b"\xef\xbb\xbfx", b"text/plain", "x"),
        (b"\x89PNG\0", b"image/png", "(The answer is binary, image/png, 5 bytes; it cannot be shown.)"),
        (
            b"\xff\xfe",
            b"text/plain; charset=nonsense",
            "(The answer is binary, text/plain, 2 bytes; it cannot be shown.)",
        ),
    ],
)
async def test_a_body_is_shown_as_text_if_it_is_any(tmp_path: Path, body: bytes, kind: bytes, text: str) -> None:
    async with serving(Server(says(body, kind=kind))) as port, a_world(tmp_path, a_tool(port)) as world:
        assert (await world.call("order", {"id": "1"})).text == text


async def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_LIMIT", 1_000)
    async with serving(Server(says(b"x" * 5_000))) as port, a_world(tmp_path, a_tool(port)) as world:
        outcome = await world.call("order", {"id": "1"})
    assert outcome.is_error
    assert "longer than 1000 bytes" in outcome.text


async def test_a_call_that_is_cancelled_is_cancelled(tmp_path: Path) -> None:
    server = Server(hangs)
    async with serving(server) as port, a_world(tmp_path, a_tool(port)) as world:
        calling = asyncio.create_task(world.call("order", {"id": "1"}))
        await until(lambda: server.asked)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


async def test_a_pushed_configuration_holds_at_once(tmp_path: Path) -> None:
    server = Server(says())
    async with serving(server) as port, a_world(tmp_path) as world:
        assert world.names() == []
        world.now(a_tool(port))
        function = world.tools.find("order")
        assert function is not None
        assert function.definition["function"] == {"name": "order", "description": "Looks up.", "parameters": ORDER}
        world.now()
        assert world.tools.find("order") is None
        outcome = await world.tools.call(function, json.dumps({"id": "1"}), ATTEMPT)
        assert outcome.text == "There is no tool 'order' any more."


async def test_without_a_configuration_there_are_no_tools(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config = None  # type: ignore[assignment]
    assert world.tools.functions() == []
    assert world.tools.health() == []
