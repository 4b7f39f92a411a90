"""The proxy of a named egress policy: what a run may reach of the world, HTTP in plain or through CONNECT.

Invariant: a connection is made to the very address that was checked, after the policy has named the
destination; a name is resolved here, once for each connection, and never inside.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import h11

from sandbox.egress.connection import PIECE_BYTES, ConnectionBounds, HttpConnection, serve_connections
from sandbox.egress.contacts import Contact, Contacts, SpentError
from sandbox.egress.forward import Forward
from sandbox.egress.policy import Destination, EgressPolicy, parse_destination, proxy_environment
from sandbox.result import NetworkContact

__all__ = ["PROXY_PORT", "EgressProxy", "Resolve", "resolve"]

PROXY_PORT = 3128
HTTP_PORT = 80
# SECURITY: names that never resolve hold up threads of their own, none that the node works with, and few for
# each run: test_names_that_do_not_resolve_hold_up_nobody.
RESOLVERS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="egress-resolver")
RESOLVED_AT_ONCE = 2
Resolve = Callable[[Destination], Awaitable[Sequence[str]]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ForbiddenError(Exception):
    """The policy does not allow it. It never leaves this package."""


async def resolve(destination: Destination) -> Sequence[str]:
    """Return the addresses of a destination, as this host resolves them.

    Raises:
        OSError: there are none.
    """
    ask = partial(socket.getaddrinfo, destination.host, destination.port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(RESOLVERS, ask)
    return [str(entry[4][0]) for entry in found]


class EgressProxy:
    """What one run can reach; a gateway of its stage.

    Args:
        policy: the operator's.
        resolve: turns a destination into addresses.
        port: where it listens inside.
    """

    def __init__(self, policy: EgressPolicy, resolve: Resolve = resolve, *, port: int = PROXY_PORT) -> None:
        self.name = policy.name
        self.port = port
        self._policy = policy
        self._resolve = resolve
        self._contacts = Contacts(policy.bounds)
        self._resolving = asyncio.Semaphore(RESOLVED_AT_ONCE)

    @property
    def contacts(self) -> Sequence[NetworkContact]:
        """What was contacted, and what was refused."""
        return self._contacts.listed()

    def environment(self) -> Mapping[str, str]:
        """Return the variables by which programs find the proxy."""
        return proxy_environment(self.port)

    async def serve(self, listener: socket.socket) -> None:
        """Serve the programs inside until cancelled."""
        bounds = ConnectionBounds(connections=self._policy.bounds.connections)
        await serve_connections(listener, self._serve_connection, bounds)

    async def _serve_connection(self, connection: HttpConnection) -> None:
        # One request for each connection: nothing of one can be taken for a part of another.
        request = await connection.next_request()
        if request is None:
            return
        try:
            if request.method == b"CONNECT":
                await self._tunnel(connection, request)
            else:
                await self._forward(connection, request)
        except ForbiddenError as exc:
            await _answer(connection, 403, str(exc))
        except SpentError as exc:
            await _answer(connection, 429, str(exc))
        except (OSError, TimeoutError) as exc:
            why = "nothing answers in time" if isinstance(exc, TimeoutError) else "no connection"
            await _answer(connection, 502, f"the destination cannot be reached ({why})")

    async def _tunnel(self, connection: HttpConnection, request: h11.Request) -> None:
        destination = parse_destination(request.target.decode("ascii", "replace"))
        if destination is None:
            raise ForbiddenError("CONNECT takes a host name or an address, and a port")
        await connection.next_event()
        async with self._connected(destination) as ((reader, writer), contact):
            await connection.send(h11.Response(status_code=200, headers=[]))
            early, _ = connection.protocol.trailing_data
            if early:
                self._contacts.count(contact, len(early), is_sent=True)
                writer.write(early)
            await self._relay(connection, reader, writer, contact)

    async def _relay(
        self,
        connection: HttpConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        contact: Contact,
    ) -> None:
        """Copy both ways until both have ended; after one has, the other has a while to end too."""
        loop = asyncio.get_running_loop()

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_sent: bool) -> None:
            while piece := await source.read(PIECE_BYTES):
                self._contacts.count(contact, len(piece), is_sent=is_sent)
                sink.write(piece)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
            clock.reschedule(loop.time() + self._policy.bounds.idle_s)

        try:
            async with asyncio.timeout(None) as clock, asyncio.TaskGroup() as group:
                group.create_task(copy(connection.reader, writer, is_sent=True))
                group.create_task(copy(reader, connection.writer, is_sent=False))
        except* (OSError, TimeoutError, SpentError):
            pass  # the tunnel is cut: nobody is there to be told
        connection.writer.transport.abort()

    async def _forward(self, connection: HttpConnection, request: h11.Request) -> None:
        try:
            url = urlsplit(request.target.decode("ascii"))
        except ValueError:
            url = urlsplit("")
        authority = url.netloc if url.netloc.rpartition("]")[2].count(":") else f"{url.netloc}:{HTTP_PORT}"
        destination = parse_destination(authority) if url.scheme == "http" else None
        if destination is None:
            raise ForbiddenError("this is a proxy: it takes CONNECT host:port, or http://host/ addresses")
        path = urlunsplit(("", "", url.path or "/", url.query, ""))
        async with self._connected(destination) as ((reader, writer), contact):
            forward = Forward(connection, reader, writer, self._contacts, contact)
            await forward.run(request, host=url.netloc, path=path)

    async def _addresses_of(self, destination: Destination) -> Sequence[str]:
        if destination.address is not None:
            return [destination.host]
        await self._resolving.acquire()
        asking = asyncio.ensure_future(self._resolve(destination))
        asking.add_done_callback(self._has_resolved)
        # SECURITY: a thread that asks cannot be stopped. It is counted until it has its answer, also where
        # nobody waits any more, or one run would take all (test_names_that_do_not_resolve_hold_up_nobody).
        return await asyncio.shield(asking)

    def _has_resolved(self, asking: asyncio.Future[Sequence[str]]) -> None:
        self._resolving.release()
        if not asking.cancelled():
            asking.exception()  # seen, where nobody waits for it

    @asynccontextmanager
    async def _connected(self, destination: Destination) -> AsyncIterator[tuple[Streams, Contact]]:
        """Connect to what the policy allows.

        Raises:
            ForbiddenError: it does not, or a name leads where it may not.
            SpentError: the run has had its share.
            OSError, TimeoutError: nothing answers there.
        """
        if not self._policy.names(destination):
            self._contacts.refuse(destination)
            raise ForbiddenError(f"egress policy {self._policy.name} does not allow {destination}")
        contact = self._contacts.open(destination)
        async with asyncio.timeout(self._policy.bounds.connect_s):
            addresses = await self._addresses_of(destination)
            open_ones = [
                address
                for address in dict.fromkeys(addresses)
                if self._policy.opens(ipaddress.ip_address(address), destination.port)
            ]
            if not open_ones:
                contact.refused += 1
                raise ForbiddenError(
                    f"egress policy {self._policy.name}: {destination} lies in a network that is not public"
                )
            streams = await _connect(open_ones, destination.port)
        try:
            yield streams, contact
        finally:
            streams[1].transport.abort()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()


async def _connect(addresses: Sequence[str], port: int) -> Streams:
    """Connect to the first address that answers; each is a literal, so nothing is resolved again."""
    failure: OSError = ConnectionRefusedError("no address")
    for address in addresses:
        try:
            return await asyncio.open_connection(address, port)
        except OSError as exc:
            failure = exc
    raise failure


async def _answer(connection: HttpConnection, status: int, why: str) -> None:
    if connection.protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        await connection.refuse(status, why)
    else:
        connection.writer.transport.abort()
