"""The service's end of the socket to one launcher: whole messages with descriptors, without a thread.

Invariant: what a launcher sends is ours; a descriptor that comes with a message belongs to its receiver.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.backends.streams import until_readable
from sandbox.inside import wire

__all__ = ["Channel", "Message"]

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the launcher: its fields, raw bytes, and the descriptors that came with it."""

    fields: wire.Fields
    raw: bytes
    descriptors: tuple[int, ...]


class Channel:
    """One end of a socket pair.

    Args:
        end: connected to the launcher; the channel closes it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._end = end

    async def send(self, fields: wire.Fields, raw: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send one message.

        Raises:
            ConnectionError: the launcher is gone.
        """
        message = wire.encode(fields, raw)
        # The descriptors ride on the header, which an empty socket buffer always takes whole.
        socket.send_fds(self._end, [message[: wire.HEADER_BYTES]], list(descriptors))
        rest = memoryview(message)[wire.HEADER_BYTES :]
        await asyncio.get_running_loop().sock_sendall(self._end, rest)

    async def receive(self) -> Message:
        """Wait for one message.

        Raises:
            EOFError: the launcher closed the channel.
            ConnectionError: the launcher is gone.
        """
        header, descriptors = await self._header()
        try:
            text_bytes, raw_bytes = wire.decode_header(header)
            text = await self._exactly(text_bytes)
            return Message(wire.decode_fields(text), await self._exactly(raw_bytes), descriptors)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the socket, which makes the launcher kill everything and end."""
        self._end.close()

    async def _header(self) -> tuple[bytes, tuple[int, ...]]:
        while True:
            try:
                start, descriptors, _, _ = socket.recv_fds(self._end, wire.HEADER_BYTES, wire.MAX_FDS)
            except BlockingIOError:
                await until_readable(self._end.fileno())
                continue
            if not start:
                raise EOFError("it closed the channel")
            return start + await self._exactly(wire.HEADER_BYTES - len(start)), tuple(descriptors)

    async def _exactly(self, count: int) -> bytes:
        loop, data = asyncio.get_running_loop(), bytearray()
        while len(data) < count:
            chunk = await loop.sock_recv(self._end, min(count - len(data), CHUNK_BYTES))
            if not chunk:
                raise EOFError("it closed the channel")
            data += chunk
        return bytes(data)
