"""What a registry, or a file server that it names, does to the mirror that asks it."""

import asyncio
import gzip
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.egress.ledger import MirrorBounds
from sandbox.egress.registry import Credentials, RegistryKind
from tests.support.mirrors import ask, exchange, mirrored, registry_at, status_of
from tests.support.raw_server import Answer, RawServer, answer, head_value

HOST = b"Host: 127.0.0.1:%d\r\n"
SECRET = Credentials(token="planted-secret")


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:{other}/x", "//127.0.0.1:{other}/x",
     "https://127.0.0.1:{port}/registry/x", "http://127.0.0.1:{port}@127.0.0.1:{other}/x", "file:///etc/passwd",
     "http://localhost:{port}/registry/x", "/outside", "../outside", "http://127.0.0.1:{port}/registry/%2e%2e/outside",
     "http://u:p@127.0.0.1:{port}/registry/x", "http://[::1", "gopher://127.0.0.1/", "http://127.0.0.1:99999/",
     "http://127.0.0.1:{port}/registry\\x", ""],
)  # fmt: skip
async def test_redirect_elsewhere_is_refused(location: str) -> None:
    """A registry that sends us to another host, another folder or another protocol is not followed."""
    async with RawServer(lambda _: answer(b"other")) as other:

        def moved(head: str) -> bytes:
            if not head.startswith("GET /registry/x"):
                return answer(b"outside")
            place = location.format(port=server.port, other=other.port)
            return answer(status="302 Found", Location=place) if len(server.heads) < 9 else answer(b"loop")

        async with (
            RawServer(moved) as server,
            mirrored(registry_at(f"{server.url}/registry", credentials=SECRET)) as session,
        ):
            status, _, body = await ask(session.port, "/go/x")
    assert (status, b"other" in body, b"outside" in body) == (502, False, False)
    assert other.heads == []
    assert all(head.startswith("GET /registry/x ") for head in server.heads)
    assert "registry go" in session.failures[0].reason


async def test_credentials_stay_with_their_registry() -> None:
    """A redirect to a download host is followed without the login, and back again with it."""
    async with RawServer(lambda _: answer(b"file")) as files:

        def moved(_head: str) -> bytes:
            return answer(status="307 Temporary Redirect", Location=f"http://127.0.0.1:{files.port}/f")

        async with RawServer(moved) as server:
            described = registry_at(
                server.url, credentials=SECRET, download_hosts=(f"127.0.0.1:{files.port}",)
            )
            async with mirrored(described) as session:
                assert (await ask(session.port, "/go/x"))[::2] == (200, b"file")
                assert (await ask(session.port, "/go~1/g"))[::2] == (200, b"file")
    assert head_value(server.heads[0], "Authorization") == "Bearer planted-secret"
    assert [head_value(head, "Authorization") for head in files.heads] == [None, None]


async def test_refused_credentials_are_our_failure_and_do_not_show() -> None:
    """A registry that refuses the operator's login is told by name; the challenge does not come in."""
    refused = answer(b"who?", status="401 Unauthorized", WWW_Authenticate="Basic realm=planted-secret")
    async with (
        RawServer(lambda _: refused) as server,
        mirrored(registry_at(server.url, credentials=SECRET)) as s,
    ):
        status, headers, body = await ask(s.port, "/go/x")
    assert (status, "www-authenticate" in headers) == (502, False)
    assert s.failures[0].reason == "registry go refuses our credentials (401)"
    assert b"planted" not in body


async def test_endless_redirects_end() -> None:
    """A registry that redirects for ever is left after a few steps."""
    loop = answer(status="301 Moved Permanently", Location="/x")
    async with RawServer(lambda _: loop) as server, mirrored(registry_at(server.url)) as session:
        assert (await ask(session.port, "/go/x"))[0] == 502
    assert len(server.heads) <= 7


async def endless(head: bytes, piece: bytes) -> AsyncIterator[bytes]:
    yield head
    while True:
        yield piece
        await asyncio.sleep(0)


BOUNDS = MirrorBounds(file_bytes=300_000, session_bytes=500_000, fetch_s=5.0)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ],
)
async def test_file_without_end_is_cut_off(head: bytes) -> None:
    """A file larger than allowed is refused where it says so, and cut where it does not."""

    def respond(_head: str) -> Answer:
        return endless(head, b"x" * 10_000)

    async with RawServer(respond) as server, mirrored(registry_at(server.url), bounds=BOUNDS) as session:
        answered = await exchange(
            session.port, b"GET /go/x HTTP/1.1\r\n" + HOST % session.port + b"Connection: close\r\n\r\n"
        )
    assert len(answered) < 400_000
    assert not answered.endswith(b"0\r\n\r\n") or status_of(answered) == 502
    assert "larger than 300000 bytes" in session.failures[0].reason
    assert session.fetched == []


