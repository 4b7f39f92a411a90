"""TLV version 2 payloads: values of declared shapes as bytes, exactly as the chain's validation wants them.

Values follow each other without padding, big-endian, of fixed width; String and Bytes = compactLen + bytes;
Optional = compactLen(width of the value), 0 for none, then the value; List = compactLen(count) + items;
Array = items; Struct = compactLen(members) + members. Compact lengths differ from a schema's from 16,384 on:
``0xC0 | n``, then n bytes. Source: Tangle EVM job protocol, ``SchemaLib``.

Invariant: there is one encoding of each value, and `decode_payload` accepts no other; its work and its memory
are linear in the payload.
"""

from collections.abc import Sequence

from blueprint.errors import InputsUndecodableError, UnencodableError
from blueprint.extract.shape import BYTE_WIDTHS, INTEGERS, MAX_DEPTH, Kind, Plain, Shape, check

__all__ = ["MAX_LIST_ITEMS", "MAX_WIDTHLESS_VALUES", "decode_payload", "encode_payload"]

MAX_LIST_ITEMS = 10_000
MAX_WIDTHLESS_VALUES = 65_536
"""Values that take no byte (Void, an empty array) in one payload: nothing else bounds their number."""
_TWO_BYTES_FROM, _MORE_BYTES_FROM, _LONGEST = 0x80, 0x4000, 32


def encode_payload(fields: Sequence[Shape], values: Sequence[Plain]) -> bytes:
    """Encode one plain value for each field.

    Raises:
        UnencodableError: a value does not fit its field; the message names it.
    """
    if len(fields) != len(values):
        raise UnencodableError(f"expected {len(fields)} values, received {len(values)}")
    out = bytearray()
    for number, (field, value) in enumerate(zip(fields, values, strict=True)):
        check(field, value, field.name or f"field {number}")
        _write(out, field, value, 0)
    return bytes(out)


