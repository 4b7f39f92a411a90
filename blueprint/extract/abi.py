"""The contract ABI for values of declared shapes, read strictly.

Invariant: there is one encoding of each value, the one that every compiler and library writes (tails in
order, without gaps or overlaps, zero padding), and `decode_value` accepts no other: so each byte is read
once, and work and memory are linear in the data. An optional value travels as ``T[]`` with no or one item;
the ABI has no Void. Source: Solidity, Contract ABI Specification.
"""

from collections.abc import Callable, Sequence

from blueprint.errors import InputsUndecodableError, RegistrationError
from blueprint.extract.shape import ABI_WORD_BYTES as WORD
from blueprint.extract.shape import BYTE_WIDTHS, INTEGERS, MAX_DEPTH, Kind, Plain, Shape, check

__all__ = ["WORD", "abi_type", "decode_value", "encode_value"]


def abi_type(shape: Shape, depth: int = 0) -> str:  # noqa: PLR0911 - one return for each kind
    """Return the canonical name of the shape's type, as in a function signature: ``(uint8,string[])``.

    Raises:
        RegistrationError: the ABI has no such type.
    """
    if depth >= MAX_DEPTH:
        raise RegistrationError(f"{shape.name!r} is nested deeper than {MAX_DEPTH} levels")
    kind = shape.kind
    if kind in INTEGERS:
        bits, signed = INTEGERS[kind]
        return f"{'int' if signed else 'uint'}{bits}"
    match kind:
        case Kind.BYTES32:
            return "bytes32"
        case Kind.FIXED_BYTES:
            return f"bytes{shape.length}"
        case Kind.OPTIONAL | Kind.LIST:
            return f"{abi_type(shape.children[0], depth + 1)}[]"
        case Kind.ARRAY if shape.length > 0:
            return f"{abi_type(shape.children[0], depth + 1)}[{shape.length}]"
        case Kind.STRUCT if shape.children:
            return f"({','.join(abi_type(child, depth + 1) for child in shape.children)})"
        case Kind.BOOL | Kind.ADDRESS | Kind.STRING | Kind.BYTES:
            return kind.name.lower()
        case _:
            raise RegistrationError(
                f"{shape.name!r} is {kind.name} without any content, which the ABI cannot carry; "
                "leave it out, or declare a TLV schema on chain"
            )


def encode_value(shape: Shape, value: Plain) -> bytes:
    """Encode one value as Solidity's ``abi.encode(value)`` does.

    Raises:
        UnencodableError: the value does not fit the shape.
    """
    check(shape, value)
    return _write_all((shape,), (value,))


def _write_all(shapes: Sequence[Shape], values: Sequence[Plain]) -> bytes:
    head, tail = bytearray(), bytearray()
    head_bytes = sum(shape.head_bytes for shape in shapes)
    for shape, value in zip(shapes, values, strict=True):
        if shape.is_dynamic:
            head += (head_bytes + len(tail)).to_bytes(WORD, "big")
            tail += _write(shape, value)
        else:
            head += _write(shape, value)
    return bytes(head + tail)


def _write(shape: Shape, value: Plain) -> bytes:
    kind = shape.kind
    if kind is Kind.OPTIONAL:
        value = () if value is None else (value,)
    if isinstance(value, tuple):
        if kind is Kind.STRUCT:
            return _write_all(shape.children, value)
        count = len(value).to_bytes(WORD, "big") if kind in (Kind.LIST, Kind.OPTIONAL) else b""
        return count + _write_all(shape.children * len(value), value)
    if isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        if kind in (Kind.STRING, Kind.BYTES):
            return len(content).to_bytes(WORD, "big") + content + bytes(-len(content) % WORD)
        return content.rjust(WORD, b"\0") if kind is Kind.ADDRESS else content.ljust(WORD, b"\0")
    return int(value or 0).to_bytes(WORD, "big", signed=kind in INTEGERS and INTEGERS[kind][1])


def decode_value(shape: Shape, data: bytes) -> Plain:
    """Decode one value, in either of the two forms that callers use.

    For a struct these are ``abi.encode(struct)`` (with the outer offset when a member is dynamic) and the
    flat form ``abi.encode(member, member, ...)``; for another type ``abi.encode(value)`` and ``abi.encode``
    of a struct that holds it. Bytes that could be both are read as the first.

    Raises:
        InputsUndecodableError: the data is neither.
    """
    whole: tuple[Shape, ...] = (shape,)
    members = shape.children
    if not shape.is_dynamic:
        return _Reader(data).all(whole)[0]
    if shape.kind is not Kind.STRUCT:
        members = ()
        forms = [whole, (Shape(kind=Kind.STRUCT, children=whole),)]
    elif int.from_bytes(data[:WORD], "big") == WORD:
        forms = [whole, members]
    else:
        forms = [members, whole]
    failures = []
    for form in forms:
        try:
            values = _Reader(data).all(form)
        except InputsUndecodableError as exc:
            failures.append(exc)
            continue
        if form is members:
            return values
        inner = values[0]
        return inner if form is whole or not isinstance(inner, tuple) else inner[0]
    raise failures[0]


