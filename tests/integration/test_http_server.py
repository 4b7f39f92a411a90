"""The HTTP server answers JSON, on loopback, to requests that name it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from blueprint.errors import ConfigError
from blueprint.http.outputs import OutputStore
from blueprint.http.server import HttpServer, Readiness


class Node:
    """A running server, its store, and the readiness that it reports."""

    def __init__(self, folder: Path) -> None:
        self.store = OutputStore(folder, max_bytes=10_000, item_max_bytes=10_000)
        self.readiness = Readiness(is_ready=True, details={"head": 7})
        self.server = HttpServer(
            host="127.0.0.1",
            port=0,
            readiness=self.report,
            outputs=self.store,
            allowed_hosts=["node.test"],
        )

    async def report(self) -> Readiness:
        """Return what the test has set."""
        return self.readiness


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A server on a free port."""
    made = Node(tmp_path)
    async with made.server:
        yield made


@pytest.fixture
async def client(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that server."""
    async with httpx.AsyncClient(base_url=node.server.url, trust_env=False) as made:
        yield made


async def test_healthz_says_alive(client: httpx.AsyncClient) -> None:
    """A process that serves is alive."""
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_readyz_says_ready_with_details(client: httpx.AsyncClient) -> None:
    """A node that is caught up answers 200 with its figures."""
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "reason": "", "head": 7})


async def test_readyz_gives_the_reason_when_not_ready(node: Node, client: httpx.AsyncClient) -> None:
    """A node that is behind answers 503 and why."""
    node.readiness = Readiness(is_ready=False, reason="42 blocks behind")
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["reason"]) == (503, "42 blocks behind")


async def test_output_is_served_with_safe_headers(node: Node, client: httpx.AsyncClient) -> None:
    """An output comes back whole, immutable, and never as something that a browser would run."""
    data = b"<script>alert(1)</script>" * 100
    digest = node.store.put(data)
    response = await client.get(f"/outputs/{digest}")
    assert hashlib.sha256(response.content).hexdigest() == digest
    expected = {
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
        "cache-control": "public, max-age=31536000, immutable",
        "content-disposition": "attachment",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    assert {name: response.headers.get(name) for name in expected} == expected


async def test_known_output_is_not_sent_again(node: Node, client: httpx.AsyncClient) -> None:
    """A client that has the bytes is told so without a body."""
    digest = node.store.put(b"known")
    response = await client.get(f"/outputs/{digest}", headers={"If-None-Match": f'"{digest}"'})
    assert (response.status_code, response.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/outputs/" + "0" * 64,
        "/outputs/..%2f..%2fetc%2fpasswd",
        "/outputs/",
        "/outputs/" + "a" * 200,
        "/",
        "/etc",
    ],
)
async def test_unknown_paths_are_json_404(client: httpx.AsyncClient, path: str) -> None:
    """Whatever does not exist is a JSON 404 that is not cached."""
    response = await client.get(path)
    assert (response.status_code, response.json()["status"]) == (404, 404)
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_writing_methods_are_refused(client: httpx.AsyncClient, method: str) -> None:
    """The server is read only and says which methods it has."""
    response = await client.request(method, "/healthz", content=b"x" * 10_000)
    assert (response.status_code, response.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:8547", 200),
        ("node.test", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost:80:80", 421),
        ("localhost:x", 421),
    ],
)
async def test_host_header_must_name_the_server(client: httpx.AsyncClient, host: str, status: int) -> None:
    """A request whose Host is another name (a rebound one) is refused before anything is read."""
    response = await client.get("/healthz", headers={"Host": host})
    assert response.status_code == status


async def test_giant_header_is_refused(client: httpx.AsyncClient) -> None:
    """A header over the cap is a client error, and the server goes on serving."""
    response = await client.get("/healthz", headers={"X-Big": "a" * 20_000})
    assert response.status_code == 400
    assert (await client.get("/healthz")).status_code == 200


async def test_taken_port_is_a_config_error(node: Node) -> None:
    """A port that is in use is named, with the setting that changes it."""
    port = int(node.server.url.rpartition(":")[2])
    second = HttpServer(host="127.0.0.1", port=port, readiness=node.report, outputs=node.store)
    with pytest.raises(ConfigError, match="BLUEPRINT_HTTP_PORT"):
        async with second:
            pass


async def test_port_is_free_after_leaving(tmp_path: Path) -> None:
    """Leaving closes the listener."""
    made = Node(tmp_path)
    async with made.server:
        port = int(made.server.url.rpartition(":")[2])
    with pytest.raises(OSError, match=r"\d"):
        await asyncio.open_connection("127.0.0.1", port)
