"""The strict ABI codec, held against eth_abi, and against hostile bytes."""

import random
import time
import tracemalloc

import eth_abi
import pytest
from shapes import damaged, random_shape, random_value

from blueprint.errors import InputsUndecodableError, RegistrationError
from blueprint.extract.abi import abi_type, decode_value, encode_value
from blueprint.extract.shape import INTEGERS, Kind, Plain, Shape

STRING = Shape(kind=Kind.STRING)
U8, U256 = Shape(kind=Kind.U8), Shape(kind=Kind.U256)
PAIR = Shape(
    kind=Kind.STRUCT, children=(Shape(kind=Kind.STRING, name="a"), Shape(kind=Kind.STRING, name="b"))
)


def listed(item: Shape) -> Shape:
    """Return a list of these."""
    return Shape(kind=Kind.LIST, children=(item,))


def word(number: int) -> bytes:
    """Return one word of the ABI."""
    return number.to_bytes(32, "big")


def as_eth_abi(shape: Shape, value: Plain) -> object:
    """Write a plain value as eth_abi takes it: an optional as a list, an address in hexadecimal."""
    if shape.kind is Kind.OPTIONAL:
        return [] if value is None else [as_eth_abi(shape.children[0], value)]
    if isinstance(value, tuple):
        children = shape.children if shape.kind is Kind.STRUCT else shape.children * len(value)
        return tuple(as_eth_abi(child, item) for child, item in zip(children, value, strict=True))
    return "0x" + value.hex() if shape.kind is Kind.ADDRESS and isinstance(value, bytes) else value


def test_abi_encodes_as_eth_abi_does_and_reads_it_back() -> None:
    """For random values of random types our bytes are those of eth_abi, and come back as they were."""
    rng = random.Random(11)
    for _ in range(300):
        shape = random_shape(rng, with_void=False)
        value = random_value(rng, shape)
        data = eth_abi.encode([abi_type(shape)], [as_eth_abi(shape, value)])
        assert encode_value(shape, value) == data
        assert decode_value(shape, data) == value


def test_abi_reads_the_flat_form_of_a_struct_too() -> None:
    """``abi.encode(a, b)`` and ``abi.encode(struct)`` are the same inputs."""
    assert decode_value(PAIR, eth_abi.encode(["(string,string)"], [("x", "y")])) == ("x", "y")
    assert decode_value(PAIR, eth_abi.encode(["string", "string"], ["x", "y"])) == ("x", "y")


def test_abi_reads_a_lone_value_inside_a_struct_too() -> None:
    """``abi.encode(text)`` and ``abi.encode(struct of one text)`` are the same inputs."""
    assert decode_value(STRING, eth_abi.encode(["string"], ["x"])) == "x"
    assert decode_value(STRING, eth_abi.encode(["(string)"], [("x",)])) == "x"


def test_abi_decoder_accepts_exactly_the_encodings_that_it_writes() -> None:
    """Damaged data ends in InputsUndecodableError, or is one of the two forms of some value."""
    rng = random.Random(12)
    for _ in range(1500):
        shape = random_shape(rng, with_void=False)
        data = damaged(rng, encode_value(shape, random_value(rng, shape)))
        try:
            value = decode_value(shape, data)
        except InputsUndecodableError:
            continue
        wrapped = Shape(kind=Kind.STRUCT, children=(shape,))
        forms = {encode_value(shape, value), encode_value(wrapped, (value,))}
        assert data in forms or encode_value(shape, value)[32:] == data


@pytest.mark.parametrize(
    ("shape", "data", "problem"),
    [
        (U8, b"", "bytes expected: 32, left: 0"),
        (U8, word(256), "does not fit uint8"),
        (Shape(kind=Kind.I8), word(128), "does not fit int8"),
        (Shape(kind=Kind.BOOL), word(2), "a bool is 0 or 1, received 2"),
        (Shape(kind=Kind.ADDRESS), b"\1" * 32, "padding around 20 bytes"),
        (Shape(kind=Kind.FIXED_BYTES, length=4), b"\1" * 32, "padding around 4 bytes"),
        (U256, word(1) + b"x", "bytes left over after the last value: 1"),
        (STRING, word(32) + word(1) + b"\xff" + bytes(31), "not UTF-8"),
        (STRING, word(32) + word(1) + b"ab" + bytes(30), "padding after the content"),
        (STRING, word(32) + word(2**255) + bytes(32), "over 2\\^64"),
        (STRING, word(2**256 - 1) + word(0), "the offset must be 32"),
        (PAIR, word(32) + word(64) + word(64) + word(0), "the offset must be 96, .* received 64"),
        (Shape(kind=Kind.OPTIONAL, children=(U8,)), word(32) + word(2) + word(1) + word(2), "no or one item"),
    ],
)
def test_abi_data_that_is_no_encoding_says_why(shape: Shape, data: bytes, problem: str) -> None:
    """Each way in which ABI data can be wrong has its own message."""
    with pytest.raises(InputsUndecodableError, match=problem):
        decode_value(shape, data)


def test_abi_error_names_the_member_by_its_path() -> None:
    """The message leads to the member, through structs and lists."""
    group = Shape(kind=Kind.STRUCT, children=(Shape(kind=Kind.LIST, name="pairs", children=(PAIR,)), U8))
    data = bytearray(encode_value(group, ((("a", "b"), ("c", "d")), 1)))
    data[-1] = 1  # in the padding of "d"
    with pytest.raises(InputsUndecodableError, match=r"pairs\[1\]\.b: the padding"):
        decode_value(group, bytes(data))


def test_abi_refuses_overlapping_offsets() -> None:
    """Seven levels of lists whose items all point at the same bytes are refused, in no time and memory."""
    shape = U256
    for _ in range(8):
        shape = listed(shape)
    level = word(64) + word(64 * 32) * 64
    data = word(32) + level * 7 + word(1) + word(7)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(InputsUndecodableError, match="the offset must be 2112, .* received 2048"):
        decode_value(shape, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024
    assert time.perf_counter() - began < 1


def test_abi_refuses_counts_beyond_the_data() -> None:
    """A count far over the data allocates nothing, whatever the items are."""
    for item in (U256, STRING, Shape(kind=Kind.ARRAY, length=65_535, children=(U8,))):
        tracemalloc.start()
        with pytest.raises(InputsUndecodableError, match="bytes expected"):
            decode_value(listed(item), word(32) + word(2**64 - 1) + bytes(64))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1024 * 1024


@pytest.mark.parametrize(
    "shape",
    [
        Shape(kind=Kind.VOID, name="nothing"),
        Shape(kind=Kind.STRUCT, name="nothing"),
        Shape(kind=Kind.ARRAY, name="nothing", length=0, children=(U8,)),
        Shape(kind=Kind.LIST, name="list", children=(Shape(kind=Kind.VOID, name="nothing"),)),
    ],
)
def test_abi_has_no_type_for_nothing(shape: Shape) -> None:
    """A value without content is refused when a job is bound."""
    with pytest.raises(RegistrationError, match="'nothing' is .* the ABI cannot carry"):
        abi_type(shape)


def test_abi_names_every_integer() -> None:
    """Each width has its own type name, signed and unsigned."""
    names = {abi_type(Shape(kind=kind)) for kind in INTEGERS}
    assert names == {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64, 128, 256)}
