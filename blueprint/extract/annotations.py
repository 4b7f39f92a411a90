"""The types that a handler may be annotated with, and the shapes that they stand for.

Invariant: a `Binding` converts between what a handler sees (dataclasses, lists, tuples) and plain values of
its shape; which encoding carries these is not its business.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NewType, TypeAlias

from blueprint.errors import InputsInvalidError, RegistrationError, Rejection, UnencodableError
from blueprint.extract.shape import MAX_DEPTH, Kind, Plain, Shape
from blueprint.types import Address, Hash

__all__ = [
    "I8",
    "I16",
    "I32",
    "I64",
    "I128",
    "I256",
    "U8",
    "U16",
    "U32",
    "U64",
    "U128",
    "U256",
    "Binding",
    "Bytes32",
    "FixedArray",
    "FixedBytes",
    "Void",
    "bind_type",
]

U8: TypeAlias = Annotated[int, Kind.U8]
U16: TypeAlias = Annotated[int, Kind.U16]
U32: TypeAlias = Annotated[int, Kind.U32]
U64: TypeAlias = Annotated[int, Kind.U64]
U128: TypeAlias = Annotated[int, Kind.U128]
U256: TypeAlias = Annotated[int, Kind.U256]
I8: TypeAlias = Annotated[int, Kind.I8]
I16: TypeAlias = Annotated[int, Kind.I16]
I32: TypeAlias = Annotated[int, Kind.I32]
I64: TypeAlias = Annotated[int, Kind.I64]
I128: TypeAlias = Annotated[int, Kind.I128]
I256: TypeAlias = Annotated[int, Kind.I256]
Bytes32: TypeAlias = Annotated[bytes, Kind.BYTES32]
Void: TypeAlias = None


@dataclass(frozen=True, slots=True)
class FixedBytes:
    """``Annotated[bytes, FixedBytes(4)]`` is exactly four bytes; 1 to 32 are possible."""

    width: int


@dataclass(frozen=True, slots=True)
class FixedArray:
    """``Annotated[list[U8], FixedArray(3)]`` is exactly three items; 1 to 65,535 are possible."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A shape, and the ways from its plain values to what a handler sees and back."""

    shape: Shape
    load: Callable[[Plain], object]
    """Plain value to the handler's; raises InputsInvalidError where a dataclass refuses the value."""
    dump: Callable[[object], Plain]
    """The handler's value to a plain one; raises UnencodableError where it is of another type."""

    def renamed(self, name: str) -> "Binding":
        """Return the same binding for a field with this name."""
        return dataclasses.replace(self, shape=dataclasses.replace(self.shape, name=name))


_SCALARS: dict[object, Kind] = {
    bool: Kind.BOOL,
    str: Kind.STRING,
    bytes: Kind.BYTES,
    Address: Kind.ADDRESS,
    Hash: Kind.BYTES32,
    None: Kind.VOID,
    type(None): Kind.VOID,
}
_HINTS: dict[object, str] = {
    int: "an int needs a width: annotate U8 to U256 or I8 to I256 from blueprint.extract",
    float: "the chain has no fractions: use an integer in a smaller unit",
    dict: "the chain has no mappings: use a list of a dataclass with a key and a value",
    list: "say what it holds: list[U8]",
    tuple: "say what it holds: tuple[U8, str] or tuple[U8, ...]",
}
_MAX_ARRAY = 65_535
_MAX_FIXED_BYTES = 32


def bind_type(annotation: object, where: str, depth: int = 0) -> Binding:  # noqa: PLR0911 - one for each kind
    """Return the binding of an annotation; ``where`` names it in the message of an error.

    Raises:
        RegistrationError: the annotation is of a type that jobs do not support.
    """
    if depth >= MAX_DEPTH:
        raise RegistrationError(
            f"{where}: nested deeper than {MAX_DEPTH} levels; a type cannot contain itself"
        )
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], where, depth)
    if isinstance(annotation, typing.Hashable) and annotation in _SCALARS:
        return _scalar(Shape(kind=_SCALARS[annotation]))
    if origin in (typing.Union, types.UnionType):
        return _optional(arguments, where, depth)
    is_open_tuple = origin is tuple and arguments[-1:] == (...,)
    if is_open_tuple or origin in (list, Sequence):
        return _many(annotation, Shape(kind=Kind.LIST), where, depth)
    if origin is tuple:
        return _struct([bind_type(a, f"{where}.{n}", depth + 1) for n, a in enumerate(arguments)], None)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(annotation, where, depth)
    if isinstance(annotation, NewType):
        return bind_type(annotation.__supertype__, where, depth)
    hint = _HINTS.get(
        annotation if isinstance(annotation, typing.Hashable) else None, "see blueprint.extract for what is"
    )
    raise RegistrationError(f"{where}: {_title(annotation)} is not supported; {hint}")