def _write(out: bytearray, shape: Shape, value: Plain, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise UnencodableError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, tuple):
        _write_items(out, shape, value, depth)
    elif shape.kind is Kind.OPTIONAL:
        inner = bytearray()
        if value is not None:
            _write(inner, shape.children[0], value, depth + 1)
        out += _compact(len(inner))
        out += inner
    elif isinstance(value, int):
        bits, signed = INTEGERS.get(shape.kind, (8, False))
        out += value.to_bytes(bits // 8, "big", signed=signed)
    elif isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        if shape.kind in (Kind.STRING, Kind.BYTES):
            out += _compact(len(content))
        out += content


def _write_items(out: bytearray, shape: Shape, items: tuple[Plain, ...], depth: int) -> None:
    if shape.kind is Kind.OPTIONAL:
        inner = bytearray()
        _write(inner, shape.children[0], items, depth + 1)
        out += _compact(len(inner))
        out += inner
        return
    if shape.kind is Kind.STRUCT:
        out += _compact(len(items))
        for child, item in zip(shape.children, items, strict=True):
            _write(out, child, item, depth + 1)
        return
    if shape.kind is Kind.LIST:
        if len(items) > MAX_LIST_ITEMS:
            raise UnencodableError(
                f"{shape.name}: a list has at most {MAX_LIST_ITEMS} items, received {len(items)}"
            )
        out += _compact(len(items))
    for item in items:
        _write(out, shape.children[0], item, depth + 1)


def _compact(length: int) -> bytes:
    if length < _TWO_BYTES_FROM:
        return bytes([length])
    if length < _MORE_BYTES_FROM:
        return (0x8000 | length).to_bytes(2, "big")
    width = (length.bit_length() + 7) // 8
    return bytes([0xC0 | width]) + length.to_bytes(width, "big")


def decode_payload(fields: Sequence[Shape], payload: bytes) -> tuple[Plain, ...]:
    """Decode a payload into one plain value for each field.

    Raises:
        InputsUndecodableError: the payload is not the encoding of values of these fields: it ends early,
        bytes
            are left over, a length is longer than needed, a text is not UTF-8, a list is too long ...
    """
    reader = _Reader(payload)
    values = []
    for number, field in enumerate(fields):
        reader.path.append(field.name or f"field {number}")
        values.append(reader.value(field, len(payload), 0))
        reader.path.pop()
    if reader.at != len(payload):
        raise reader.error(f"bytes left over after the last field: {len(payload) - reader.at}")
    return tuple(values)


class _Reader:
    """Walks over a payload. ``path`` names the value that is being read, for the message of an error."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.path: list[str] = []
        self.widthless_left = MAX_WIDTHLESS_VALUES

    def error(self, problem: str) -> InputsUndecodableError:
        where = "".join(self.path).lstrip(".") or "inputs"
        return InputsUndecodableError(f"{where}: {problem} (TLV, at byte {self.at} of {len(self.data)})")

    def take(self, count: int, limit: int) -> bytes:
        if count > limit - self.at:
            raise self.error(f"bytes expected: {_shown(count)}, left: {limit - self.at}")
        start = self.at
        self.at += count
        return self.data[start : self.at]

    def compact(self, limit: int) -> int:
        """Read a length; it must be written in as few bytes as it needs."""
        first = self.take(1, limit)[0]
        if first < _TWO_BYTES_FROM:
            return first
        if first < 0xC0:  # noqa: PLR2004 - the bit patterns of the format
            value, least = (first & 0x3F) << 8 | self.take(1, limit)[0], _TWO_BYTES_FROM
        else:
            width = first & 0x3F
            if not 0 < width <= _LONGEST:
                raise self.error(f"a length starts with {first:#x}, which says that it takes {width} bytes")
            digits = self.take(width, limit)
            value, least = int.from_bytes(digits, "big"), max(_MORE_BYTES_FROM, 1 << (8 * (width - 1)))
        if value < least:
            raise self.error(f"the length {value} is written in more bytes than it needs")
        return value

    def value(self, shape: Shape, limit: int, depth: int) -> Plain:  # noqa: PLR0911 - one for each kind
        if depth >= MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        kind = shape.kind
        if kind in INTEGERS:
            bits, signed = INTEGERS[kind]
            return int.from_bytes(self.take(bits // 8, limit), "big", signed=signed)
        match kind:
            case Kind.VOID:
                self.spend_widthless()
                return None
            case Kind.BOOL:
                return self.boolean(limit)
            case Kind.STRING:
                return self.text(limit)
            case Kind.BYTES:
                return self.take(self.compact(limit), limit)
            case Kind.OPTIONAL:
                return self.optional(shape, limit, depth)
            case Kind.ARRAY | Kind.LIST:
                return self.items(shape, limit, depth)
            case Kind.STRUCT:
                return self.struct(shape, limit, depth)
            case _:
                return self.take(BYTE_WIDTHS.get(kind, shape.length), limit)

    def spend_widthless(self) -> None:
        # SECURITY: a few bytes can name 10,000 lists of 10,000 voids each; test_tlv_refuses_a_flood_of_voids
        self.widthless_left -= 1
        if self.widthless_left < 0:
            raise self.error(f"more than {MAX_WIDTHLESS_VALUES} values that take no bytes")

    def boolean(self, limit: int) -> bool:
        byte = self.take(1, limit)[0]
        if byte > 1:
            raise self.error(f"a bool is 0 or 1, received {byte}")
        return byte == 1

    def text(self, limit: int) -> str:
        try:
            return self.take(self.compact(limit), limit).decode()
        except UnicodeDecodeError as exc:
            raise self.error(f"the text is not UTF-8 ({exc.reason})") from exc

    def optional(self, shape: Shape, limit: int, depth: int) -> Plain:
        width = self.compact(limit)
        if width == 0:
            return None
        if width > limit - self.at:
            raise self.error(f"bytes that the optional value takes: {_shown(width)}, left: {limit - self.at}")
        end = self.at + width
        value = self.value(shape.children[0], end, depth + 1)
        if self.at != end:
            raise self.error(f"the optional value is shorter than its length says, in bytes: {end - self.at}")
        return value

    def items(self, shape: Shape, limit: int, depth: int) -> tuple[Plain, ...]:
        count = shape.length
        if shape.kind is Kind.LIST:
            count = self.compact(limit)
            if count > MAX_LIST_ITEMS:
                raise self.error(f"a list has at most {MAX_LIST_ITEMS} items, received {_shown(count)}")
        elif count == 0:
            self.spend_widthless()
        values = []
        for number in range(count):
            self.path.append(f"[{number}]")
            values.append(self.value(shape.children[0], limit, depth + 1))
            self.path.pop()
        return tuple(values)

    def struct(self, shape: Shape, limit: int, depth: int) -> tuple[Plain, ...]:
        count = self.compact(limit)
        if count != len(shape.children):
            raise self.error(f"the struct has {len(shape.children)} members, received {_shown(count)}")
        values = []
        for number, child in enumerate(shape.children):
            self.path.append(f".{child.name or number}")
            values.append(self.value(child, limit, depth + 1))
            self.path.pop()
        return tuple(values)


def _shown(number: int) -> str:
    return str(number) if number < 1 << 64 else "over 2^64"
