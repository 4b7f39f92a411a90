"""Seeded random shapes and values that fit them, for round trips through both encodings."""

import random

from blueprint.extract.shape import BYTE_WIDTHS, INTEGERS, Kind, Plain, Shape, is_zero_width

SCALARS = [kind for kind in Kind if Kind.BOOL <= kind <= Kind.BYTES]


def random_shape(rng: random.Random, depth: int = 0, *, with_void: bool = True) -> Shape:
    """Return a shape of any kind, at most four levels deep."""
    kinds = SCALARS if depth >= 3 else [*Kind]
    kind = rng.choice([k for k in kinds if with_void or k is not Kind.VOID])
    if kind is Kind.FIXED_BYTES:
        return Shape(kind=kind, length=rng.randint(1, 32))
    if kind in (Kind.LIST, Kind.ARRAY, Kind.OPTIONAL):
        child = random_shape(rng, depth + 1, with_void=with_void)
        if kind is Kind.OPTIONAL and (is_zero_width(child) or child.kind is Kind.OPTIONAL):
            child = Shape(kind=Kind.U8)
        return Shape(kind=kind, length=rng.randint(1, 4) if kind is Kind.ARRAY else 0, children=(child,))
    if kind is Kind.STRUCT:
        members = [random_shape(rng, depth + 1, with_void=with_void) for _ in range(rng.randint(1, 4))]
        return Shape(kind=kind, children=tuple(members))
    return Shape(kind=kind)


def random_value(rng: random.Random, shape: Shape) -> Plain:  # noqa: PLR0911 - one return for each kind
    """Return a value of a shape."""
    kind = shape.kind
    if kind in INTEGERS:
        bits, signed = INTEGERS[kind]
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        return rng.choice([0, low, high, rng.randint(low, high)])
    if kind is Kind.BOOL:
        return rng.random() < 0.5
    if kind is Kind.STRING:
        return "".join(rng.choice("aé漢😀\n") for _ in range(rng.choice([0, 1, 31, 32, 33, 127, 128, 300])))
    if kind is Kind.BYTES:
        return rng.randbytes(rng.choice([0, 1, 32, 127, 128, 16_383, 16_384]))
    if kind is Kind.FIXED_BYTES or kind in BYTE_WIDTHS:
        return rng.randbytes(BYTE_WIDTHS.get(kind, shape.length))
    if kind is Kind.OPTIONAL:
        return None if rng.random() < 0.5 else random_value(rng, shape.children[0])
    if kind is Kind.ARRAY:
        return tuple(random_value(rng, shape.children[0]) for _ in range(shape.length))
    if kind is Kind.LIST:
        return tuple(random_value(rng, shape.children[0]) for _ in range(rng.choice([0, 1, 5])))
    if kind is Kind.STRUCT:
        return tuple(random_value(rng, child) for child in shape.children)
    return None


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return data with one thing wrong: a byte changed, cut off, put in or appended; or junk altogether."""
    at = rng.randrange(len(data) + 1)
    match rng.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data + rng.randbytes(rng.randint(1, 40))
        case 2:
            return data[:at] + rng.randbytes(1) + data[at:]
        case 3:
            return data[:at] + bytes([rng.choice([0, 1, 0x20, 0x7F, 0x80, 0xC1, 0xFF])]) + data[at + 1 :]
        case _:
            return rng.randbytes(rng.randint(0, 200))