def _title(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else repr(annotation)


def _scalar(shape: Shape) -> Binding:
    return Binding(shape=shape, load=lambda value: value, dump=_as_plain)


def _as_plain(value: object) -> Plain:
    """Let a scalar through; whether it fits is checked when it is encoded."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise UnencodableError(
        f"expected a bool, an integer, text, bytes or None, received {type(value).__name__}"
    )


def _annotated(base: object, marks: Sequence[object], where: str, depth: int) -> Binding:
    for mark in marks:
        if isinstance(mark, Kind):
            return _scalar(Shape(kind=mark))
        if isinstance(mark, FixedBytes):
            if base is not bytes or not 1 <= mark.width <= _MAX_FIXED_BYTES:
                raise RegistrationError(
                    f"{where}: FixedBytes marks bytes of 1 to {_MAX_FIXED_BYTES}, received {mark}"
                )
            return _scalar(Shape(kind=Kind.FIXED_BYTES, length=mark.width))
        if isinstance(mark, FixedArray):
            if typing.get_origin(base) not in (list, tuple, Sequence) or not 1 <= mark.length <= _MAX_ARRAY:
                raise RegistrationError(
                    f"{where}: FixedArray marks list[T] of 1 to {_MAX_ARRAY} items, received {mark}"
                )
            return _many(base, Shape(kind=Kind.ARRAY, length=mark.length), where, depth)
    return bind_type(base, where, depth)


def _optional(arguments: Sequence[object], where: str, depth: int) -> Binding:
    inner = [argument for argument in arguments if argument is not type(None)]
    if len(inner) != 1 or len(arguments) != 2:  # noqa: PLR2004 - T and None
        raise RegistrationError(f"{where}: a union can only be T | None; declare one type for each job")
    item = bind_type(inner[0], where, depth + 1)
    if item.shape.kind is Kind.OPTIONAL:
        raise RegistrationError(f"{where}: an optional of an optional cannot be told from none")
    return Binding(
        shape=Shape(kind=Kind.OPTIONAL, children=(item.shape,)),
        load=lambda value: None if value is None else item.load(value),
        dump=lambda value: None if value is None else item.dump(value),
    )


def _many(annotation: object, shape: Shape, where: str, depth: int) -> Binding:
    item = bind_type(typing.get_args(annotation)[0], f"{where}[]", depth + 1)
    container: Callable[[Sequence[object]], object] = (
        tuple if typing.get_origin(annotation) is tuple else list
    )

    def load(value: Plain) -> object:
        return container([item.load(part) for part in value]) if isinstance(value, tuple) else value

    def dump(value: object) -> Plain:
        if not isinstance(value, list | tuple):
            raise UnencodableError(f"{where}: expected a list or a tuple, received {type(value).__name__}")
        return tuple(item.dump(part) for part in value)

    return Binding(shape=dataclasses.replace(shape, children=(item.shape,)), load=load, dump=dump)


def _struct(members: Sequence[Binding], build: Callable[..., object] | None) -> Binding:
    shape = Shape(kind=Kind.STRUCT, children=tuple(member.shape for member in members))

    def load(value: Plain) -> object:
        if not isinstance(value, tuple):
            return value
        parts = [member.load(part) for member, part in zip(members, value, strict=True)]
        return tuple(parts) if build is None else build(parts)

    def dump(value: object) -> Plain:
        if not isinstance(value, tuple) or len(value) != len(members):
            raise UnencodableError(f"expected a tuple of {len(members)}, received {type(value).__name__}")
        return tuple(member.dump(part) for member, part in zip(members, value, strict=True))

    return Binding(shape=shape, load=load, dump=dump)


def _dataclass(annotation: type, where: str, depth: int) -> Binding:
    fields = [field for field in dataclasses.fields(annotation) if field.init]
    hints = resolve_hints(annotation, where)
    names = [field.name for field in fields]
    members = [bind_type(hints[n], f"{where}.{n}", depth + 1).renamed(n) for n in names]
    if not members:
        raise RegistrationError(f"{where}: the dataclass {annotation.__name__} has no fields")

    def build(parts: Sequence[object]) -> object:
        try:
            return annotation(**dict(zip(names, parts, strict=True)))
        except Rejection:
            raise
        except ValueError as exc:
            raise InputsInvalidError(f"{where}: {exc}") from exc

    inner = _struct(members, build)

    def dump(value: object) -> Plain:
        if not isinstance(value, annotation):
            raise UnencodableError(
                f"{where}: expected {annotation.__name__}, received {type(value).__name__}"
            )
        return tuple(m.dump(getattr(value, n)) for n, m in zip(names, members, strict=True))

    return dataclasses.replace(inner, dump=dump)


def resolve_hints(owner: Callable[..., object], where: str) -> dict[str, object]:
    """Return the annotations of a function or class as types.

    Raises:
        RegistrationError: one names a type that does not exist where the owner was defined.
    """
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError) as exc:
        raise RegistrationError(
            f"{where}: an annotation cannot be resolved ({exc}); define its types at the top of the module"
        ) from exc
