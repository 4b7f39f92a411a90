"""Messages between the service and a launcher: one JSON object and one run of raw bytes.

Invariant: both ends are ours; nothing that a program printed is ever parsed, it travels as raw bytes.
"""

import json
import socket
import struct

__all__ = ["HEADER_BYTES", "MAX_FDS", "Fields", "decode_fields", "decode_header", "encode", "receive", "send"]

Fields = dict[str, object]

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size
MAX_FDS = 16


def encode(fields: Fields, raw: bytes = b"") -> bytes:
    """Return the bytes of one message."""
    text = json.dumps(fields).encode()
    return _HEADER.pack(len(text), len(raw)) + text + raw


def decode_header(header: bytes) -> tuple[int, int]:
    """Return the lengths of the JSON part and of the raw part that follow a header."""
    text_bytes, raw_bytes = _HEADER.unpack(header)
    return int(text_bytes), int(raw_bytes)


def decode_fields(text: bytes) -> Fields:
    """Parse the JSON part.

    Raises:
        ValueError: it is not JSON.
        TypeError: it is not an object.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError(f"expected a JSON object, received {type(fields).__name__}")
    return fields


def send(channel: socket.socket, fields: Fields, raw: bytes = b"") -> None:
    """Send one message, blocking."""
    channel.sendall(encode(fields, raw))


def receive(channel: socket.socket) -> tuple[Fields, bytes, list[int]]:
    """Wait for one message and the descriptors that came with its header.

    Raises:
        EOFError: the other end is closed.
    """
    header, descriptors, _, _ = socket.recv_fds(channel, HEADER_BYTES, MAX_FDS)
    header += _exactly(channel, HEADER_BYTES - len(header)) if header else b""
    if not header:
        raise EOFError("the service closed the channel")
    text_bytes, raw_bytes = decode_header(header)
    text = _exactly(channel, text_bytes)
    return decode_fields(text), _exactly(channel, raw_bytes), descriptors


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = channel.recv(min(count - len(data), 1 << 20))
        if not chunk:
            raise EOFError("the service closed the channel in the middle of a message")
        data += chunk
    return bytes(data)
