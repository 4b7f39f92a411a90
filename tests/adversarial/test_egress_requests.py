"""What a program sends to the mirror and the proxy from inside a sandbox, to get more of them than it may."""

import asyncio
import contextlib
import random
import socket
import struct

import pytest

from sandbox.egress.connection import ConnectionBounds
from tests.support.mirrors import ask, exchange, mirrored, registry_at, status_of
from tests.support.proxies import proxied
from tests.support.raw_server import RawServer, answer

HOST = b"Host: 127.0.0.1:%d\r\n"
SLOW_HEAD = ConnectionBounds(head_s=0.3, connections=2)
TRICKS = [
    "/go/../secret", "/go/a/../../secret", "/go/%2e%2e/secret", "/go/%2E%2E%2Fsecret", "/go/..%2fsecret",
    "/go/..%5csecret", "/go/..\\secret", "/go/%252e%252e/secret", "/go/%252e%252e%252fsecret",
    "/go/.;/../secret", "/go/..;/secret", "/go/a//secret", "//go/secret", "/go//secret", "/go/a%00b",
    "/go/a%0d%0ab", "/go/a%0aX:y",
    "/go/%c0%ae%c0%ae/secret", "/go/%ff", "/go/a#b", "/go/./secret", "/go/%2e/secret", "/go/a%2fsecret",
    "/go/a%252fsecret", "/go/%", "/go/@a%2f..%2fsecret", "/go/@a%2f%2e%2e/secret", "/go/%40a%2f../secret",
    "http://127.0.0.1/go/secret", "https://go/secret", "go/secret", "*", "/", "/other/secret", "/go~1/secret",
    "/go~0/secret", "/GO/secret", "/go%2fsecret", "/%67o/%2e%2e/secret", "/go/" + "a" * 5000, "/go/a?\x01",
    "/go/a?b=http://x/\\", "/go/{secret}", "/go/^", "/go/|", "/go/`id`", '/go/"',
]  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
async def test_tricks_with_paths_are_refused(target: str) -> None:
    """A path that climbs, hides a slash, holds what no path holds, or names another place never leaves."""
    async with (
        RawServer(lambda _: answer(b"secret")) as server,
        mirrored(registry_at(f"{server.url}/registry")) as session,
    ):
        answered = await exchange(
            session.port, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{session.port}\r\n\r\n".encode("latin-1")
        )
    assert status_of(answered) in (400, 404)
    assert server.heads == []


