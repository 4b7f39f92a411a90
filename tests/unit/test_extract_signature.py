"""What a handler may be annotated with, and what is refused when it is registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pytest

from blueprint.errors import InputsInvalidError, RegistrationError, UnencodableError
from blueprint.extract import I8, U8, U64, Bytes32, FixedArray, FixedBytes, RawResult, Void, read_signature
from blueprint.extract.annotations import bind_type
from blueprint.extract.shape import describe
from blueprint.types import Address, Hash, JobCall


@dataclass(frozen=True)
class Point:
    """A struct."""

    x: I8
    label: str | None


@dataclass(frozen=True)
class Positive:
    """A struct that checks itself."""

    number: U8

    def __post_init__(self) -> None:
        if self.number == 0:
            raise ValueError("number must be over 0")


@dataclass(frozen=True)
class Chain:
    """A struct that contains itself."""

    after: "list[Chain]"


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (U64, "U64"),
        (bool, "Bool"),
        (str, "String"),
        (bytes, "Bytes"),
        (Void, "Void"),
        (Address, "Address"),
        (Hash, "Bytes32"),
        (Bytes32, "Bytes32"),
        (Annotated[bytes, FixedBytes(4)], "FixedBytes(4)"),
        (str | None, "Optional(String)"),
        (list[U8], "List(U8)"),
        (Sequence[U8], "List(U8)"),
        (tuple[U8, ...], "List(U8)"),
        (tuple[U8, str], "Struct{U8, String}"),
        (Annotated[list[U8], FixedArray(3)], "Array(U8, 3)"),
        (Annotated[str, "a note that is nobody's business"], "String"),
        (list[Point], "List(Struct{x: I8, label: Optional(String)})"),
    ],
)
def test_extract_annotation_stands_for_a_shape(annotation: object, shape: str) -> None:
    """Each supported annotation has one shape."""
    assert describe(bind_type(annotation, "here").shape) == shape


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (int, "an int needs a width"),
        (float, "no fractions"),
        (dict[str, str], "is not supported"),
        (dict, "no mappings"),
        (list, "say what it holds"),
        (U8 | str, "only be T | None"),
        (U8 | str | None, "only be T | None"),
        (object, "object is not supported"),
        (Annotated[bytes, FixedBytes(33)], "1 to 32"),
        (Annotated[str, FixedBytes(3)], "marks bytes"),
        (Annotated[list[U8], FixedArray(0)], "1 to 65535"),
        (Chain, "cannot contain itself"),
        (list[int], r"here\[\]: int is not supported"),
        ("U8", "'U8' is not supported"),
    ],
)
def test_extract_annotation_that_is_not_supported_is_refused_with_a_fix(
    annotation: object, problem: str
) -> None:
    """What cannot be carried is refused, and the message says what to write."""
    with pytest.raises(RegistrationError, match=problem):
        bind_type(annotation, "here")


def test_extract_binding_builds_what_the_handler_is_annotated_with() -> None:
    """Dataclasses, lists and tuples come as such, and go back to the same plain values."""
    binding = bind_type(tuple[list[Point], tuple[U8, ...]], "here")
    plain = (((1, "a"), (2, None)), (3, 4))
    value = binding.load(plain)
    assert value == ([Point(1, "a"), Point(2, None)], (3, 4))
    assert binding.dump(value) == plain


def test_extract_dataclass_may_refuse_its_values() -> None:
    """A ValueError from a dataclass is a rejection of the inputs, with its words."""
    with pytest.raises(InputsInvalidError, match="here: number must be over 0"):
        bind_type(Positive, "here").load((0,))


@pytest.mark.parametrize("value", [("not", "a point"), None, object()])
def test_extract_result_of_another_type_is_refused(value: object) -> None:
    """A handler that returns something else than it says is caught before anything is sent."""
    with pytest.raises(UnencodableError, match="expected"):
        bind_type(Point, "here").dump(value)


async def good(call: JobCall, first: U8, *, second: str) -> Point:
    """A handler with every kind of parameter."""
    return Point(first, second + str(call.job_index))


def test_extract_signature_tells_the_call_from_the_inputs() -> None:
    """A parameter annotated JobCall gets the call; the others are the inputs, in order, under their names."""
    signature = read_signature(good, name="good")
    assert signature.call_names == {"call"}
    assert [binding.shape.name for binding in signature.parameters] == ["first", "second"]
    assert not signature.reads_call_only


def test_extract_raw_result_has_no_shape() -> None:
    """A handler that returns RawResult encodes its result itself."""

    async def raw(call: JobCall) -> RawResult:
        return call.inputs

    signature = read_signature(raw, name="raw")
    assert signature.result is None
    assert signature.reads_call_only


def synchronous(first: U8) -> U8:
    """Not async."""
    return first


async def without_result(first: U8):
    """No return annotation."""


async def without_annotation(first) -> None:
    """No annotation."""


async def variadic(*rest: U8) -> None:
    """Any number of parameters."""


async def positional(first: U8, /) -> None:
    """A parameter without a usable name."""


async def defaulted(first: U8 = 3) -> None:
    """A default that no inputs could leave to be used."""


async def unresolved(first: "Missing") -> None:  # noqa: F821 - that is the point
    """An annotation that names nothing."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (synchronous, "must be an async function"),
        (without_result, "the return annotation is missing"),
        (without_annotation, "'first' has no annotation"),
        (variadic, "cannot be filled from inputs"),
        (positional, "cannot be filled from inputs"),
        (defaulted, "'first' has a default"),
        (unresolved, "cannot be resolved .*Missing"),
    ],
)
def test_extract_signature_that_cannot_be_served_is_refused(function: object, problem: str) -> None:
    """Each fault of a signature is found when the job is registered, and named."""
    with pytest.raises(RegistrationError, match=f"job 'it'.*{problem}"):
        read_signature(function, name="it")  # type: ignore[arg-type] # wrong on purpose
