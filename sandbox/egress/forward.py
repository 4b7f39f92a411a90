"""One plain HTTP request that passes the proxy: taken apart here, made anew for its destination, and back.

Invariant: what leaves has one framing, made by us; what concerns one connection only does not pass.
"""

import asyncio
import contextlib
from collections.abc import Iterable

import h11

from sandbox.egress.connection import PIECE_BYTES, HttpConnection
from sandbox.egress.contacts import Contact, Contacts

__all__ = ["Forward"]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"host",
        b"proxy-authorization", b"proxy-authenticate", b"transfer-encoding", b"expect",
    }
)  # fmt: skip


class Forward:
    """The exchange of one request and its answer.

    Args:
        connection: from the program inside.
        reader: from the destination.
        writer: to it.
        contacts: the books of the run.
        contact: this destination's entry in them.
    """

    def __init__(
        self,
        connection: HttpConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        contacts: Contacts,
        contact: Contact,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._contacts = contacts
        self._contact = contact
        self._theirs = h11.Connection(h11.CLIENT)

    async def run(self, request: h11.Request, *, host: str, path: str) -> None:
        """Send the request with its body, and pass the answer on as it comes.

        Raises:
            SpentError: the run has had its share of bytes.
            OSError: one of the two has gone, or does not speak HTTP.
        """
        ask = h11.Request(
            method=request.method, target=path, headers=[(b"host", host.encode()), *_passed(request.headers)]
        )
        try:
            async with asyncio.TaskGroup() as group:
                uploading = group.create_task(self._upload(ask))
                await self._download()
                uploading.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def _upload(self, ask: h11.Request) -> None:
        with contextlib.suppress(OSError):  # the destination may answer without having read everything
            await self._send(ask)
            while not isinstance(event := await self._connection.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    return
                await self._send(event)
            await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._theirs.send(event) or b""
        self._contacts.count(self._contact, len(data), is_sent=True)
        self._writer.write(data)
        await self._writer.drain()

    async def _download(self) -> None:
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                await self._connection.send(
                    h11.Response(
                        status_code=event.status_code, headers=_passed(event.headers), reason=event.reason
                    )
                )
            elif isinstance(event, h11.Data):
                await self._connection.send(event)
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionResetError("the destination ended its answer early")
        await self._connection.send(h11.EndOfMessage())

    async def _next_event(self) -> h11.Event | type[h11.PAUSED] | type[h11.NEED_DATA]:
        try:
            while (event := self._theirs.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(PIECE_BYTES)
                self._contacts.count(self._contact, len(data), is_sent=False)
                self._theirs.receive_data(data)
        except h11.RemoteProtocolError as exc:
            raise ConnectionResetError("the destination does not speak HTTP") from exc
        return event


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return what is passed on: all but what concerns one connection only; the framing is made anew."""
    given = list(headers)
    named = [
        each.strip().lower() for name, value in given if name == b"connection" for each in value.split(b",")
    ]
    is_chunked = any(name == b"transfer-encoding" for name, _ in given)
    # SECURITY: one framing only, whatever came: test_request_with_two_lengths_smuggles_nothing.
    dropped = {*HOP_BY_HOP, *named, *([b"content-length"] if is_chunked else [])}
    dropped -= set() if is_chunked else {b"content-length"}
    passed = [(name, value) for name, value in given if name not in dropped]
    return [*passed, *([(b"transfer-encoding", b"chunked")] if is_chunked else []), (b"connection", b"close")]
