"""The HTTP client: connections are kept, and whatever a server does becomes one of three errors."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tenure_sidecar import http_client
from tenure_sidecar.errors import BrokenError, ConnectError, GarbageError
from tenure_sidecar.http_client import Client, Once
from unit.sidecar.support import speaking, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Talk:
    """A server that answers each request with the next of the given bytes, and counts its connections."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.requests: list[bytes] = []
        self._writers: list[asyncio.StreamWriter] = []

    def end(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            self.requests.append(head + await reader.readexactly(length))
            answer = self.answers.pop(0) if self.answers else None
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()


@asynccontextmanager
async def talking(*answers: bytes | None) -> AsyncIterator[tuple[Talk, str]]:
    talk = Talk(*answers)
    async with speaking(talk.handle) as port:
        yield talk, f"http://127.0.0.1:{port}/v1/models"


async def fetch(client: Client, url: str, body: bytes = b"") -> bytes:
    response = await client.send("POST", url, [(b"x-one", b"1")], body)
    try:
        return await response.read_all(1_000_000)
    finally:
        response.close()


async def fetch_once(url: str) -> bytes:
    client = Client()
    try:
        return await fetch(client, url)
    finally:
        await client.close()


async def test_a_connection_is_used_again() -> None:
    async with talking(OK, OK) as (talk, url):
        client = Client()
        assert [await fetch(client, url, b"body"), await fetch(client, url)] == [b"hello", b"hello"]
        assert talk.connections == 1
        head, _, body = talk.requests[0].partition(b"\r\n\r\n")
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert body == b"body"
        assert sorted(names) == [b"content-length", b"host", b"x-one"]
        await client.close()


async def test_a_chunked_answer_is_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    async with talking(chunked, OK) as (talk, url):
        client = Client()
        assert [await fetch(client, url), await fetch(client, url)] == [b"hello", b"hello"]
        assert talk.connections == 1
        await client.close()


async def test_an_answer_that_ends_with_its_connection_is_read() -> None:
    async with talking(b"HTTP/1.1 200 OK\r\n\r\nhello") as (talk, url):
        talk.answers.append(None)
        client = Client()
        response = await client.send("GET", url, [])
        assert await response.read() == b"hello"
        response.close()


async def test_an_informational_answer_precedes_the_real_one() -> None:
    async with talking(b"HTTP/1.1 100 Continue\r\n\r\n" + OK) as (_, url):
        assert await fetch_once(url) == b"hello"


async def test_a_kept_connection_that_the_server_closes_is_replaced_without_notice() -> None:
    async with talking(OK, None, OK) as (talk, url):
        client = Client()
        assert await fetch(client, url) == b"hello"
        assert await fetch(client, url) == b"hello"
        assert talk.connections == 2
        await client.close()


async def test_a_new_connection_that_is_closed_without_an_answer_is_an_error() -> None:
    async with talking(None) as (_, url):
        with pytest.raises(BrokenError):
            await fetch_once(url)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}"):
        await fetch_once(f"http://127.0.0.1:{port}/")


async def test_no_such_host() -> None:
    with pytest.raises(ConnectError):
        await fetch_once("http://no-such-host.invalid/")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    ],
    ids=["not HTTP", "no length", "endless headers"],
)
async def test_garbage_is_an_error(answer: bytes) -> None:
    async with talking(answer) as (_, url):
        with pytest.raises(GarbageError):
            await fetch_once(url)


async def test_an_answer_that_is_cut_is_an_error() -> None:
    async with talking(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", None) as (talk, url):
        client = Client()
        response = await client.send("GET", url, [])
        assert await response.read() == b"hello"
        talk.answers.clear()
        talk.end()
        with pytest.raises(BrokenError):
            await response.read()
        response.close()


async def test_a_longer_answer_than_allowed_is_an_error() -> None:
    async with talking(b"HTTP/1.1 200 OK\r\ncontent-length: 2000001\r\n\r\n" + bytes(2_000_001)) as (_, url):
        with pytest.raises(GarbageError, match="longer than"):
            await fetch_once(url)


async def test_a_large_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 3_900
    async with talking(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as (_, url):
        assert await fetch_once(url) == body


async def test_an_answer_that_was_not_read_to_its_end_costs_its_connection() -> None:
    async with talking(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", OK) as (talk, url):
        client = Client()
        (await client.send("GET", url, [])).close()
        assert await fetch(client, url) == b"hello"
        assert talk.connections == 2
        await client.close()


async def test_more_than_was_asked_for_is_not_taken_for_the_next_answer() -> None:
    async with talking(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", OK) as (talk, url):
        client = Client()
        assert await fetch(client, url) == b"hello"
        assert await fetch(client, url) == b"hello"
        assert talk.connections == 2
        await client.close()


async def test_the_end_of_a_transfer_that_comes_soon_keeps_the_connection() -> None:
    parts = asyncio.Queue[bytes]()
    connections = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(2):
                writer.write(await parts.get())

    async with speaking(slow) as port:
        client, url = Client(), f"http://127.0.0.1:{port}/"
        begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
        parts.put_nowait(begun)
        response = await client.send("GET", url, [])
        assert await response.read() == b"hello"
        response.close(ended=True)
        parts.put_nowait(b"0\r\n\r\n")
        await until(lambda: not client._lingering)
        parts.put_nowait(begun)
        parts.put_nowait(b"0\r\n\r\n")
        assert await fetch(client, url) == b"hello"
        assert connections == 1
        await client.close()


async def test_the_end_of_a_transfer_that_does_not_come_costs_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_LINGER_SECONDS", 0.01)
    async with talking(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello", OK) as (talk, url):
        client = Client()
        response = await client.send("GET", url, [])
        response.close(ended=True)
        await until(lambda: not client._lingering)
        assert await fetch(client, url) == b"hello"
        assert talk.connections == 2
        await client.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
async def test_a_request_that_must_not_be_sent_twice_is_not(method: str) -> None:
    async with talking(None, OK) as (talk, url):
        client, once = Client(), Once()
        with pytest.raises(BrokenError):
            await client.send(method, url, [], b"", once)
        assert (talk.connections, once.sent) == (1, True)
        await client.close()


async def test_a_request_that_must_not_be_sent_twice_has_a_connection_of_its_own() -> None:
    async with talking(OK, OK) as (talk, url):
        client = Client()
        assert await fetch(client, url) == b"hello"
        response = await client.send("POST", url, [], b"", Once())
        assert await response.read_all(100) == b"hello"
        response.close()
        assert talk.connections == 2
        await client.close()


async def test_it_is_known_that_a_request_was_not_sent() -> None:
    client, once = Client(), Once()
    with pytest.raises(ConnectError):
        await client.send("POST", "http://127.0.0.1:1/", [], b"", once)
    assert not once.sent
    await client.close()