class _Reader:
    """Reads heads in order, and each tail exactly where the previous one ended (``tail``)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.path: list[str] = []
        self.tail = 0
        self.at = 0

    def error(self, problem: str) -> InputsUndecodableError:
        where = "".join(self.path).lstrip(".") or "inputs"
        return InputsUndecodableError(f"{where}: {problem} (ABI, at byte {self.at} of {len(self.data)})")

    def all(self, shapes: Sequence[Shape]) -> tuple[Plain, ...]:
        # a lone struct without a name adds nothing to the path of its members
        name = _members(shapes) if len(shapes) > 1 or shapes[0].name else _no_name
        values = self.sequence(shapes, len(shapes), name)
        if self.tail != len(self.data):
            self.at = self.tail
            raise self.error(f"bytes left over after the last value: {len(self.data) - self.tail}")
        return values

    def sequence(self, shapes: Sequence[Shape], count: int, name: Callable[[int], str]) -> tuple[Plain, ...]:
        """Read ``count`` values whose heads start at ``tail``; ``shapes`` has one each, or one for all."""
        base = cursor = self.tail
        heads = sum(shape.head_bytes for shape in shapes) * count // len(shapes)
        # SECURITY: checked before anything is allocated for a count; test_abi_refuses_counts_beyond_the_data
        if heads > len(self.data) - base:
            self.at = base
            raise self.error(f"bytes expected: {_shown(heads)}, left: {len(self.data) - base}")
        self.tail = base + heads
        values = []
        for number in range(count):
            shape = shapes[number % len(shapes)]
            self.path.append(name(number))
            self.at = cursor
            if shape.is_dynamic:
                # SECURITY: offsets that share or skip bytes are refused; test_abi_refuses_overlapping_offsets
                self.offset(cursor, self.tail - base)
                values.append(self.dynamic(shape))
            else:
                values.append(self.static(shape, cursor))
            cursor += shape.head_bytes
            self.path.pop()
        return tuple(values)

    def word(self, at: int) -> int:
        if at + WORD > len(self.data):
            raise self.error(f"bytes expected: {WORD}, left: {max(0, len(self.data) - at)}")
        return int.from_bytes(self.data[at : at + WORD], "big")

    def offset(self, at: int, expected: int) -> None:
        received = self.word(at)
        if received != expected:
            raise self.error(
                f"the offset must be {expected}, where the next value lies, received {_shown(received)}"
            )

    def static(self, shape: Shape, at: int) -> Plain:
        if shape.kind in (Kind.ARRAY, Kind.STRUCT):
            children = shape.children * (shape.length if shape.kind is Kind.ARRAY else 1)
            values = []
            for number, child in enumerate(children):
                self.path.append(_member_name(child, number) if shape.kind is Kind.STRUCT else f"[{number}]")
                values.append(self.static(child, at))
                at += child.head_bytes
                self.path.pop()
            return tuple(values)
        self.at = at
        word = self.word(at)
        if shape.kind in INTEGERS:
            return self.integer(shape.kind, word)
        if shape.kind is Kind.BOOL:
            if word > 1:
                raise self.error(f"a bool is 0 or 1, received {_shown(word)}")
            return word == 1
        return self.fixed_bytes(shape, self.data[at : at + WORD])

    def integer(self, kind: Kind, word: int) -> int:
        bits, signed = INTEGERS[kind]
        value = word - (1 << 256) if signed and word >> 255 else word
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
        if not low <= value < high:
            raise self.error(f"the number does not fit {'int' if signed else 'uint'}{bits}")
        return value

    def fixed_bytes(self, shape: Shape, word: bytes) -> bytes:
        width = BYTE_WIDTHS.get(shape.kind, shape.length)
        is_right_aligned = shape.kind is Kind.ADDRESS
        content, padding = (
            (word[-width:], word[:-width]) if is_right_aligned else (word[:width], word[width:])
        )
        if any(padding):
            raise self.error(f"the padding around {width} bytes must be zero")
        return content

    def dynamic(self, shape: Shape) -> Plain:
        if shape.kind is Kind.STRUCT:
            return self.sequence(shape.children, len(shape.children), _members(shape.children))
        if shape.kind is Kind.ARRAY:
            return self.sequence(shape.children, shape.length, _item_name)
        self.at = self.tail
        count = self.word(self.tail)
        self.tail += WORD
        if shape.kind in (Kind.STRING, Kind.BYTES):
            return self.content(shape, count)
        if shape.kind is Kind.OPTIONAL and count > 1:
            raise self.error(f"an optional value has no or one item, received {_shown(count)}")
        values = self.sequence(shape.children, count, _item_name)
        if shape.kind is Kind.OPTIONAL:
            return values[0] if values else None
        return values

    def content(self, shape: Shape, length: int) -> str | bytes:
        padded = length + -length % WORD
        if padded > len(self.data) - self.tail:
            raise self.error(f"bytes expected: {_shown(length)} (padded), left: {len(self.data) - self.tail}")
        content = self.data[self.tail : self.tail + length]
        if any(self.data[self.tail + length : self.tail + padded]):
            raise self.error("the padding after the content must be zero")
        self.tail += padded
        if shape.kind is Kind.BYTES:
            return content
        try:
            return content.decode()
        except UnicodeDecodeError as exc:
            raise self.error(f"the text is not UTF-8 ({exc.reason})") from exc


def _members(shapes: Sequence[Shape]) -> Callable[[int], str]:
    return lambda number: _member_name(shapes[number], number)


def _member_name(shape: Shape, number: int) -> str:
    return f".{shape.name or number}"


def _no_name(_: int) -> str:
    return ""


def _item_name(number: int) -> str:
    return f"[{number}]"


def _shown(number: int) -> str:
    return str(number) if number < 1 << 64 else "over 2^64"
