"""TLV version 2 schemas: what a blueprint declares on chain for the inputs and the result of a job.

Layout: ``0x02 | u16 fieldCount | node*``, node = ``u8 kind | u16 arrayLength | u16 childCount |
compactLen(name) | name | child*``, big-endian. Empty bytes mean that there is no schema.
Source: Tangle EVM job protocol, ``SchemaLib``.

Invariant: shapes returned by `parse_schema` are within every limit that the chain's own validation has, and
`serialise_schema` gives back the bytes that they were parsed from.
"""

from collections.abc import Sequence

from blueprint.errors import RegistrationError
from blueprint.extract.shape import MAX_DEPTH, Kind, Shape, is_zero_width

__all__ = ["MAX_STRUCT_FIELDS", "SCHEMA_VERSION", "parse_schema", "serialise_schema"]

SCHEMA_VERSION = 2
MAX_STRUCT_FIELDS = 256
MAX_FIXED_BYTES = 32
_HEADER_BYTES = 5
_U16_MAX = 0xFFFF
_TWO_BYTES_FROM, _THREE_BYTES_FROM, _FOUR_BYTES_FROM, _TOO_LONG_FROM = 0x80, 0x4000, 0x200000, 0x10000000
_WITH_ONE_CHILD = frozenset({Kind.OPTIONAL, Kind.ARRAY, Kind.LIST})


def parse_schema(schema: bytes) -> tuple[Shape, ...]:
    """Parse a schema into its fields, in order; no fields for empty bytes.

    Raises:
        RegistrationError: the bytes are not a schema that any payload could match; the message says where.
    """
    if not schema:
        return ()
    if schema[0] != SCHEMA_VERSION:
        raise RegistrationError(
            f"the schema has version {schema[0]}; this node speaks version {SCHEMA_VERSION}"
        )
    reader = _Reader(schema)
    reader.at = 1
    fields = tuple(reader.node(depth=0) for _ in range(reader.number(2)))
    if reader.at != len(schema):
        raise reader.error(f"bytes left over after the last field: {len(schema) - reader.at}")
    return fields


def serialise_schema(fields: Sequence[Shape]) -> bytes:
    """Write fields as a schema; empty bytes for no fields.

    Raises:
        RegistrationError: a field is outside what a schema can say.
    """
    if not fields:
        return b""
    if len(fields) > _U16_MAX:
        raise RegistrationError(f"a schema has at most {_U16_MAX} fields, received {len(fields)}")
    return bytes([SCHEMA_VERSION]) + len(fields).to_bytes(2, "big") + b"".join(_node(f, 0) for f in fields)


def _node(shape: Shape, depth: int) -> bytes:
    problem = _problem(shape, depth)
    if problem:
        raise RegistrationError(f"field {shape.name!r} cannot be declared in a schema: {problem}")
    name = shape.name.encode()
    head = bytes([shape.kind]) + shape.length.to_bytes(2, "big") + len(shape.children).to_bytes(2, "big")
    return head + _compact(len(name)) + name + b"".join(_node(child, depth + 1) for child in shape.children)


def _compact(length: int) -> bytes:
    if length < _TWO_BYTES_FROM:
        return bytes([length])
    if length < _THREE_BYTES_FROM:
        return (0x8000 | length).to_bytes(2, "big")
    if length < _FOUR_BYTES_FROM:
        return (0xC00000 | length).to_bytes(3, "big")
    if length < _TOO_LONG_FROM:
        return (0xE0000000 | length).to_bytes(4, "big")
    raise RegistrationError(
        f"a field name takes {length} bytes; a schema carries fewer than {_TOO_LONG_FROM}"
    )


def _problem(shape: Shape, depth: int) -> str:  # noqa: PLR0911 - one return for each rule
    """Say why no payload could match a node, or nothing. The limits are those of the chain's validation."""
    if depth >= MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if shape.kind in _WITH_ONE_CHILD and len(shape.children) != 1:
        return f"{shape.kind.name} takes exactly 1 child, received {len(shape.children)}"
    if shape.kind is Kind.STRUCT and len(shape.children) > MAX_STRUCT_FIELDS:
        return f"a struct has at most {MAX_STRUCT_FIELDS} members, received {len(shape.children)}"
    if shape.kind < Kind.OPTIONAL and shape.children:
        return f"{shape.kind.name} takes no children, received {len(shape.children)}"
    if shape.kind is Kind.FIXED_BYTES and not 1 <= shape.length <= MAX_FIXED_BYTES:
        return f"FIXED_BYTES is 1 to {MAX_FIXED_BYTES} bytes wide, received {shape.length}"
    if not 0 <= shape.length <= _U16_MAX:
        return f"a length is at most {_U16_MAX}, received {shape.length}"
    if shape.kind is Kind.OPTIONAL and is_zero_width(shape.children[0]):
        return "an optional value that takes no bytes cannot be told from none"
    return ""


class _Reader:
    """Walks over a schema. Work is linear: each node consumes at least six bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def error(self, problem: str) -> RegistrationError:
        return RegistrationError(f"the schema cannot be read at byte {self.at}: {problem}")

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise self.error(f"it ends early: bytes expected: {count}, left: {len(piece)}")
        self.at += count
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def compact(self) -> int:
        start = self.at
        first = self.number(1)
        if first < 0x80:  # noqa: PLR2004 - the bit patterns of the format
            value, least = first, 0
        elif first < 0xC0:  # noqa: PLR2004
            value, least = (first & 0x3F) << 8 | self.number(1), _TWO_BYTES_FROM
        elif first < 0xE0:  # noqa: PLR2004
            value, least = (first & 0x1F) << 16 | self.number(2), _THREE_BYTES_FROM
        else:
            value, least = (first & 0x1F) << 24 | self.number(3), _FOUR_BYTES_FROM
        if value < least:
            self.at = start
            raise self.error(f"the length {value} is written in more bytes than it needs")
        return value

    def node(self, depth: int) -> Shape:
        start = self.at
        if depth >= MAX_DEPTH:
            raise self.error(f"it is nested deeper than {MAX_DEPTH} levels")
        header = self.take(_HEADER_BYTES)
        if header[0] > Kind.STRUCT:
            self.at = start
            raise self.error(f"kind {header[0]} is unknown; the highest is {Kind.STRUCT.value}")
        children = int.from_bytes(header[3:5], "big")
        try:
            name = self.take(self.compact()).decode()
        except UnicodeDecodeError as exc:
            raise self.error("the field's name is not UTF-8") from exc
        shape = Shape(
            kind=Kind(header[0]),
            name=name,
            length=int.from_bytes(header[1:3], "big"),
            children=tuple(self.node(depth + 1) for _ in range(children)),
        )
        problem = _problem(shape, depth)
        if problem:
            self.at = start
            raise self.error(f"field {name!r}: {problem}")
        return shape
