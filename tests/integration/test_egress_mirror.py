"""The mirror between a real client and real servers on loopback: what passes, and how."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from sandbox.egress.ledger import Fetched
from sandbox.egress.registry import Credentials, RegistryConfigError, RegistryKind
from tests.support.mirrors import ask, mirrored, registry_at
from tests.support.raw_server import RawServer, answer, head_value

HTML = {"Content_Type": "text/html"}
JSON = {"Content_Type": "application/json"}


async def test_file_passes_unchanged_and_is_written_down() -> None:
    """A file arrives byte for byte, and the books say which, how large and with which digest."""
    content = bytes(range(256)) * 1000
    async with RawServer(lambda _: answer(content)) as server, mirrored(registry_at(server.url)) as session:
        status, _, body = await ask(session.port, "/go/rsc.io/quote/@v/v1.5.2.zip")
    assert (status, body) == (200, content)
    assert session.fetched == [
        Fetched(
            registry="go",
            path="/go/rsc.io/quote/@v/v1.5.2.zip",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
    ]
    assert session.failures == []


async def test_only_listed_headers_leave() -> None:
    """What a program says about itself stays here; what caching and content negotiation need goes out."""
    async with RawServer(lambda _: answer(b"x")) as server, mirrored(registry_at(server.url)) as session:
        await ask(
            session.port, "/go/x/@v/list", "Cookie: a=b", "Authorization: Basic eDp5", "X-Secret: 1",
            "User-Agent: tool", 'If-None-Match: "e"', "Accept: text/plain", "Range: bytes=0-3",
        )  # fmt: skip
        head = server.heads[0]
    assert head_value(head, "If-None-Match") == '"e"'
    assert (head_value(head, "Accept"), head_value(head, "Range")) == ("text/plain", "bytes=0-3")
    assert head_value(head, "Host") == f"127.0.0.1:{server.port}"
    assert head_value(head, "User-Agent") == "tee-job-node"
    assert [head_value(head, name) for name in ("Cookie", "Authorization", "X-Secret")] == [None] * 3


async def test_only_listed_headers_come_in() -> None:
    """Cookies, servers' names and hints to other connections are not passed inside."""
    noisy = answer(
        b"x", Set_Cookie="a=b", Server="s", Alt_Svc='h3=":443"', ETag='"e"', Content_Type="text/plain"
    )
    async with RawServer(lambda _: noisy) as server, mirrored(registry_at(server.url)) as session:
        _, headers, _ = await ask(session.port, "/go/x")
        await ask(session.port, "/go/x")
        assert head_value(server.heads[1], "Cookie") is None
    assert headers == {
        "content-type": "text/plain", "content-length": "1", "etag": '"e"', "connection": "close",
    }  # fmt: skip


async def test_credentials_are_added_outside() -> None:
    """The registry learns who the operator is; the program inside sends nothing and sees nothing."""
    who = Credentials(username="ann", password="secret")
    async with (
        RawServer(lambda _: answer(b"x")) as server,
        mirrored(registry_at(server.url, credentials=who)) as session,
    ):
        await ask(session.port, "/go/x")
    assert head_value(server.heads[0], "Authorization") == "Basic YW5uOnNlY3JldA=="
    assert "secret" not in repr(session.registries)


async def test_python_index_is_rewritten_wherever_its_files_lie() -> None:
    """Links to a download host, links from the root and links beside the index all lead to the mirror."""
    async with RawServer(lambda head: answer(head.split()[1].encode())) as files:

        def index(_head: str) -> bytes:
            page = (
                f'<a href="{files.url}/a.whl#sha256=1">a</a> <a href="/b.whl">b</a> <a href="../c.whl">c</a>'
            )
            return answer(page.encode(), **HTML)

        async with RawServer(index) as server:
            described = registry_at(
                f"{server.url}/simple/", RegistryKind.PYPI, download_hosts=(f"127.0.0.1:{files.port}",)
            )
            async with mirrored(described) as session:
                assert session.url_of(described) == f"http://127.0.0.1:{session.port}/pypi/simple"
                _, _, page = await ask(session.port, "/pypi/simple/a/")
                got = await ask(session.port, "/pypi~1/a.whl")
    assert page.decode() == (
        f'<a href="http://127.0.0.1:{session.port}/pypi~1/a.whl#sha256=1">a</a> <a href="/pypi/b.whl">b</a> '
        '<a href="../c.whl">c</a>'
    )
    assert (got[0], got[2]) == (200, b"/a.whl")


async def test_download_hosts_are_asked_of_the_index() -> None:
    """Without configured hosts the page of pip says where the files are; no other page is believed."""
    async with RawServer(lambda _: answer(b"wheel")) as files, RawServer(lambda _: answer(b"x")) as foreign:

        def index(head: str) -> bytes:
            server = files if head.startswith("GET /simple/pip/ ") else foreign
            return answer(f'<a href="{server.url}/x.whl">x</a>'.encode(), **HTML)

        async with (
            RawServer(index) as server,
            mirrored(registry_at(f"{server.url}/simple", RegistryKind.PYPI)) as session,
        ):
            assert (await ask(session.port, "/pypi~1/x.whl"))[2] == b"wheel"
            _, _, page = await ask(session.port, "/pypi/simple/evil/")
            assert (await ask(session.port, "/pypi~2/x.whl"))[0] == 404
    assert foreign.url.encode() in page
    assert foreign.heads == []