@pytest.mark.parametrize(
    "request_head",
    ["CONNECT 127.0.0.1:80 HTTP/1.1", "POST /go/x HTTP/1.1", "PUT /go/x HTTP/1.1", "DELETE /go/x HTTP/1.1",
     "OPTIONS /go/x HTTP/1.1", "TRACE /go/x HTTP/1.1", "PATCH /go/x HTTP/1.1", "get /go/x HTTP/1.1",
     "GET /go/x HTTP/2.0", "GET /go/x", "GET  /go/x HTTP/1.1", "GET /go/x HTTP/1.1 x",
     "PRI * HTTP/2.0", "\x16\x03\x01"],
)  # fmt: skip
async def test_other_methods_and_protocols_are_refused(request_head: str) -> None:
    """Only GET and HEAD of HTTP/1 are understood."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        head = f"{request_head}\r\nHost: 127.0.0.1:{session.port}\r\n\r\n"
        answered = await exchange(session.port, head.encode("latin-1"))
    assert answered == b"" or status_of(answered) in (400, 405, 421, 505)
    assert server.heads == []


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "Content-Length: 0\r\nContent-Length: 9\r\n\r\n", "Transfer-Encoding: identity\r\n\r\n",
     "Transfer-Encoding: chunked, chunked\r\n\r\n", "Content-Length: -1\r\n\r\n",
     "Content-Length: +0\r\n\r\n", "Content-Length: 0x0\r\n\r\n", "Transfer-Encoding : chunked\r\n\r\n",
     " Content-Length: 9\r\n\r\n", "X: a\x00b\r\n\r\n", "X\r\n\r\n"],
)  # fmt: skip
async def test_smuggled_requests_are_refused(framing: str) -> None:
    """A body, two lengths, or a header that two parsers would read differently: refused, and closed."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        host = f"Host: 127.0.0.1:{session.port}\r\n"
        hidden = f"GET /go/hidden HTTP/1.1\r\n{host}\r\n"
        answered = await exchange(
            session.port, f"GET /go/x HTTP/1.1\r\n{host}{framing}{hidden}".encode("latin-1")
        )
    assert status_of(answered) in (400, 421, 501)
    assert answered.count(b"HTTP/1.1 ") == 1
    assert server.heads == []


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost",
        "",
        "127.0.0.1:{port}.example.org",
        "[::1]:{port}",
    ],
)
async def test_other_hosts_are_refused(host: str) -> None:
    """The Host header names the mirror, or nothing is served."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        head = f"GET /go/x HTTP/1.1\r\nHost: {host.format(port=session.port)}\r\nConnection: close\r\n\r\n"
        answered = await exchange(session.port, head.encode())
    assert status_of(answered) in (400, 421)
    assert server.heads == []


async def test_several_requests_on_one_connection_are_several() -> None:
    """Pipelined requests are answered one by one, each checked by itself."""
    async with (
        RawServer(lambda head: answer(head.split()[1].encode())) as server,
        mirrored(registry_at(server.url)) as s,
    ):
        host = f"Host: 127.0.0.1:{s.port}\r\n"
        answered = await exchange(
            s.port,
            "".join(f"GET /go/{path} HTTP/1.1\r\n{host}\r\n" for path in ("a", "../b", "c")).encode(),
        )
    assert answered.count(b"HTTP/1.1 ") == 2
    assert [head.split()[1] for head in server.heads] == ["/a"]


async def test_slow_head_costs_only_its_connection() -> None:
    """Connections that send a byte now and then are closed, and the next in the queue is served."""
    async with (
        RawServer(lambda _: answer(b"x")) as server,
        mirrored(registry_at(server.url), connections=SLOW_HEAD) as session,
    ):

        async def drip() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", session.port)
            with contextlib.closing(writer), contextlib.suppress(OSError):
                for letter in b"GET /go/x HTTP/1.1\r\n" * 20:
                    writer.write(bytes([letter]))
                    await writer.drain()
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            drips = [group.create_task(drip()) for _ in range(4)]
            await asyncio.sleep(0.1)
            assert (await ask(session.port, "/go/x"))[0] == 200
            for each in drips:
                each.cancel()


@pytest.mark.parametrize(
    "bomb",
    [b"GET /go/x HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, b"GET /go/" + b"x" * 1_000_000, b"X" * 1_000_000,
     b"GET /go/x HTTP/1.1\r\nX: " + b"y" * 1_000_000, b"\r\n" * 100_000, b"\x00" * 100_000],
)  # fmt: skip
async def test_header_bomb_is_cut_off(bomb: bytes) -> None:
    """A head without end is refused after some kilobytes, and the mirror lives on."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        answered = await exchange(session.port, bomb)
        assert answered == b"" or status_of(answered) in (400, 431)
        assert (await ask(session.port, "/go/x"))[0] == 200


async def test_connections_that_are_reset_at_once_cost_nothing() -> None:
    """Hundreds of connections that end before they begin leave every place free."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", session.port)) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.sleep(0)
        assert (await ask(session.port, "/go/x"))[0] == 200


async def test_random_bytes_never_fell_a_gateway() -> None:
    """A thousand damaged requests to mirror and proxy: each gets an answer or a closed connection."""
    chance = random.Random(20)
    async with (
        RawServer(lambda _: answer(b"x")) as server,
        mirrored(registry_at(server.url)) as session,
        proxied(f"127.0.0.1:{server.port}") as proxy,
    ):
        good = (
            (
                session.port,
                b"GET /go/x HTTP/1.1\r\n" + HOST % session.port + b"Accept: */*\r\nConnection: close\r\n\r\n",
            ),
            (proxy.port, f"GET {server.url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab".encode()),
            (proxy.port, f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode()),
        )
        for number in range(1000):
            port, request = good[number % len(good)]
            damaged = bytearray(request)
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(len(damaged))
                damaged[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(damaged)
            writer.write_eof()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()
        assert (await ask(session.port, "/go/x"))[0] == 200
