"""The streams of a program that the service itself feeds and captures, from its event loop.

Invariant: nothing here waits for an end of file; what a pipe still holds is read when every writer is dead.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence

from sandbox.inside.capture import Capture
from sandbox.result import CapturedStream

__all__ = ["Feeder", "captured", "following", "read_line", "uninterrupted", "until_readable"]


class Feeder:
    """Writes standard input as fast as the program reads it, then closes the pipe."""

    def __init__(self, descriptor: int, data: bytes) -> None:
        self.descriptor = descriptor
        self._data = memoryview(data)

    def write_some(self) -> None:
        """Write what the pipe takes; close it when all is written or nobody reads any more."""
        try:
            if self._data:
                self._data = self._data[os.write(self.descriptor, self._data) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._data = memoryview(b"")
        if not self._data:
            self.close()

    def close(self) -> None:
        """Close the pipe. Safe to call twice."""
        if self.descriptor >= 0:
            asyncio.get_running_loop().remove_writer(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


@contextlib.contextmanager
def following(feeder: Feeder, captures: Sequence[Capture]) -> Iterator[None]:
    """Feed and capture from the event loop while the block runs."""
    loop = asyncio.get_running_loop()

    def read(capture: Capture) -> None:
        descriptor = capture.descriptor
        capture.read_some()
        if not capture.is_open:
            loop.remove_reader(descriptor)

    loop.add_writer(feeder.descriptor, feeder.write_some)
    for capture in captures:
        loop.add_reader(capture.descriptor, read, capture)
    try:
        yield
    finally:
        feeder.close()
        for capture in captures:
            if capture.is_open:
                loop.remove_reader(capture.descriptor)


def captured(capture: Capture) -> CapturedStream:
    """Return what was kept and counted of a stream."""
    return CapturedStream(data=bytes(capture.data), size_bytes=capture.size_bytes, sha256=capture.sha256)


async def uninterrupted(event: asyncio.Event) -> None:
    """Wait for the death of something that was killed, a cancellation notwithstanding."""
    cancelled: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


async def until_readable(descriptor: int) -> None:
    """Wait until something can be read, or the other end is closed."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


async def read_line(descriptor: int, *, timeout_s: float) -> bytes:
    """Read the first line that a process prints, or what it says before it ends or the time is over."""
    said = bytearray()
    os.set_blocking(descriptor, False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not said.endswith(b"\n"):
                await until_readable(descriptor)
                chunk = os.read(descriptor, 4096)
                if not chunk:
                    break
                said += chunk
    return bytes(said)
