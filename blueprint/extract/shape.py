"""The shape of a value, whatever it is encoded in: the twenty-three kinds of a Tangle blueprint's fields.

Invariant: a plain value (`Plain`) that passed `check` against a shape can be encoded in that shape.
Plain values are None, bool, int, str, bytes and tuples of them; dataclasses exist only above this module.
Source: Tangle EVM job protocol, ``BlueprintFieldKind``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from blueprint.errors import UnencodableError

__all__ = [
    "ABI_WORD_BYTES",
    "BYTE_WIDTHS",
    "INTEGERS",
    "MAX_DEPTH",
    "Kind",
    "Plain",
    "Shape",
    "check",
    "describe",
    "is_zero_width",
    "zero",
]

Plain: TypeAlias = "bool | int | str | bytes | tuple[Plain, ...] | None"

ABI_WORD_BYTES = 32
MAX_DEPTH = 32
"""Levels of nesting that the chain's validation accepts."""


class Kind(IntEnum):
    """A kind of field, numbered as on chain."""

    VOID = 0
    BOOL = 1
    U8 = 2
    I8 = 3
    U16 = 4
    I16 = 5
    U32 = 6
    I32 = 7
    U64 = 8
    I64 = 9
    U128 = 10
    I128 = 11
    U256 = 12
    I256 = 13
    ADDRESS = 14
    BYTES32 = 15
    FIXED_BYTES = 16
    STRING = 17
    BYTES = 18
    OPTIONAL = 19
    ARRAY = 20
    LIST = 21
    STRUCT = 22


INTEGERS: dict[Kind, tuple[int, bool]] = {
    kind: (int(kind.name[1:]), kind.name[0] == "I") for kind in Kind if Kind.U8 <= kind <= Kind.I256
}
"""Kind to (bits, is signed)."""

BYTE_WIDTHS: dict[Kind, int] = {Kind.ADDRESS: 20, Kind.BYTES32: 32}
"""Kinds of bytes whose width the kind itself fixes; a FIXED_BYTES has it in its shape."""

