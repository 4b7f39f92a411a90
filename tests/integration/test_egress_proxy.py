"""The proxy of an egress policy between a program and real servers on loopback."""

import asyncio
import urllib.request

import httpx
import pytest

from sandbox.egress.policy import Destination, EgressBounds, proxy_environment
from sandbox.egress.proxy import Resolve
from tests.support.mirrors import exchange, status_of
from tests.support.proxies import proxied, resolving_to
from tests.support.raw_server import RawServer, answer, head_value

GET = "GET / HTTP/1.1\r\n\r\n"
METADATA = "169.254.169.254"


def tunnel_to(authority: str, then: str = "") -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n{then}".encode()


async def test_plain_http_passes_to_what_the_policy_names() -> None:
    """An absolute-form request arrives as an origin-form one, without the proxy's own headers."""
    async with (
        RawServer(lambda _: answer(b"hello", X_Kind="test")) as server,
        proxied(f"127.0.0.1:{server.port}") as proxy,
        httpx.AsyncClient(proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        got = await client.get(f"{server.url}/a/b?c=d", headers={"Proxy-Authorization": "Basic eDp5"})
    head = server.heads[0]
    assert (got.status_code, got.text, got.headers["x-kind"]) == (200, "hello", "test")
    assert head.startswith("GET /a/b?c=d HTTP/1.1\r\n")
    assert head_value(head, "Host") == f"127.0.0.1:{server.port}"
    assert head_value(head, "Proxy-Authorization") is None
    (contact,) = proxy.contacts
    assert (contact.host, contact.port, contact.connections) == ("127.0.0.1", server.port, 1)
    assert contact.received_bytes > len("hello")


async def test_body_is_sent_whole() -> None:
    """What a program posts arrives, with a length or in chunks."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            got.append(await reader.readuntil(b"0\r\n\r\n"))
        else:
            got.append(await reader.readexactly(300_000))
        writer.write(answer(b"ok"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def pieces():
        yield b"ab"
        yield b"cd"

    async with (
        server,
        proxied(f"127.0.0.1:{port}") as proxy,
        httpx.AsyncClient(proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        assert (await client.post(f"http://127.0.0.1:{port}/", content=bytes(300_000))).text == "ok"
        assert (await client.post(f"http://127.0.0.1:{port}/", content=pieces())).text == "ok"
    assert got == [bytes(300_000), b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"]


async def test_tunnel_passes_bytes_both_ways() -> None:
    """CONNECT opens a tunnel; what is sent at once with it is not lost; both directions are counted."""
    async with RawServer(lambda _: answer(b"through")) as server:
        authority = f"127.0.0.1:{server.port}"
        async with proxied(authority) as proxy:
            answered = await exchange(proxy.port, tunnel_to(authority, GET))
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert answered.endswith(b"\r\n\r\nthrough")
    assert proxy.contacts[0].sent_bytes == len(GET)


def test_standard_library_finds_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a program is given are those that Python's own client reads."""
    for name, value in proxy_environment(3128).items():
        monkeypatch.setenv(name, value)
    assert urllib.request.getproxies_environment()["https"] == "http://127.0.0.1:3128"
    assert not urllib.request.proxy_bypass_environment("127.0.0.1")


@pytest.mark.parametrize(
    "authority",
    ["127.0.0.1:{other}", "localhost:{port}", "other.test:443", "127.0.0.1.test:{port}", f"{METADATA}:80",
     "0.0.0.0:{port}", "[::1]:{port}", "[::ffff:127.0.0.1]:80", "2130706433:{port}", "0x7f000001:{port}",
     "127.1:{port}", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:{port}@x:1", "user@127.0.0.1:{port}", "x"],
)  # fmt: skip
async def test_what_no_pattern_names_is_refused(authority: str) -> None:
    """Other ports, other names, other spellings of an address: 403, and nothing is connected to."""
    async with RawServer(lambda _: answer(b"x")) as server, RawServer(lambda _: answer(b"x")) as other:
        authority = authority.format(port=server.port, other=other.port)
        async with proxied(f"127.0.0.1:{server.port}") as proxy:
            answered = await exchange(proxy.port, tunnel_to(authority, GET))
    assert status_of(answered) in (400, 403)
    assert server.heads == other.heads == []
    assert all(contact.connections == 0 for contact in proxy.contacts)


async def test_the_same_address_in_another_wrapping_is_the_same() -> None:
    """An IPv4 address mapped into IPv6 is judged as what it is."""
    async with RawServer(lambda _: answer(b"x")) as server, proxied(f"127.0.0.1:{server.port}") as proxy:
        answered = await exchange(proxy.port, tunnel_to(f"[::ffff:7f00:1]:{server.port}", GET))
    assert status_of(answered) == 200


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", METADATA, "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "fec0::1", "2001:db8::1", "2001::1", "240.0.0.1", "192.0.2.1"],
)  # fmt: skip
async def test_name_that_resolves_inwards_is_refused(address: str) -> None:
    """An allowed name opens no address of this machine, of its networks or of the cloud's metadata."""
    async with proxied("inwards.test:80", resolving=resolving_to(address)) as proxy:
        answered = await exchange(proxy.port, tunnel_to("inwards.test:80"))
    assert status_of(answered) == 403
    assert b"not public" in answered
    assert proxy.contacts[0].refused == 1


async def test_name_may_lead_to_an_address_that_the_policy_names_too() -> None:
    """An operator who names the network itself opens it for names as well."""
    async with RawServer(lambda _: answer(b"inner")) as server:
        allow = (f"inner.test:{server.port}", f"127.0.0.0/8:{server.port}")
        async with proxied(*allow, resolving=resolving_to("127.0.0.1")) as proxy:
            answered = await exchange(
                proxy.port, f"GET http://inner.test:{server.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
    assert answered.endswith(b"inner")
    assert head_value(server.heads[0], "Host") == f"inner.test:{server.port}"


async def test_rebinding_changes_nothing() -> None:
    """The address that was checked is the one that is connected to: a name is resolved once."""
    asked: list[Destination] = []

    def rebinding(*answers: str) -> Resolve:
        async def resolve(destination: Destination) -> list[str]:
            asked.append(destination)
            return [answers[min(len(asked), len(answers)) - 1]]

        return resolve

    async with RawServer(lambda _: answer(b"x")) as server:
        allow = (f"flip.test:{server.port}", f"127.0.0.1:{server.port}")
        async with proxied(*allow, resolving=rebinding("127.0.0.1", METADATA)) as proxy:
            first = await exchange(proxy.port, tunnel_to(f"flip.test:{server.port}", GET))
            assert len(asked) == 1
            second = await exchange(proxy.port, tunnel_to(f"flip.test:{server.port}"))
    assert (status_of(first), status_of(second)) == (200, 403)


async def test_mixed_answers_open_the_public_ones_only() -> None:
    """Of several addresses behind a name, those that may not be connected to are left out."""
    async with RawServer(lambda _: answer(b"x")) as server:
        resolving = resolving_to(METADATA, "127.0.0.1", "10.0.0.1")
        async with proxied(
            f"many.test:{server.port}", f"127.0.0.1:{server.port}", resolving=resolving
        ) as proxy:
            answered = await exchange(proxy.port, tunnel_to(f"many.test:{server.port}", GET))
    assert status_of(answered) == 200


async def test_names_that_do_not_resolve_hold_up_nobody() -> None:
    """However many names a program has resolved, two are asked for until they answer; addresses need none."""
    asked = 0

    async def never(_destination: Destination) -> list[str]:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return []

    async with RawServer(lambda _: answer(b"x")) as server:
        allow = ("*.slow.test:80", f"127.0.0.1:{server.port}")
        bounds = EgressBounds(connect_s=1.0)
        async with proxied(*allow, resolving=never, bounds=bounds) as proxy, asyncio.TaskGroup() as group:
            slow = [
                group.create_task(exchange(proxy.port, tunnel_to(f"n{number}.slow.test:80")))
                for number in range(8)
            ]
            quick = await exchange(proxy.port, tunnel_to(f"127.0.0.1:{server.port}", GET))
            assert not any(task.done() for task in slow)
            await asyncio.wait(slow)
            slow.append(group.create_task(exchange(proxy.port, tunnel_to("late.slow.test:80"))))
    assert status_of(quick) == 200
    assert asked == 2
    assert {status_of(task.result()) for task in slow} == {502}


async def test_wildcard_names_what_is_below_it_only() -> None:
    """``*.example.test`` is any name below it, not itself, and not one that merely ends alike."""
    resolving = resolving_to("10.0.0.1")
    async with proxied("*.example.test:443", resolving=resolving) as proxy:
        for name, why in (
            ("a.example.test", b"not public"),
            ("a.b.example.test.", b"not public"),
            ("A.Example.TEST", b"not public"),
            ("example.test", b"does not allow"),
            ("badexample.test", b"does not allow"),
            ("a.example.test.evil.test", b"does not allow"),
        ):
            assert why in await exchange(proxy.port, tunnel_to(f"{name}:443")), name


async def test_request_with_two_lengths_smuggles_nothing() -> None:
    """A body with both framings arrives with one, and what follows it is no second request."""
    hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    async with RawServer(lambda _: answer(b"x")) as server, proxied(f"127.0.0.1:{server.port}") as proxy:
        await exchange(
            proxy.port,
            f"POST {server.url}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}".encode(),
        )
    (head,) = server.heads
    assert head_value(head, "Content-Length") is None
    assert head_value(head, "Transfer-Encoding") == "chunked"


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", "GET https://127.0.0.1/ HTTP/1.1", "GET ftp://127.0.0.1/ HTTP/1.1",
     "GET http:/// HTTP/1.1", "GET http://[::1/ HTTP/1.1", "GET http://a@127.0.0.1/ HTTP/1.1",
     "GET file:///etc/passwd HTTP/1.1", "OPTIONS * HTTP/1.1"],
)  # fmt: skip
async def test_what_is_not_a_proxy_request_is_refused(request_line: str) -> None:
    """Origin-form, other schemes and broken addresses get 403 and go nowhere."""
    async with proxied("127.0.0.1:80") as proxy:
        answered = await exchange(proxy.port, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert status_of(answered) == 403
    assert list(proxy.contacts) == []


async def test_bytes_are_bounded() -> None:
    """A run that has had its share is cut off, in the middle of an answer."""
    async with (
        RawServer(lambda _: answer(bytes(1_000_000))) as server,
        proxied(f"127.0.0.1:{server.port}", bounds=EgressBounds(total_bytes=200_000)) as proxy,
    ):
        tunnelled = await exchange(proxy.port, tunnel_to(f"127.0.0.1:{server.port}", GET))
        assert len(tunnelled) <= 200_200
        plain = await exchange(proxy.port, f"GET {server.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status_of(plain) == 429


async def test_connections_are_bounded() -> None:
    """After so many connections there are no more."""
    async with RawServer(lambda _: answer(b"x")) as server:
        bounds = EgressBounds(total_connections=2)
        async with proxied(f"127.0.0.1:{server.port}", bounds=bounds) as proxy:
            ask = f"GET {server.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            statuses = [status_of(await exchange(proxy.port, ask)) for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_list_of_contacts_is_bounded() -> None:
    """A program that tries a thousand names does not make the list a thousand long."""
    async with proxied("x.test:1") as proxy:
        for number in range(220):
            await exchange(proxy.port, tunnel_to(f"n{number}.test:443"))
    assert len(proxy.contacts) == 201
    assert (proxy.contacts[-1].host, proxy.contacts[-1].refused) == ("(others)", 20)


BROKEN = [
    b"",
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
]


@pytest.mark.parametrize("bad", BROKEN)
async def test_destination_that_speaks_nonsense_costs_its_connection_only(bad: bytes) -> None:
    """Broken answers end in 502 or a cut connection, and the proxy goes on."""
    async with (
        RawServer(lambda _: bad) as server,
        RawServer(lambda _: answer(b"good")) as good,
        proxied(f"127.0.0.1:{server.port}", f"127.0.0.1:{good.port}") as proxy,
    ):
        answered = await exchange(proxy.port, f"GET {server.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert not answered.endswith(b"0\r\n\r\n")
        after = await exchange(proxy.port, f"GET {good.url}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert after.endswith(b"good")


async def test_destination_that_is_down_is_told() -> None:
    """Nothing listens there: 502."""
    async with RawServer(lambda _: b"") as gone:
        port = gone.port
    async with proxied(f"127.0.0.1:{port}") as proxy:
        assert status_of(await exchange(proxy.port, tunnel_to(f"127.0.0.1:{port}"))) == 502
