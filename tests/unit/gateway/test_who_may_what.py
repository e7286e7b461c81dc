"""Every route, for everyone who might come: 401, 404 or 503, never data; and what a caller is told of it."""

import json

import httpx2
import pytest

from tenure_gateway.ids import conversation_id, response_id
from unit.gateway.doubles import Object
from unit.gateway.world import World, http

CONVERSATION = "CONVERSATION"
RESPONSE = "RESPONSE"
SECRET = "xyzzy"

OF_THE_SESSION: list[tuple[str, str, Object | None]] = [
    ("POST", "/v1/responses", {"conversation": CONVERSATION, "input": "history"}),
    ("POST", "/v1/responses", {"conversation": CONVERSATION, "input": "history", "stream": True}),
    ("POST", "/v1/responses", {"previous_response_id": RESPONSE, "input": "history"}),
    (
        "POST",
        "/v1/chat/completions",
        {
            "model": "shop/helper",
            "messages": [{"role": "user", "content": "history"}],
            "metadata": {"conversation": CONVERSATION},
        },
    ),
    ("GET", f"/v1/responses/{RESPONSE}", None),
    ("GET", f"/v1/conversations/{CONVERSATION}", None),
    ("GET", f"/v1/conversations/{CONVERSATION}/items", None),
    ("GET", "/v1/conversations/shop/hers", None),
    ("GET", "/v1/conversations/shop/hers/items", None),
    ("DELETE", f"/v1/conversations/{CONVERSATION}", None),
]
OF_THE_AGENT: list[tuple[str, str, Object | None]] = [
    ("GET", "/v1/models/shop/helper", None),
    ("POST", "/v1/responses", {"model": "shop/helper", "input": "x"}),
    ("POST", "/v1/responses", {"model": "shop/helper", "input": "x", "store": False}),
    ("POST", "/v1/conversations", {"metadata": {"agent": "shop/helper"}}),
    ("POST", "/v1/chat/completions", {"model": "shop/helper", "messages": [{"role": "user", "content": "x"}]}),
]


async def call(world: World, token: str | None, method: str, path: str, body: Object | None) -> httpx2.Response:
    """One call about alice's session `hers`."""
    key = next(iter(world.volumes))
    turn = next(iter(world.volumes[key].turns))

    def filled(text: str) -> str:
        return text.replace(CONVERSATION, conversation_id(key)).replace(RESPONSE, response_id(key, turn))

    headers = {"authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        body = json.loads(filled(json.dumps(body)))
    async with http() as web:
        return await web.request(method, f"{world.url}{filled(path)}", headers=headers, json=body)


async def with_history(world: World) -> None:
    world.session("hers")
    async with world.client(world.alice) as client:
        await client.responses.create(conversation="shop/hers", input=SECRET)


def is_error(answer: httpx2.Response, status: int) -> bool:
    assert SECRET not in answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    return answer.status_code == status


@pytest.mark.parametrize("who", ["nobody", "garbage", "wrong audience", "another scheme"])
async def test_without_a_token_for_this_gateway_nothing_is_told(world: World, who: str) -> None:
    await with_history(world)
    token = {
        "nobody": None,
        "garbage": "not-a-token",
        "wrong audience": world.cluster.user("alice", "other"),
        "another scheme": None,
    }[who]
    for method, path, body in [*OF_THE_SESSION, *OF_THE_AGENT, ("GET", "/v1/models", None)]:
        answer = await call(world, token, method, path, body)
        assert is_error(answer, 401), (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
    if who == "another scheme":
        async with http(auth=("alice", world.alice)) as web:
            assert is_error(await web.get(f"{world.url}/v1/models"), 401)
    assert len(world.sessions) == 1


async def test_who_may_not_use_the_agent_finds_neither_it_nor_its_sessions(world: World) -> None:
    await with_history(world)
    stranger = world.cluster.user("stranger")
    for method, path, body in OF_THE_SESSION + OF_THE_AGENT:
        assert is_error(await call(world, stranger, method, path, body), 404), (method, path)
    assert (await call(world, stranger, "GET", "/v1/models", None)).json()["data"] == []
    assert len(world.sessions) == 1


async def test_a_session_of_another_subject_is_not_found(world: World) -> None:
    await with_history(world)
    bob = world.cluster.user("bob", namespaces=("shop",))
    for method, path, body in OF_THE_SESSION:
        assert is_error(await call(world, bob, method, path, body), 404), (method, path)


async def test_what_is_not_there_looks_like_what_is_not_allowed(world: World) -> None:
    await with_history(world)
    bob = world.cluster.user("bob", namespaces=("shop",))
    hers = await call(world, bob, "GET", "/v1/conversations/shop/hers", None)
    nobodys = await call(world, bob, "GET", "/v1/conversations/shop/none", None)
    assert hers.json() == {"error": {**nobodys.json()["error"], "message": hers.json()["error"]["message"]}}
    assert hers.json()["error"]["message"].replace("hers", "none") == nobodys.json()["error"]["message"]


async def test_a_subject_who_may_no_longer_use_the_agent_loses_the_session(world: World) -> None:
    await with_history(world)
    world.cluster.grants.clear()
    assert is_error(await call(world, world.alice, "GET", "/v1/conversations/shop/hers", None), 404)


async def test_whom_rbac_lets_act_for_others_gets_the_session(world: World) -> None:
    await with_history(world)
    support = world.cluster.user("support")
    world.cluster.grants.add(("support", "agentsessions", "shop", "hers"))
    answer = await call(world, support, "GET", "/v1/conversations/shop/hers/items", None)
    assert SECRET in answer.text
    key = next(iter(world.sessions))
    assert world.pod(key).subjects[-1] == "support"
    world.session("other")
    assert is_error(await call(world, support, "GET", "/v1/conversations/shop/other/items", None), 404)


@pytest.mark.parametrize("grant", [("", ""), ("shop", ""), ("shop", "helper")])
async def test_models_are_listed_by_whatever_grant_allows_them(world: World, grant: tuple[str, str]) -> None:
    token = world.cluster.user("carol")
    world.cluster.grants.add(("carol", "agents", *grant))
    async with world.client(token) as client:
        assert [model.id async for model in client.models.list()] == ["shop/helper"]


async def test_when_the_api_server_is_down_nobody_may_do_anything(world: World) -> None:
    await with_history(world)
    world.cluster.down = True
    for method, path, body in OF_THE_SESSION + OF_THE_AGENT:
        answer = await call(world, world.alice, method, path, body)
        assert is_error(answer, 503), (method, path)
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("world", [{"token_cache_seconds": 60, "access_cache_seconds": 60}], indirect=True)
async def test_what_was_asked_is_not_asked_again(world: World) -> None:
    await with_history(world)
    asked = list(world.cluster.reviews)
    for _ in range(3):
        await call(world, world.alice, "GET", "/v1/conversations/shop/hers", None)
    assert world.cluster.reviews == asked == ["token", "access"]


@pytest.mark.parametrize(
    "path", ["conv_2e2e2f2e2e", "..%2f..", "conv_73686f702f68657273ff", "shop%2fhers%2fmore", "conv_73686F702F68657273"]
)
async def test_an_id_that_no_session_can_have_is_never_asked_for(world: World, path: str) -> None:
    await with_history(world)
    answer = await call(world, world.alice, "GET", f"/v1/conversations/{path}", None)
    assert is_error(answer, 404)
    assert world.cluster.gets == 0