async def test_compressed_bomb_ends_at_the_bound() -> None:
    """A description that unpacks to gigabytes costs its bound, not memory."""
    bomb = gzip.compress(bytes(50_000_000))
    packed = answer(bomb, Content_Encoding="gzip", Content_Type="application/json")
    async with (
        RawServer(lambda _: packed) as server,
        mirrored(registry_at(server.url, RegistryKind.NPM), bounds=BOUNDS) as session,
    ):
        answered = await exchange(session.port, b"GET /npm/x HTTP/1.1\r\n" + HOST % session.port + b"\r\n")
    assert len(bomb) < 100_000
    assert len(answered) < 400_000
    assert session.ledger.total_bytes <= BOUNDS.session_bytes


async def test_session_has_a_bound_over_all_files() -> None:
    """Many small files are bounded together."""
    async with (
        RawServer(lambda _: answer(bytes(200_000))) as server,
        mirrored(registry_at(server.url), bounds=BOUNDS) as session,
    ):
        statuses = [(await ask(session.port, f"/go/{number}"))[0] for number in range(4)]
    assert statuses == [200, 200, 502, 502]


async def test_requests_of_a_session_are_counted() -> None:
    """After so many requests there are no more."""
    async with (
        RawServer(lambda _: answer(b"x")) as server,
        mirrored(registry_at(server.url), bounds=MirrorBounds(requests=2)) as session,
    ):
        statuses = [(await ask(session.port, "/go/x"))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_registry_that_stalls_is_left() -> None:
    """A registry that sends a byte now and then is given up after the time that one answer may take."""

    async def trickle() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    async with (
        RawServer(lambda _: trickle()) as server,
        mirrored(registry_at(server.url), bounds=MirrorBounds(fetch_s=0.5)) as session,
    ):
        began_s = time.monotonic()
        await exchange(session.port, b"GET /go/x HTTP/1.1\r\n" + HOST % session.port + b"\r\n")
        assert time.monotonic() - began_s < 5
    assert session.failures[0].reason == "registry go cannot be reached (it does not answer in time)"


async def test_rate_is_bounded() -> None:
    """More bytes a second than allowed are held back."""
    slow = MirrorBounds(bytes_per_s=200_000)
    async with (
        RawServer(lambda _: answer(bytes(300_000))) as server,
        mirrored(registry_at(server.url), bounds=slow) as session,
    ):
        began_s = time.monotonic()
        assert len((await ask(session.port, "/go/x"))[2]) == 300_000
        assert time.monotonic() - began_s > 0.8


BROKEN = [
    b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nETag: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nETag: a\x00b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nETag: a\rX: b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nabcde",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\nabc",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    answer(b"abc", Content_Type="application/json", Content_Encoding="gzip"),
    answer(b"abc", Content_Type="application/json", Content_Encoding="br"),
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nold",
    b"HTTP/1.1 200 OK\r\nLink: <http://x\xff>\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("kind", [RegistryKind.NPM, RegistryKind.GO])
@pytest.mark.parametrize("bad", BROKEN)
async def test_registry_that_speaks_nonsense_costs_its_answer_only(bad: bytes, kind: RegistryKind) -> None:
    """Whatever a registry sends, one well-formed answer comes in or the connection is cut; the next works."""
    is_good = False
    async with (
        RawServer(lambda _: answer(b"good") if is_good else bad) as server,
        mirrored(registry_at(server.url, kind)) as session,
    ):
        ask_for = f"/{kind}/x"
        answered = await exchange(
            session.port,
            f"GET {ask_for} HTTP/1.1\r\n".encode() + HOST % session.port + b"Connection: close\r\n\r\n",
        )
        assert answered.count(b"HTTP/1.1 ") <= 1
        assert b"\r\nX: b" not in answered
        is_good = True
        assert (await ask(session.port, ask_for))[::2] == (200, b"good")


async def test_registry_cannot_name_the_mirror_a_place() -> None:
    """Locations and links of a registry never reach the program but as the mirror's own."""

    def linked(head: str) -> bytes:
        url = f"http://{head_value(head, 'Host')}"
        return answer(
            b"{}", Content_Type="application/json", Link=f"<{url}/a>; rel=next", Location=f"{url}/b"
        )

    async with RawServer(linked) as server, mirrored(registry_at(server.url, RegistryKind.SWIFT)) as session:
        _, headers, _ = await ask(session.port, "/swift/x")
    assert headers["link"] == f"<http://127.0.0.1:{session.port}/swift/a>; rel=next"
    assert "location" not in headers


@pytest.mark.parametrize("name", ["out", "folder/up", "absolute", "loop", "fifo", "device", "proc"])
async def test_folder_registry_lets_nothing_out(tmp_path: Path, name: str) -> None:
    """Links out of the folder, FIFOs and devices are not there for the mirror; a link inside is."""
    folder = tmp_path / "registry"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "file").write_text("file")
    (folder / "inside").symlink_to("file")
    (folder / "out").symlink_to("../secret")
    (folder / "folder/up").symlink_to("../../secret")
    (folder / "absolute").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to("loop")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "proc").symlink_to("/proc/self/environ")
    os.mkfifo(folder / "fifo")
    async with mirrored(registry_at(f"file://{folder}")) as session:
        assert (await ask(session.port, f"/go/{name}"))[0] == 404
        assert (await ask(session.port, "/go/inside"))[::2] == (200, b"file")
