"""A TCP server for tests that answers HTTP requests with whatever bytes it is told, right or wrong.

Invariant: it writes down every request as it came, so that a test can see what really left.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

__all__ = ["Answer", "RawServer", "answer", "head_value"]

Answer = bytes | AsyncIterator[bytes]


class RawServer:
    """Listens on a free loopback port.

    Args:
        respond: takes the head of a request and returns the whole answer; the connection is closed after it.
        host: the address to listen on.
    """

    def __init__(self, respond: Callable[[str], Answer], host: str = "127.0.0.1") -> None:
        self.respond = respond
        self.host = host
        self.heads: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        answered = self.respond(head)
        if isinstance(answered, bytes):
            writer.write(answered)
            await writer.drain()
        else:
            async for piece in answered:
                writer.write(piece)
                await writer.drain()


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Write an answer; underscores in header names stand for dashes."""
    lines = {"Content_Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def head_value(head: str, name: str) -> str | None:
    """Return the value of a header of a request, None when it is not there."""
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None