_TITLES: dict[Kind, str] = {kind: kind.name if kind in INTEGERS else kind.name.title() for kind in Kind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One field: its kind, its name ("" where it has none), and what the kind needs besides."""

    kind: Kind
    name: str = ""
    length: int = 0
    """Width in bytes of a FIXED_BYTES (1 to 32), number of items of an ARRAY; 0 otherwise."""
    children: tuple["Shape", ...] = ()
    """One for OPTIONAL, ARRAY and LIST; the members of a STRUCT; none otherwise."""
    is_dynamic: bool = field(init=False, repr=False, compare=False)
    """True when the ABI puts the value elsewhere and an offset in its place."""
    head_bytes: int = field(init=False, repr=False, compare=False)
    """Bytes that the ABI takes where the value stands: its width, or one word for an offset."""

    def __post_init__(self) -> None:
        """Work out the ABI's layout once; both codecs ask for it at every value."""
        is_compound = self.kind in (Kind.ARRAY, Kind.STRUCT)
        if is_compound:
            is_dynamic = any(child.is_dynamic for child in self.children)
        else:
            is_dynamic = self.kind in (Kind.STRING, Kind.BYTES, Kind.LIST, Kind.OPTIONAL)
        head_bytes = ABI_WORD_BYTES
        if is_compound and not is_dynamic:
            times = self.length if self.kind is Kind.ARRAY else 1
            head_bytes = times * sum(child.head_bytes for child in self.children)
        object.__setattr__(self, "is_dynamic", is_dynamic)
        object.__setattr__(self, "head_bytes", head_bytes)


def describe(shape: Shape) -> str:
    """Write a shape as people read it: ``List(Struct{a: U8, b: String})``."""
    title = _TITLES[shape.kind].replace("_", "")
    match shape.kind:
        case Kind.FIXED_BYTES:
            return f"{title}({shape.length})"
        case Kind.ARRAY:
            return f"{title}({describe(shape.children[0])}, {shape.length})"
        case Kind.OPTIONAL | Kind.LIST:
            return f"{title}({describe(shape.children[0])})"
        case Kind.STRUCT:
            return f"{title}{{{', '.join(_member(child) for child in shape.children)}}}"
        case _:
            return title


def _member(shape: Shape) -> str:
    return f"{shape.name}: {describe(shape)}" if shape.name else describe(shape)


def is_zero_width(shape: Shape) -> bool:
    """True when every value of the shape takes no byte at all in TLV."""
    if shape.kind is Kind.ARRAY:
        return shape.length == 0 or is_zero_width(shape.children[0])
    return shape.kind is Kind.VOID


def zero(shape: Shape) -> Plain:  # noqa: PLR0911 - one return for each kind
    """Return the shape's empty value: 0, "", no items, none; what an error answer puts in unused fields."""
    if shape.kind is Kind.BOOL:
        return False
    if shape.kind in INTEGERS:
        return 0
    match shape.kind:
        case Kind.ADDRESS | Kind.BYTES32:
            return bytes(BYTE_WIDTHS[shape.kind])
        case Kind.FIXED_BYTES:
            return bytes(shape.length)
        case Kind.STRING:
            return ""
        case Kind.BYTES:
            return b""
        case Kind.ARRAY:
            return (zero(shape.children[0]),) * shape.length
        case Kind.LIST:
            return ()
        case Kind.STRUCT:
            return tuple(zero(child) for child in shape.children)
        case _:
            return None


def check(shape: Shape, value: Plain, path: str = "") -> None:
    """Check that a plain value can be carried by a shape.

    Raises:
        UnencodableError: it cannot; the message names the field and what it takes.
    """
    where = path or shape.name or "value"
    problem = _problem(shape, value)
    if problem:
        raise UnencodableError(f"{where}: expected {problem}, received {_received(value)}")
    for child_path, child, item in _inner(shape, value, where):
        check(child, item, child_path)


def _inner(shape: Shape, value: Plain, where: str) -> Iterator[tuple[str, Shape, Plain]]:
    if shape.kind is Kind.OPTIONAL and value is not None:
        yield where, shape.children[0], value
    elif shape.kind is Kind.STRUCT and isinstance(value, tuple):
        for number, (child, item) in enumerate(zip(shape.children, value, strict=True)):
            yield f"{where}.{child.name or number}", child, item
    elif shape.kind in (Kind.ARRAY, Kind.LIST) and isinstance(value, tuple):
        for number, item in enumerate(value):
            yield f"{where}[{number}]", shape.children[0], item


def _problem(shape: Shape, value: Plain) -> str:
    """Say what the shape takes when the value is not that; look at this level only."""
    kind = shape.kind
    if kind in INTEGERS:
        return _integer_problem(kind, value)
    is_right, expected = True, ""
    match kind:
        case Kind.VOID:
            is_right, expected = value is None, "None"
        case Kind.BOOL:
            is_right, expected = isinstance(value, bool), "True or False"
        case Kind.STRING:
            is_right, expected = isinstance(value, str) and _is_unicode(value), "text that UTF-8 can carry"
        case Kind.BYTES:
            is_right, expected = isinstance(value, bytes), "bytes"
        case Kind.ADDRESS | Kind.BYTES32 | Kind.FIXED_BYTES:
            width = BYTE_WIDTHS.get(kind, shape.length)
            is_right, expected = isinstance(value, bytes) and len(value) == width, f"{width} bytes"
        case Kind.LIST:
            is_right, expected = isinstance(value, tuple), "a list"
        case Kind.ARRAY:
            is_right = isinstance(value, tuple) and len(value) == shape.length
            expected = f"exactly {shape.length} items"
        case Kind.STRUCT:
            is_right = isinstance(value, tuple) and len(value) == len(shape.children)
            expected = f"{len(shape.children)} members"
        case _:
            pass
    return "" if is_right else expected


def _integer_problem(kind: Kind, value: Plain) -> str:
    bits, signed = INTEGERS[kind]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return ""
    return f"an integer from {low} to {high}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _received(value: Plain) -> str:
    """Name a value without showing what is in it: contents may be a caller's secret. Integers are shown."""
    if isinstance(value, bool | int) or value is None:
        return (
            str(value)
            if not isinstance(value, int) or abs(value) < 1 << 256
            else "an integer of over 256 bits"
        )
    unit = "items" if isinstance(value, tuple) else "characters" if isinstance(value, str) else "bytes"
    if isinstance(value, tuple | str | bytes):
        return f"{type(value).__name__} of {len(value)} {unit}"
    return type(value).__name__
