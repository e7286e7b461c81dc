"""A session's workspace is a container to the official client."""

import asyncio
import io
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from tenure_gateway import upload as upload_module
from tenure_gateway.ids import conversation_id, file_id, is_path, parse_file
from unit.gateway.world import World, http

ODD = ["a b.txt", "ünï/cödé 文件.md", 'say "hi".txt', "per%20cent#?&.txt", "reports/june/x.csv", "…", "+.;,=@"]


def container(world: World, name: str = "mine") -> str:
    """The container of a new session."""
    return conversation_id(world.session(name)).replace("conv_", "cntr_")


async def test_a_container_is_the_workspace_of_a_session(client: AsyncOpenAI, world: World) -> None:
    identifier = container(world)
    found = await client.containers.retrieve(identifier)
    assert (found.id, found.name, found.object) == (identifier, "shop/mine", "container")


@pytest.mark.parametrize("path", ODD)
async def test_a_file_comes_back_whatever_its_name(client: AsyncOpenAI, world: World, path: str) -> None:
    identifier = container(world)
    data = bytes(range(256)) * 1000
    made = await client.containers.files.create(identifier, file=(path, data))
    assert (made.path, made.bytes, made.container_id) == (f"/workspace/{path}", len(data), identifier)
    assert world.volumes[next(iter(world.sessions))].files == {path: data}
    assert (await client.containers.files.retrieve(made.id, container_id=identifier)).path == made.path
    content = await client.containers.files.content.retrieve(made.id, container_id=identifier)
    assert content.content == data
    await client.containers.files.delete(made.id, container_id=identifier)
    assert [file async for file in client.containers.files.list(identifier)] == []


async def test_the_path_that_a_file_is_shown_with_may_be_used_for_it(client: AsyncOpenAI, world: World) -> None:
    made = await client.containers.files.create(container(world), file=("/workspace/a.txt", b"x"))
    assert made.path == "/workspace/a.txt"


async def test_files_come_in_pages(client: AsyncOpenAI, world: World) -> None:
    identifier = container(world)
    names = [f"{n}.txt" for n in range(5)]
    world.volumes[next(iter(world.sessions))].files |= dict.fromkeys(names, b"x")
    found = [file.path async for file in client.containers.files.list(identifier, limit=2, order="asc")]
    assert found == [f"/workspace/{name}" for name in names]
    found = [file.path async for file in client.containers.files.list(identifier, limit=2)]
    assert found == [f"/workspace/{name}" for name in reversed(names)]
    with pytest.raises(openai.BadRequestError):
        await client.containers.files.list(identifier, after=file_id("other"))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/./b", "..", "a/", ""])
async def test_a_name_that_leads_elsewhere_is_refused(client: AsyncOpenAI, world: World, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.containers.files.create(container(world), file=(name, b"x"))
    assert refused.value.param == "file"


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "", "a/../b", "a\0b"])
def test_an_id_of_a_path_that_leads_elsewhere_is_none(path: str) -> None:
    assert not is_path(path)
    assert parse_file(file_id(path)) is None


def test_a_file_has_one_id() -> None:
    assert parse_file(file_id("é")) == "é"
    for other in ("cfile_C3A9", "cfile_c3 a9", "c3a9", "cfile_ff", "file_c3a9"):
        assert parse_file(other) is None


async def test_what_is_not_there_is_not_found(client: AsyncOpenAI, world: World) -> None:
    identifier = container(world)
    for call in (client.containers.files.retrieve, client.containers.files.delete):
        with pytest.raises(openai.NotFoundError) as missing:
            await call(file_id("x"), container_id=identifier)
        assert missing.value.code == "file_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.containers.files.content.retrieve("cfile_zz", container_id=identifier)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.containers.retrieve("cntr_00")
    assert missing.value.code == "container_not_found"


async def test_a_file_that_does_not_fit_is_not_tried_again(world: World) -> None:
    identifier = container(world)
    async with world.client(world.alice, retries=2) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.containers.files.create(identifier, file=("a", b"too much"))
    assert (refused.value.status_code, refused.value.code) == (507, "volume_full")
    assert world.sidecars.calls.count("PUT /v1/files/a") == 1


async def upload(world: World, identifier: str, **more: object) -> httpx2.Response:
    headers = {"authorization": f"Bearer {world.alice}", **more.pop("headers", {})}  # type: ignore[dict-item]
    async with http() as web:
        return await web.post(f"{world.url}/v1/containers/{identifier}/files", headers=headers, **more)  # type: ignore[arg-type]


async def test_a_file_that_is_too_long_is_refused_and_the_client_hears_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "MAX_FILE", 1_000_000)
    identifier = container(world)
    answer = await upload(world, identifier, files={"file": ("a", io.BytesIO(b"x" * 5_000_000))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert world.volumes[next(iter(world.sessions))].files == {}


async def test_whoever_may_not_upload_hears_it_however_long_the_file_is(world: World) -> None:
    identifier = container(world)
    body = {"file": ("a", io.BytesIO(b"x" * 5_000_000))}
    answer = await upload(world, identifier, files=body, headers={"authorization": "Bearer nobody"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{}", "application/json", "unsupported_parameter"),
        (b"garbage", "multipart/form-data; boundary=b", "invalid_form"),
        (b"", "multipart/form-data; boundary=b", "invalid_form"),
        (b"x", "multipart/form-data", "unsupported_parameter"),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "missing_required_parameter",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=b",
            "invalid_form",
        ),
    ],
)
async def test_what_is_no_form_with_a_file_is_refused(world: World, content: bytes, kind: str, code: str) -> None:
    identifier = container(world)
    answer = await upload(world, identifier, content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert world.volumes[next(iter(world.sessions))].files == {}


@pytest.mark.parametrize("world", [{"receive_timeout_seconds": 0.05}], indirect=True)
async def test_a_file_that_does_not_come_is_not_waited_for(world: World) -> None:
    identifier = container(world)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
        await asyncio.sleep(0.3)

    answer = await upload(
        world, identifier, content=pieces(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert world.volumes[next(iter(world.sessions))].files == {}


async def test_an_upload_waits_for_the_pod(client: AsyncOpenAI, world: World) -> None:
    identifier = container(world)
    key = next(iter(world.sessions))
    world.kill(key)
    world.revive(key)
    assert (await client.containers.files.create(identifier, file=("a", b"x"))).bytes == 1


async def test_a_file_that_breaks_off_is_not_taken_for_the_whole(client: AsyncOpenAI, world: World) -> None:
    identifier = container(world)
    made = await client.containers.files.create(identifier, file=("a", b"x" * 1000))
    world.pod(next(iter(world.sessions))).bytes_left = [10]
    with pytest.raises(openai.APIConnectionError):
        await client.containers.files.content.retrieve(made.id, container_id=identifier)
    assert (await client.containers.files.content.retrieve(made.id, container_id=identifier)).content == b"x" * 1000