async def test_packument_is_rewritten_and_unpacked() -> None:
    """A description for npm arrives in plain with tarballs at the mirror; the tarball itself is untouched."""

    def npm(head: str) -> bytes:
        url = f"http://{head_value(head, 'Host')}"
        if head.startswith("GET /up/npm/a "):
            packed = gzip.compress(json.dumps({"dist": {"tarball": f"{url}/up/npm/a/-/a-1.tgz"}}).encode())
            return answer(packed, Content_Encoding="gzip", **JSON)
        return answer(url.encode(), Content_Type="application/octet-stream")

    async with (
        RawServer(npm) as server,
        mirrored(registry_at(f"{server.url}/up/npm", RegistryKind.NPM)) as session,
    ):
        _, headers, body = await ask(session.port, "/npm/a")
        _, _, tarball = await ask(session.port, "/npm/a/-/a-1.tgz")
    assert json.loads(body)["dist"]["tarball"] == f"http://127.0.0.1:{session.port}/npm/a/-/a-1.tgz"
    assert "content-encoding" not in headers
    assert tarball.decode() == server.url
    assert [head_value(head, "Accept-Encoding") for head in server.heads] == ["gzip", "gzip"]


async def test_what_is_hashed_is_never_rewritten() -> None:
    """Maven's and Go's files hold addresses that are part of what is signed."""
    async with RawServer(
        lambda head: answer(f"http://{head_value(head, 'Host')}/".encode(), **JSON)
    ) as server:
        for kind in (RegistryKind.MAVEN, RegistryKind.GO):
            async with mirrored(registry_at(server.url, kind)) as session:
                assert (await ask(session.port, f"/{kind}/x"))[2].decode() == f"{server.url}/"


async def test_redirect_inside_the_registry_is_followed_by_the_mirror() -> None:
    """The program inside gets the file, not the redirect."""

    def moved(head: str) -> bytes:
        return answer(b"file") if head.startswith("GET /b ") else answer(status="302 Found", Location="/b#x")

    async with RawServer(moved) as server, mirrored(registry_at(server.url)) as session:
        assert (await ask(session.port, "/go/a"))[::2] == (200, b"file")


async def test_not_found_passes() -> None:
    """That a package does not exist is for the tool to judge."""
    async with (
        RawServer(lambda _: answer(b"nope", status="404 Not Found")) as server,
        mirrored(registry_at(server.url)) as session,
    ):
        assert (await ask(session.port, "/go/x"))[::2] == (404, b"nope")
    assert session.failures == []


async def test_head_and_not_modified_have_no_body() -> None:
    """HEAD tells the size; 304 passes."""
    async with (
        RawServer(
            lambda head: answer(b"four") if head.startswith("HEAD") else answer(status="304 Not Modified")
        ) as s,
        mirrored(registry_at(s.url)) as session,
    ):
        status, headers, body = await ask(session.port, "/go/x", method="HEAD")
        assert (status, headers["content-length"], body) == (200, "4", b"")
        assert (await ask(session.port, "/go/x"))[::2] == (304, b"")
    assert session.fetched == []


async def test_unreachable_registry_is_named_and_not_its_address() -> None:
    """A registry that is down is a bad gateway, and the session can say which."""
    async with RawServer(lambda _: b"") as gone:
        port = gone.port
    async with mirrored(registry_at(f"http://127.0.0.1:{port}")) as session:
        status, _, body = await ask(session.port, "/go/x")
    (failure,) = session.failures
    assert (status, body.decode().strip()) == (502, failure.reason)
    assert failure.reason == "registry go cannot be reached (no connection)"
    assert failure.is_unreachable
    assert str(port) not in failure.reason


async def test_kind_that_is_not_configured_is_told_with_the_fix() -> None:
    """Without a registry of a kind there is no session, and the message says what to write where."""
    with pytest.raises(RegistryConfigError, match=r"no npm registry .*\[registries.npm\]"):
        async with mirrored(registry_at("http://127.0.0.1:9"), kind=RegistryKind.NPM):
            pass


async def test_session_reaches_registries_of_its_kind_only() -> None:
    """An installation of Go modules cannot ask the npm registry."""
    async with (
        RawServer(lambda _: answer(b"x")) as server,
        mirrored(registry_at(server.url), registry_at(server.url, RegistryKind.NPM)) as session,
    ):
        assert (await ask(session.port, "/npm/x"))[0] == 404
    assert server.heads == []


async def test_folder_is_a_registry(tmp_path: Path) -> None:
    """Files of a ``file://`` registry are served, a folder by its index, with addresses rewritten."""
    (tmp_path / "simple/six").mkdir(parents=True)
    (tmp_path / "simple/six/index.html").write_text('<a href="../../six.whl">')
    (tmp_path / "six.whl").write_bytes(b"wheel")
    described = registry_at(f"file://{tmp_path}/simple", RegistryKind.PYPI)
    async with mirrored(described) as session:
        page = await ask(session.port, "/pypi/simple/six/")
        wheel = await ask(session.port, "/pypi/six.whl")
        absent = await ask(session.port, "/pypi/simple/seven/")
    assert page[::2] == (200, b'<a href="../../six.whl">')
    assert (wheel[0], wheel[1]["content-type"], wheel[2]) == (200, "application/octet-stream", b"wheel")
    assert absent[0] == 404


async def test_folder_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    """A registry whose folder is not there is told like one that is down."""
    async with mirrored(registry_at(f"file://{tmp_path}/gone")) as session:
        assert (await ask(session.port, "/go/x"))[0] == 502
    assert session.failures[0].is_unreachable
