"""The mirror: the only thing that an installation can reach, and through it only the configured registries.

Invariant: what leaves is a GET or HEAD made anew from checked parts, to an address in an area of a registry
of this session; what comes back is chosen header by header, bounded in bytes and time, and written down.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import h11
import httpx

from sandbox.egress.connection import ConnectionBounds, HttpConnection, serve_connections
from sandbox.egress.download_hosts import ask_for_download_hosts
from sandbox.egress.exchange import Exchange
from sandbox.egress.ledger import Failure, Fetched, Ledger, MirrorBounds, RefusedError
from sandbox.egress.registry import Registry, RegistryConfigError, RegistryKind, clean_path

__all__ = ["MIRROR_PORT", "Mirror", "MirrorSession"]

MIRROR_PORT = 8081
_CLIENT_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TARGET_LENGTH = 4096
_TARGET = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*(\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*)?")


class Mirror:
    """Holds the registries and the connections to them; each installation gets a session of its own.

    Args:
        registries: what can be reached.
        of_host: says what of a kind can be reached where ``registries`` has none; called in a thread, once.
        bounds: what one session may take.
        connections: what the programs of one session may take of us.
        port: where sessions listen inside.
    """

    def __init__(
        self,
        registries: Sequence[Registry],
        bounds: MirrorBounds | None = None,
        connections: ConnectionBounds | None = None,
        *,
        of_host: Callable[[RegistryKind], Sequence[Registry]] | None = None,
        port: int = MIRROR_PORT,
    ) -> None:
        names = [registry.name for registry in registries]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise RegistryConfigError(f"registries: {min(doubled)} is configured twice")
        self._registries = {registry.name: registry for registry in registries}
        self._bounds = bounds or MirrorBounds()
        self._connections = connections or ConnectionBounds()
        self._of_host = of_host
        self._port = port
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def session(self, kind: RegistryKind) -> "MirrorSession":
        """Make what one installation can reach: the registries of one kind, the first preferred.

        Raises:
            RegistryConfigError: there is none, or it makes no sense; the message says how to name one.
        """
        found = [registry for registry in self._registries.values() if registry.kind is kind]
        if not found and self._of_host is not None:
            found = [*await asyncio.to_thread(self._of_host, kind)]
        if not found:
            raise RegistryConfigError(
                f"no {kind} registry is configured; configure the tool of this host, or name one in "
                f'blueprint.toml: [registries.{kind}] with kind = "{kind}" and url = "..."'
            )
        for registry in found:
            hosts = registry.download_hosts
            if hosts is None:
                hosts = await ask_for_download_hosts(registry, self.client(registry))
            self._registries[registry.name] = replace(registry, download_hosts=hosts)
        ready = [self._registries[registry.name] for registry in found]
        return MirrorSession(self, ready, self._bounds, self._connections, port=self._port)

    def client(self, registry: Registry) -> httpx.AsyncClient:
        """Return the client of a registry: no cookies, redirects and credentials of its own."""
        client = self._clients.get(registry.name)
        if client is None:
            context = ssl.create_default_context(cafile=registry.ca_file or None)
            client = httpx.AsyncClient(
                verify=context,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                follow_redirects=False,
                timeout=_CLIENT_TIMEOUT,
            )
            self._clients[registry.name] = client
        return client

    async def aclose(self) -> None:
        """Close the connections to the registries."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


class MirrorSession:
    """What one installation can reach, and the books of it; a gateway of its stage.

    Attributes:
        ledger: what was fetched and what failed.
    """

    name = "registries"

    def __init__(
        self,
        mirror: Mirror,
        registries: Sequence[Registry],
        bounds: MirrorBounds,
        connections: ConnectionBounds,
        *,
        port: int,
    ) -> None:
        self.port = port
        self.registries = tuple(registries)
        self.ledger = Ledger(bounds)
        self._mirror = mirror
        self._connections = connections
        self._url = f"http://127.0.0.1:{port}"
        self._names = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._areas = {
            area.segment: (registry, area) for registry in self.registries for area in registry.areas
        }

    @property
    def fetched(self) -> Sequence[Fetched]:
        """What was passed inside completely, in order."""
        return self.ledger.fetched

    @property
    def failures(self) -> Sequence[Failure]:
        """What the registries failed at, in order."""
        return self.ledger.failures

    def url_of(self, registry: Registry) -> str:
        """Return the address that the tool inside is given for a registry, without a slash at its end."""
        return f"{self._url}{registry.inside_path}"

    async def serve(self, listener: socket.socket) -> None:
        """Serve the programs inside until cancelled."""
        await serve_connections(listener, self._serve_connection, self._connections)

    async def _serve_connection(self, connection: HttpConnection) -> None:
        while (request := await connection.next_request()) is not None:
            try:
                exchange = self._exchange(connection, request)
                await connection.next_event()
                await exchange.run()
            except RefusedError as refused:
                if refused.registry:
                    self.ledger.failures.append(
                        Failure(
                            registry=refused.registry,
                            reason=refused.why,
                            is_unreachable=refused.is_unreachable,
                        )
                    )
                if connection.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                    raise ConnectionAbortedError from refused  # the answer has begun: cut it short
                await connection.refuse(refused.status, refused.why)

    def _exchange(self, connection: HttpConnection, request: h11.Request) -> Exchange:
        """Check a request part by part, and say what it asks for."""
        self.ledger.count_request()
        method, headers = request.method.decode("ascii"), dict(request.headers)
        if method not in ("GET", "HEAD"):
            raise RefusedError(405, "only GET and HEAD are served")
        # SECURITY: no body, so nothing can be smuggled behind one: test_smuggled_requests_are_refused.
        if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
            raise RefusedError(400, "a request with a body is not served")
        if headers.get(b"host", b"").decode("ascii", "replace").lower() not in self._names:
            raise RefusedError(421, "the Host header does not name this mirror")
        target = request.target.decode("ascii", "replace")
        if len(target) > _TARGET_LENGTH or not _TARGET.fullmatch(target):
            raise RefusedError(400, "the path is not served: it is too long, or holds what a path may not")
        path, _, query = target.partition("?")
        segment, _, below = path[1:].partition("/")
        if segment not in self._areas:
            raise RefusedError(404, "no registry of this name can be reached from here")
        registry, area = self._areas[segment]
        if clean_path(below) is None:
            raise RefusedError(400, "the path is not served: it plays tricks")
        return Exchange(
            connection=connection,
            ledger=self.ledger,
            registry=registry,
            area=area,
            method=method,
            path=below,
            query=query,
            headers=headers,
            mirror_url=self._url,
            client=self._mirror.client,
        )
